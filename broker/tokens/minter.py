"""What was proved and permitted becomes a signed token (RFC 9068)."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

import msgspec

from broker.errors import InvalidRequest, Reason
from broker.interfaces import KeyStore, Now, SigningKey
from broker.model import Client, Delegation, IssuedToken, Resource
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TYP_ACCESS_TOKEN

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Lifetime:
    """
    How long a token will live from ``issued_at``, in unix seconds, and what limits it.

    ``limit`` is ``configuration``, ``resource``, ``policy`` or ``input``.
    """

    issued_at: int
    seconds: int
    limit: str


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A token that lacks only its signature, and the key that will make it."""

    claims: Mapping[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Minter:
    """
    Builds and signs access tokens from verified facts alone, never by editing a received token.

    ``mcp_claim`` names the object that tells MCP client, MCP server and resource at the top level,
    since nobody may authorize on inner actors (RFC 8693 4.1).
    """

    issuer: str
    key_store: KeyStore
    now: Now
    lifetime: timedelta
    algorithm: str
    mcp_claim: str
    max_token_bytes: int

    def lifetime_for(
        self, delegation: Delegation, resource: Resource, *, policy_limit: timedelta | None
    ) -> Lifetime:
        """
        The least of all limits; an input's true expiry counts, without leeway.

        Raises ``InvalidRequest`` (``born_expired``) when nothing is left.
        """
        now = self.now()
        limits = [(int(self.lifetime.total_seconds()), "configuration")]
        if resource.max_lifetime is not None:
            limits.append((int(resource.max_lifetime.total_seconds()), "resource"))
        if policy_limit is not None:
            limits.append((int(policy_limit.total_seconds()), "policy"))
        if delegation.not_after is not None:
            limits.append((delegation.not_after - now, "input"))
        seconds, limit = min(limits)
        if seconds <= 0:
            raise InvalidRequest(Reason.BORN_EXPIRED)
        return Lifetime(now, seconds, limit)

    def claims(
        self,
        client: Client,
        delegation: Delegation,
        *,
        resource: Resource,
        scopes: tuple[str, ...],
        lifetime: Lifetime,
    ) -> dict[str, Any]:
        """The claims to sign (RFC 9068 2.2, RFC 8693 4.1)."""
        authentication = delegation.authentication
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": delegation.subject.sub,
            "aud": resource.resource,
            "client_id": client.client_id,
            "iat": lifetime.issued_at,
            "exp": lifetime.issued_at + lifetime.seconds,
            "jti": secrets.token_urlsafe(18),
            "scope": " ".join(scopes),
            "act": delegation.act,
            "auth_time": authentication.auth_time,
            "acr": authentication.acr,
            "amr": list(authentication.amr) or None,
            self.mcp_claim: _without_nothing(
                {
                    "client": delegation.mcp_client,
                    "client_issuer": delegation.mcp_client_issuer,
                    "server": delegation.mcp_server,
                    "resource": resource.resource,
                    "subject_issuer": delegation.subject.issuer,
                    "tenant": delegation.subject.tenant,
                    "foreign_actors_from": delegation.foreign_actors_from,
                }
            ),
        }
        return _without_nothing(claims)

    def prepare(self, claims: Mapping[str, Any], *, algorithm: str | None = None) -> Unsigned:
        """
        The token of these claims, complete but for its signature.

        Raises ``InvalidRequest`` (``issued_too_large``) rather than cutting anything off, and
        ``TemporarilyUnavailable`` when no key can sign; nothing has been spent by then.
        """
        key = self.key_store.signing_key(algorithm or self.algorithm)
        payload = base64.urlsafe_b64encode(_ENCODER.encode(claims)).rstrip(b"=")
        signing_input = _header(key.algorithm, key.kid) + b"." + payload
        if len(signing_input) > self.max_token_bytes:
            raise InvalidRequest(Reason.ISSUED_TOO_LARGE)
        return Unsigned(claims, signing_input, key)

    def mint(self, unsigned: Unsigned) -> IssuedToken:
        """The signed token; raises ``TemporarilyUnavailable`` when the key does not sign."""
        claims, key = unsigned.claims, unsigned.key
        signature = base64.urlsafe_b64encode(key.sign(unsigned.signing_input)).rstrip(b"=")
        return IssuedToken(
            token=(unsigned.signing_input + b"." + signature).decode("ascii"),
            issued_token_type=TOKEN_TYPE_ACCESS_TOKEN,
            token_type="Bearer",  # noqa: S106 -- it is a scheme, not a secret.
            expires_in=claims["exp"] - claims["iat"],
            scopes=tuple(claims["scope"].split()),
            resource=claims["aud"],
            claims=claims,
            kid=key.kid,
        )


def _without_nothing(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@lru_cache(maxsize=16)
def _header(algorithm: str, kid: str) -> bytes:
    members = {"typ": TYP_ACCESS_TOKEN, "alg": algorithm, "kid": kid}
    return base64.urlsafe_b64encode(_ENCODER.encode(members)).rstrip(b"=")
