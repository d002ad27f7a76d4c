"""The compact JWS container, read strictly before any library sees it (RFC 7515, RFC 8725 3)."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.errors import Reason, TokenRejected
from broker.strict_json import StrictJsonError, loads_strict

LONGEST_TOKEN: Final = 16_384
_LONGEST_KID: Final = 512
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_JWE: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){4}")
_KEY_CARRIERS: Final = frozenset({"jwk", "jku", "x5u", "x5c"})


@dataclass(frozen=True, slots=True)
class Container:
    """
    A token taken apart: its form is sound, and nothing in it is proved yet.

    ``unverified_typ`` is lower case without ``application/`` (RFC 7515 4.1.9). ``unverified_jwk`` is empty
    but in a token that may carry its key.
    """

    unverified_typ: str
    unverified_algorithm: str
    unverified_kid: str | None
    unverified_jwk: Mapping[str, Any] = field(repr=False)
    unverified_claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read_container(token: str, *, carries_key: bool = False) -> Container:
    """
    The parts of a compact JWS of a JSON object; with ``carries_key``, one signed with its ``jwk``.

    Raises ``TokenRejected`` for anything else: other serializations, JWE, text that is not canonical
    base64url, JSON that is not strict, critical headers, and headers that carry or point to a key.
    """
    if len(token) > LONGEST_TOKEN:
        raise TokenRejected(Reason.TOKEN_TOO_LARGE)
    match = _COMPACT.fullmatch(token)
    if match is None:
        raise TokenRejected(Reason.JWE_REFUSED if _JWE.fullmatch(token) else Reason.MALFORMED_TOKEN)
    header = _object(match[1])
    _check_header(header, carries_key=carries_key)
    jwk = header.get("jwk", {})
    if not isinstance(jwk, dict) or bool(jwk) != carries_key:
        raise TokenRejected(Reason.UNKNOWN_KEY, "the header carries no key")
    return Container(
        unverified_typ=header.get("typ", "").lower().removeprefix("application/"),
        unverified_algorithm=header["alg"],
        unverified_kid=header.get("kid"),
        unverified_jwk=jwk,
        unverified_claims=_object(match[2]),
        signing_input=token[: match.end(2)].encode("ascii"),
        signature=_decoded(match[3]),
    )


def _check_header(header: Mapping[str, Any], *, carries_key: bool) -> None:
    if not isinstance(header.get("alg"), str):
        raise TokenRejected(Reason.ALG_NOT_ALLOWED)
    if "crit" in header or "b64" in header:
        raise TokenRejected(Reason.CRIT_UNSUPPORTED)
    if not (_KEY_CARRIERS - ({"jwk"} if carries_key else set())).isdisjoint(header):
        raise TokenRejected(Reason.UNKNOWN_KEY, "the header carries or points to a key")
    if "enc" in header or "zip" in header:
        raise TokenRejected(Reason.JWE_REFUSED)
    kid = header.get("kid", "")
    if not isinstance(kid, str) or len(kid) > _LONGEST_KID:
        raise TokenRejected(Reason.UNKNOWN_KEY, "kid is not a short string")
    if not isinstance(header.get("typ", ""), str):
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE)


def _object(segment: str) -> dict[str, Any]:
    try:
        value = loads_strict(_decoded(segment))
    except StrictJsonError as error:
        raise TokenRejected(error.reason) from None
    if not isinstance(value, dict):
        raise TokenRejected(Reason.MALFORMED_TOKEN)
    return value


def _decoded(segment: str) -> bytes:
    """The bytes of a segment, of which there is one spelling only: that of its encoding."""
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise TokenRejected(Reason.MALFORMED_TOKEN) from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != segment:
        raise TokenRejected(Reason.MALFORMED_TOKEN)
    return raw
