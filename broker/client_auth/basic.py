"""HTTP Basic credentials as OAuth clients really send them (RFC 6749 2.3.1, RFC 7617)."""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from broker.errors import InvalidClient, Reason
from broker.model import ClientCredential

_LONGEST_CREDENTIAL: Final = 8192
_MOST_COLONS: Final = 16


@dataclass(frozen=True, slots=True)
class BasicCandidate:
    """One way to read a Basic credential: an id, and the spellings the secret may have."""

    client_id: str
    secrets: tuple[str, ...] = field(repr=False)


def read_basic(unverified_authorization: tuple[str, ...]) -> Iterator[BasicCandidate]:
    """
    The readings of a Basic credential, the standard one first.

    The standard form-encodes both parts, so its first colon divides them; clients that encode
    nothing send ids with colons in them, so each further colon is a reading too. Raises
    ``InvalidClient`` (``basic_malformed``) unless there is exactly one well-formed credential.
    """
    text = _decode(unverified_authorization)
    raw_id, colon, raw_secret = text.partition(":")
    if not colon or text.count(":") > _MOST_COLONS:
        raise InvalidClient(Reason.BASIC_MALFORMED)
    yield BasicCandidate(_form_decode(raw_id), _spellings(raw_secret))
    position = len(raw_id)
    while position != -1:
        yield BasicCandidate(text[:position], _spellings(text[position + 1 :]))
        position = text.find(":", position + 1)


def claimed_id(credential: ClientCredential) -> str | None:
    """The client that a caller says to be, before anything is proved; None where it names none."""
    if credential.client_id or not credential.unverified_authorization:
        return credential.client_id
    try:
        return next(read_basic(credential.unverified_authorization)).client_id or None
    except InvalidClient:
        return None


def _decode(unverified_authorization: tuple[str, ...]) -> str:
    if len(unverified_authorization) != 1 or len(unverified_authorization[0]) > _LONGEST_CREDENTIAL:
        raise InvalidClient(Reason.BASIC_MALFORMED)
    scheme, _, encoded = unverified_authorization[0].partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient(Reason.BASIC_MALFORMED)
    try:
        return base64.b64decode(encoded.strip(" "), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise InvalidClient(Reason.BASIC_MALFORMED) from None


def _form_decode(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def _spellings(raw_secret: str) -> tuple[str, ...]:
    decoded = _form_decode(raw_secret)
    return (decoded,) if decoded == raw_secret else (decoded, raw_secret)
