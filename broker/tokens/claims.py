"""Claims read one by one with their types, so that no later step meets a surprise (RFC 7519 4)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from broker.errors import Reason, TokenRejected
from broker.model import Authentication, JsonObject, actors_of

LONGEST_TEXT: Final = 255
LONGEST_URI: Final = 2048
_LATEST_TIME: Final = 253_402_300_799
_NUMBERS: Final = frozenset({int, float})
_MOST_AMR: Final = 16
_MOST_SCOPES: Final = 100
_MOST_ACTORS_READ: Final = 16

# These letters show nothing, so that two different identifiers look alike (UAX 44,
# Default_Ignorable_Code_Point); what is not printable at all is refused as well.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_TOKEN: Final = r"[\x21\x23-\x5b\x5d-\x7e]{1,255}"
_SCOPE_TOKEN: Final = re.compile(_TOKEN)
_SCOPE: Final = re.compile(rf"(?:{_TOKEN}(?: {_TOKEN})*+)?")
# 32 bytes in base64url, whose last character carries four bits (RFC 7638 3).
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_OF_LOGIN: Final = frozenset({"auth_time", "acr", "amr"})
_UNTOLD: Final = Authentication()
_MEMBERS_OF_ACTOR: Final = frozenset({"iss", "sub", "client_id", "sub_profile", "act"})


class Times(Struct, frozen=True):
    """When a token was issued, and from when until before when it counts, in unix seconds."""

    issued_at: int | None
    expires_at: int
    not_before: int | None = None

    def check(self, *, now: int, leeway: int, longest: int) -> None:
        """
        Raise ``TokenRejected`` unless the token is valid at ``now``.

        ``leeway`` and ``longest`` are in seconds; the leeway serves acceptance alone. A token is accepted
        while ``now < exp + leeway`` and once ``nbf`` and ``iat`` are at most ``now + leeway``.
        """
        issued_at, expires_at = self.issued_at, self.expires_at
        if now >= expires_at + leeway:
            raise TokenRejected(Reason.TOKEN_EXPIRED)
        if max(issued_at or 0, self.not_before or 0) > now + leeway:
            raise TokenRejected(Reason.NOT_YET_VALID)
        if expires_at - (now - leeway if issued_at is None else issued_at) > longest:
            raise TokenRejected(Reason.LIFETIME_TOO_LONG)


def read_times(claims: Mapping[str, Any], *, is_iat_required: bool = True) -> Times:
    """The times of a token, which go together; whether it is valid now is for ``Times.check`` to say."""
    expires_at = read_time(claims, "exp")
    issued_at = read_time(claims, "iat") if is_iat_required or "iat" in claims else None
    not_before = read_time(claims, "nbf") if "nbf" in claims else None
    if not_before is not None and not_before > expires_at:
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "nbf is after exp")
    if issued_at is not None and expires_at <= issued_at:
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "exp is not after iat")
    return Times(issued_at, expires_at, not_before)


def read_time(claims: Mapping[str, Any], name: str) -> int:
    """A required moment in whole unix seconds, from year 1970 to 9999 (RFC 7519 2, NumericDate)."""
    value: Any = claims.get(name)
    # What is not finite is not between the two, and true is no number.
    if type(value) not in _NUMBERS or not 0 <= value <= _LATEST_TIME:
        raise TokenRejected(Reason.CLAIM_MALFORMED, name)
    return int(value)


def read_text(claims: Mapping[str, Any], name: str, *, longest: int = LONGEST_TEXT) -> str:
    """A required claim that identifies something: a printable string of 1 to ``longest`` characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not _is_plain(value, longest):
        raise TokenRejected(Reason.CLAIM_MALFORMED, name)
    return value


def _is_plain(text: str, longest: int) -> bool:
    """Whether a text of 1 to ``longest`` characters shows a person all there is in it."""
    is_printable = 0 < len(text) <= longest and text.isprintable()
    return is_printable and (text.isascii() or _INVISIBLE.search(text) is None)


def read_optional_text(
    claims: Mapping[str, Any], name: str, *, longest: int = LONGEST_TEXT
) -> str | None:
    """The same for a claim that may be absent; ``null`` is malformed, not absent."""
    return read_text(claims, name, longest=longest) if name in claims else None


def read_sole_audience(claims: Mapping[str, Any]) -> str:
    """
    The one audience of a token: a string, or an array of one string (RFC 7519 4.1.3).

    A token for several recipients is refused, since any of them could have leaked it.
    """
    value = claims.get("aud")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or not _is_plain(value, LONGEST_URI):
        raise TokenRejected(Reason.AUD_MISMATCH)
    return value


def read_scope(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes a token carries (RFC 9068 2.2.3); a token without the claim carries none."""
    if "scope" not in claims:
        return frozenset()
    value = claims["scope"]
    if not isinstance(value, str):
        raise TokenRejected(Reason.CLAIM_MALFORMED, "scope")
    if value.count(" ") >= _MOST_SCOPES or _SCOPE.fullmatch(value) is None:
        raise TokenRejected(Reason.CLAIM_MALFORMED, "scope")
    return frozenset(value.split())


def is_scope_token(value: str) -> bool:
    """Whether a string is a ``scope-token`` (RFC 6749 3.3) of at most 255 characters."""
    return _SCOPE_TOKEN.fullmatch(value) is not None


def read_authentication(claims: Mapping[str, Any], *, latest: int) -> Authentication:
    """
    How the user logged in, as far as the token tells (RFC 9068 2.2.1).

    A login after ``latest``, in unix seconds, would stay fresh for ever, and is refused.
    """
    if _OF_LOGIN.isdisjoint(claims):
        return _UNTOLD
    auth_time = read_time(claims, "auth_time") if "auth_time" in claims else None
    if auth_time is not None and auth_time > latest:
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "auth_time is in the future")
    amr = claims.get("amr", [])
    if not isinstance(amr, list) or len(amr) > _MOST_AMR:
        raise TokenRejected(Reason.CLAIM_MALFORMED, "amr")
    return Authentication(
        auth_time=auth_time,
        acr=read_optional_text(claims, "acr"),
        amr=tuple(read_text({"amr": value}, "amr") for value in amr),
    )


def read_act(claims: Mapping[str, Any]) -> JsonObject | None:
    """
    The actor chain of a token, unchanged (RFC 8693 4.1).

    Every actor must be an object that names itself by ``sub`` and carries claims about identity only.
    """
    if "act" not in claims:
        return None
    act: Any = claims["act"]
    remaining = _MOST_ACTORS_READ
    inner = act
    while inner is not None:
        if not isinstance(inner, dict) or not _MEMBERS_OF_ACTOR.issuperset(inner):
            raise TokenRejected(Reason.CHAIN_MALFORMED)
        remaining -= 1
        if remaining < 0:
            raise TokenRejected(Reason.CHAIN_TOO_DEEP)
        _check_actor(inner)
        inner = inner.get("act")
    if not actors_of(act):
        raise TokenRejected(Reason.CHAIN_MALFORMED)
    return act if isinstance(act, dict) else None


def _check_actor(actor: Mapping[str, Any]) -> None:
    try:
        read_text(actor, "sub", longest=LONGEST_URI)
        read_optional_text(actor, "iss", longest=LONGEST_URI)
    except TokenRejected as rejected:
        raise TokenRejected(Reason.CHAIN_MALFORMED, rejected.detail) from rejected
    if "act" in actor and actor["act"] is None:
        raise TokenRejected(Reason.CHAIN_MALFORMED)


def read_confirmation(claims: Mapping[str, Any]) -> str | None:
    """
    The thumbprint of the key that a token is bound to, or ``None`` for a bearer token (RFC 7800 3).

    Whoever binds by several means, or by one that is not known here, wants all of them proved; such a
    token is refused (``cnf_unsupported``). One that is bound to a client certificate is known, but the
    proof of it is not taken here (``pop_required``).
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    members = set(confirmation) if isinstance(confirmation, dict) else set()
    if members == {"x5t#S256"}:
        raise TokenRejected(Reason.POP_REQUIRED, "bound to a client certificate")
    thumbprint = confirmation["jkt"] if members == {"jkt"} else None
    if not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise TokenRejected(Reason.CNF_UNSUPPORTED)
    return thumbprint
