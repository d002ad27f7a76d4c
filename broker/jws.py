"""The compact JWS container, read strictly before any library sees it (RFC 7515, RFC 8725 3)."""

import binascii
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Final

from broker.errors import Reason, TokenRejected
from broker.strict_json import StrictJsonError, loads_strict
from broker.unshown import Unshown

MAX_TOKEN_CHARACTERS: Final = 16_384
_LONGEST_KID: Final = 512
_LONGEST_MEMORISED_HEADER: Final = 512

_JWE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){4}", re.ASCII)
_ALPHABET: Final = (string.ascii_letters + string.digits + "-_").encode()
_TO_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
# The last character of a segment may carry bits beyond the last byte; only zeros are canonical.
_LAST_OF_TWO: Final = frozenset(b"AQgw")
_LAST_OF_THREE: Final = frozenset(b"AEIMQUYcgkosw048")
_KEY_CARRIERS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})
_KEY_CARRIERS_BUT_JWK: Final = _KEY_CARRIERS - {"jwk"}


@dataclass(frozen=True, slots=True)
class Header:
    """
    A JOSE header whose form is right; nothing it says is proved.

    ``typ`` is lower case without ``application/`` and empty when absent (RFC 7515 4.1.9). ``jwk`` is
    empty but in a token that may carry its key.
    """

    unverified_algorithm: str
    unverified_kid: str | None
    unverified_typ: str
    unverified_jwk: Mapping[str, Any] = field(default_factory=dict, repr=False)


class UnverifiedToken(Unshown, frozen=True):
    """A token taken apart: its container is sound, and nothing in it is proved yet."""

    unshown: ClassVar = frozenset({"unverified_claims", "signing_input", "signature"})

    header: Header
    unverified_claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


def read_token(token: str) -> UnverifiedToken:
    """
    The parts of a compact JWS with a JSON object as its payload.

    Raises ``TokenRejected`` for anything else: another serialization, JWE, characters outside
    base64url, critical or key-carrying headers, JSON that is not strict, and tokens of more than
    16,384 characters, which are refused before they are decoded.
    """
    return _read(token, _read_header)


def read_token_with_key(token: str) -> UnverifiedToken:
    """
    The same for a token that carries the key it is signed with, as only a DPoP proof may.

    Then there must be a ``jwk``; what else carries a key, or points to one, is refused here too.
    """
    return _read(token, _read_header_with_key)


def _read(token: str, read_header: Callable[[bytes], Header]) -> UnverifiedToken:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise TokenRejected(Reason.TOKEN_TOO_LARGE)
    # What is not ASCII becomes a character that no segment may have.
    raw = token.encode("ascii", "replace")
    signing_input, _, signature_segment = raw.rpartition(b".")
    header_segment, _, payload_segment = signing_input.partition(b".")
    is_compact = raw.translate(None, _ALPHABET) == b".." and header_segment and payload_segment
    if not is_compact:
        raise TokenRejected(Reason.JWE_REFUSED if _JWE.fullmatch(token) else Reason.MALFORMED_TOKEN)
    return UnverifiedToken(
        header=read_header(header_segment),
        unverified_claims=_read_object(payload_segment),
        signing_input=signing_input,
        signature=_decode(signature_segment),
    )


def decode_segment(segment: str) -> bytes:
    """The bytes of a base64url segment without padding; raises ``TokenRejected`` if not canonical."""
    return _decode(segment.encode("ascii"))


def encode_segment(raw: bytes) -> bytes:
    """The base64url form of some bytes without padding (RFC 7515 2)."""
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").translate(_TO_URL)


def _decode(segment: bytes) -> bytes:
    remainder = len(segment) % 4
    is_canonical = (
        remainder == 0
        or (remainder == 2 and segment[-1] in _LAST_OF_TWO)
        or (remainder == 3 and segment[-1] in _LAST_OF_THREE)
    )
    if not is_canonical:
        raise TokenRejected(Reason.MALFORMED_TOKEN)
    try:
        # More padding than is due is passed over.
        return binascii.a2b_base64(segment.translate(_TO_STANDARD) + b"==")
    except binascii.Error:
        raise TokenRejected(Reason.MALFORMED_TOKEN) from None


def _read_object(segment: bytes) -> Mapping[str, Any]:
    try:
        value = loads_strict(_decode(segment))
    except StrictJsonError as error:
        raise TokenRejected(error.reason) from None
    if not isinstance(value, dict):
        raise TokenRejected(Reason.MALFORMED_TOKEN)
    return value


def _read_header(segment: bytes) -> Header:
    # Headers of one issuer repeat, so their reading is remembered; long ones would only fill memory.
    if len(segment) <= _LONGEST_MEMORISED_HEADER:
        return _read_short_header(segment)
    return _keyless_header_of(_read_object(segment))


@lru_cache(maxsize=256)
def _read_short_header(segment: bytes) -> Header:
    return _keyless_header_of(_read_object(segment))


def _read_header_with_key(segment: bytes) -> Header:
    members = _read_object(segment)
    header = _header_of(members, refused=_KEY_CARRIERS_BUT_JWK)
    jwk = members.get("jwk")
    if not isinstance(jwk, dict):
        raise TokenRejected(Reason.UNKNOWN_KEY, "the header carries no key")
    return replace(header, unverified_jwk=jwk)


def _keyless_header_of(members: Mapping[str, Any]) -> Header:
    return _header_of(members, refused=_KEY_CARRIERS)


def _header_of(members: Mapping[str, Any], *, refused: frozenset[str]) -> Header:
    algorithm = members.get("alg")
    if not isinstance(algorithm, str):
        raise TokenRejected(Reason.ALG_NOT_ALLOWED)
    if "crit" in members or "b64" in members:
        raise TokenRejected(Reason.CRIT_UNSUPPORTED)
    if not refused.isdisjoint(members):
        raise TokenRejected(Reason.UNKNOWN_KEY, "the header carries or points to a key")
    if "enc" in members or "zip" in members:
        raise TokenRejected(Reason.JWE_REFUSED)
    kid = members.get("kid")
    if "kid" in members and (not isinstance(kid, str) or len(kid) > _LONGEST_KID):
        raise TokenRejected(Reason.UNKNOWN_KEY, "kid is not a short string")
    typ = members.get("typ", "")
    if not isinstance(typ, str):
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
    return Header(
        unverified_algorithm=algorithm,
        unverified_kid=kid,
        unverified_typ=typ.lower().removeprefix("application/"),
    )
