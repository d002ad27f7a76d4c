"""The claims of a token, read one by one with their types, become a delegation (RFC 9068 4, RFC 8693 4)."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from broker.client.delegation import Actor, Delegation, Login, Person
from broker.errors import Reason, TokenRejected
from broker.oauth import CLIENT_SUBJECT_PREFIX

_LONGEST: Final = 2048
_LATEST: Final = 253_402_300_799
_MOST_SCOPES: Final = 100
_MOST_AMR: Final = 16
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")

Claims = Mapping[str, Any]


def check_times(claims: Claims, *, now: float, leeway: float) -> None:
    """
    Raise ``TokenRejected`` unless the token is valid now, give or take ``leeway`` seconds.

    It must say when it was issued and when it expires, in that order.
    """
    expires_at, issued_at = read_time(claims, "exp"), read_time(claims, "iat")
    not_before = read_time(claims, "nbf") if "nbf" in claims else issued_at
    if expires_at <= max(issued_at, not_before):
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "it expires before it is valid")
    if now >= expires_at + leeway:
        raise TokenRejected(Reason.TOKEN_EXPIRED)
    if max(issued_at, not_before) > now + leeway:
        raise TokenRejected(Reason.NOT_YET_VALID)
    if "auth_time" in claims and read_time(claims, "auth_time") > now + leeway:
        # A login in the future would stay fresh for ever.
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "auth_time is in the future")


def check_audience(claims: Claims, resource: str) -> None:
    """Raise ``TokenRejected`` unless the token is for this resource, byte for byte, and for no other."""
    audience = claims.get("aud")
    if audience not in (resource, [resource]):
        raise TokenRejected(Reason.AUD_MISMATCH, f"the resource here is {resource}")


def read_delegation(claims: Claims, *, mcp_claim: str, token: str, key: str | None) -> Delegation:
    """What the claims of a verified token say; raises ``TokenRejected`` for what nobody can mean."""
    told = claims.get(mcp_claim, {})
    if not isinstance(told, dict):
        raise TokenRejected(Reason.CLAIM_MALFORMED, mcp_claim)
    audience = claims["aud"]
    resource: str = audience if isinstance(audience, str) else audience[0]
    if told.get("resource", resource) != resource:
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "it tells of another resource")
    subject = read_text(claims, "sub")
    is_machine = subject.startswith(CLIENT_SUBJECT_PREFIX)
    voucher = _optional(told, "subject_issuer") or read_text(claims, "iss")
    return Delegation(
        subject=subject,
        person=None if is_machine else Person(subject, voucher),
        mcp_client=_optional(told, "client"),
        mcp_server=_optional(told, "server"),
        resource=resource,
        client_id=read_text(claims, "client_id"),
        actors=_actors(claims),
        scopes=_scopes(claims),
        expires_at=read_time(claims, "exp"),
        login=_login(claims),
        token_id=read_text(claims, "jti"),
        tenant=_optional(told, "tenant"),
        key=key,
        token=token,
        claims=claims,
    )


def read_confirmation(claims: Claims) -> str | None:
    """
    The thumbprint of the key that a token is bound to, or ``None`` for a bearer token (RFC 7800 3).

    Raises ``TokenRejected`` (``cnf_unsupported``) for a token bound by other means, or by several.
    """
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    members = confirmation if isinstance(confirmation, dict) else {}
    if members.keys() != {"jkt"} or not isinstance(members["jkt"], str):
        raise TokenRejected(Reason.CNF_UNSUPPORTED)
    return str(members["jkt"])


def read_time(claims: Claims, name: str) -> int:
    """A required moment in unix seconds, from year 1970 to 9999 (RFC 7519 2, NumericDate)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(Reason.CLAIM_MALFORMED, name)
    if not (math.isfinite(value) and 0 <= value <= _LATEST):
        raise TokenRejected(Reason.CLAIM_MALFORMED, name)
    return int(value)


def read_text(claims: Claims, name: str) -> str:
    """A required claim that names something: printable text of 1 to 2,048 characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise TokenRejected(Reason.CLAIM_MALFORMED, name)
    return value


def _optional(claims: Claims, name: str) -> str | None:
    return read_text(claims, name) if name in claims else None


def _scopes(claims: Claims) -> frozenset[str]:
    value = claims.get("scope", "")
    if not isinstance(value, str):
        raise TokenRejected(Reason.CLAIM_MALFORMED, "scope")
    scopes = value.split(" ") if value else []
    if len(scopes) > _MOST_SCOPES or not all(_SCOPE.fullmatch(scope) for scope in scopes):
        raise TokenRejected(Reason.CLAIM_MALFORMED, "scope")
    return frozenset(scopes)


def _login(claims: Claims) -> Login:
    amr = claims.get("amr", [])
    if not isinstance(amr, list) or len(amr) > _MOST_AMR:
        raise TokenRejected(Reason.CLAIM_MALFORMED, "amr")
    auth_time = read_time(claims, "auth_time") if "auth_time" in claims else None
    methods = tuple(read_text({"amr": one}, "amr") for one in amr)
    return Login(_optional(claims, "acr"), methods, auth_time)


def _actors(claims: Claims) -> tuple[Actor, ...]:
    """The chain of actors, the newest first (RFC 8693 4.1); how deep JSON may be bounds its length."""
    actors: list[Actor] = []
    holder = claims
    while "act" in holder:
        act = holder["act"]
        if not isinstance(act, dict):
            raise TokenRejected(Reason.CHAIN_MALFORMED)
        try:
            actor = Actor(
                read_text(act, "sub"), _optional(act, "iss"), _optional(act, "sub_profile")
            )
        except TokenRejected as rejected:
            raise TokenRejected(Reason.CHAIN_MALFORMED, rejected.detail) from None
        actors.append(actor)
        holder = act
    return tuple(actors)
