"""JSON read strictly: one meaning for every document, or none (RFC 8725 3.7, RFC 7519 4)."""

import json
import math
import re
from typing import Any, Final, NoReturn

import msgspec

from broker.errors import Reason

MAX_DEPTH: Final = 16
# Possessive throughout: an unterminated string must not be tried again from each of its quotes.
_BRACKETS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_LONGEST_NUMBER: Final = 32
_ALL_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * _LONGEST_NUMBER
_READER: Final = msgspec.json.Decoder()
_WRITER: Final = msgspec.json.Encoder()


class StrictJsonError(ValueError):
    """The document is not strict JSON; ``reason`` says in which of three ways."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.code)
        self.reason = reason


def loads_strict(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """
    The value of a JSON document in UTF-8.

    Refuses, by ``StrictJsonError``: another encoding or a byte order mark, a member given twice,
    nesting beyond ``max_depth``, numbers that are not finite or absurdly long, and strings that
    cannot be encoded (lone surrogates). The caller bounds the size.
    """
    if raw.count(b"{") + raw.count(b"[") > max_depth:
        _check_depth(raw, max_depth)
    if _LONG_NUMBER not in raw.translate(_ALL_DIGITS_ALIKE):
        try:
            value = _READER.decode(raw)
            # A value that is written in just these bytes, but for spaces, is all there is in them: it
            # has no member twice, no lone surrogate and no number that is not finite.
            written = _WRITER.encode(value)
            if written == raw or written == msgspec.json.format(raw, indent=-1):
                return value
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            pass
    return _read_any_form(raw)


def _read_any_form(raw: bytes) -> Any:
    """The same, member by member, with whatever spaces and escapes the document is written."""
    try:
        text = raw.decode("utf-8")
        value = _DECODER.decode(text)
    except StrictJsonError:
        raise
    except (ValueError, RecursionError):
        raise StrictJsonError(Reason.MALFORMED_TOKEN) from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_surrogates(value: Any) -> None:
    """Only an escape can bring a lone surrogate in, so only documents with escapes are walked."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise StrictJsonError(Reason.CLAIM_MALFORMED) from None


def _check_depth(raw: bytes, max_depth: int) -> None:
    depth = 0
    for match in _BRACKETS.finditer(raw):
        token = match.group()
        if token in b"[{":
            depth += 1
            if depth > max_depth:
                raise StrictJsonError(Reason.JSON_TOO_DEEP)
        elif token in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise StrictJsonError(Reason.DUPLICATE_MEMBER)
    return members


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise StrictJsonError(Reason.CLAIM_MALFORMED)
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise StrictJsonError(Reason.CLAIM_MALFORMED)
    return number


def _constant(_name: str) -> NoReturn:
    raise StrictJsonError(Reason.CLAIM_MALFORMED)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_real,
    parse_constant=_constant,
)
