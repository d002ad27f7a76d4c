"""What was proved and permitted becomes a signed token (RFC 9068)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, ClassVar

import msgspec

from broker.errors import InvalidRequest, Reason, TokenRejected
from broker.interfaces import KeyStore, Now, SigningKey
from broker.jws import encode_segment
from broker.model import Action, Client, Delegation, IdJag, IssuedToken, Resource
from broker.oauth import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_BEARER,
    TOKEN_TYPE_DPOP,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_NOT_APPLICABLE,
    TYP_ACCESS_TOKEN,
    TYP_ID_JAG,
)
from broker.tokens.lineage import heritage_claim, parties_of
from broker.unshown import Unshown

_ENCODER = msgspec.json.Encoder()


class Lifetime(msgspec.Struct, frozen=True):
    """
    How long a token will live from ``issued_at``, in unix seconds, and what limits it.

    ``limit`` is ``configuration``, ``resource``, ``policy`` or ``input``.
    """

    issued_at: int
    seconds: int
    limit: str


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """
    The longest life of each kind of token: for a subject, for a client itself, and of an assertion.

    The names are those of the settings.
    """

    lifetime: timedelta = timedelta(minutes=5)
    machine_lifetime: timedelta = timedelta(minutes=5)
    id_jag_lifetime: timedelta = timedelta(minutes=5)

    def of(self, action: Action) -> timedelta:
        """The one that counts for what is asked."""
        if action is Action.ISSUE:
            return self.machine_lifetime
        return self.id_jag_lifetime if action is Action.ISSUE_ID_JAG else self.lifetime


class Draft(Unshown, frozen=True):
    """The claims of a token to be, and the ``typ`` that tells what it is."""

    unshown: ClassVar = frozenset({"claims"})

    claims: Mapping[str, Any]
    typ: str = TYP_ACCESS_TOKEN


class Unsigned(Unshown, frozen=True):
    """A token that lacks only its signature, and the key that will make it."""

    unshown: ClassVar = frozenset({"signing_input"})

    draft: Draft
    signing_input: bytes
    key: SigningKey
    kid: str


@dataclass(frozen=True, slots=True)
class Minter:
    """
    Builds and signs tokens from verified facts alone, never by editing a received token.

    ``mcp_claim`` names the object that tells MCP client, MCP server and resource at the top level,
    since nobody may authorize on inner actors (RFC 8693 4.1).
    """

    issuer: str
    key_store: KeyStore
    now: Now
    lifetimes: Lifetimes
    algorithm: str
    mcp_claim: str
    max_token_bytes: int

    def lifetime_for(
        self, delegation: Delegation, resource: Resource, *, policy_limit: timedelta | None
    ) -> Lifetime:
        """
        The least of all limits; an input's true expiry counts, without leeway.

        Raises ``TokenRejected`` (``born_expired``) when nothing is left.
        """
        now = self.now()
        longest = self.lifetimes.of(delegation.action)
        limits = [(int(longest.total_seconds()), "configuration")]
        if resource.max_lifetime is not None:
            limits.append((int(resource.max_lifetime.total_seconds()), "resource"))
        if policy_limit is not None:
            limits.append((int(policy_limit.total_seconds()), "policy"))
        if delegation.not_after is not None:
            limits.append((delegation.not_after - now, "input"))
        seconds, limit = min(limits)
        if seconds <= 0:
            raise TokenRejected(Reason.BORN_EXPIRED)
        return Lifetime(now, seconds, limit)

    def draft(
        self,
        client: Client,
        delegation: Delegation,
        *,
        resource: Resource,
        scopes: tuple[str, ...],
        lifetime: Lifetime,
        receipt: str = "",
    ) -> Draft:
        """
        What to sign: an access token, or the identity assertion that was asked for.

        ``receipt`` tells of the audit record of its issue, as ``txn`` (RFC 8417 2.2).
        """
        common = self._common(delegation, scopes, lifetime)
        common["txn"] = receipt or None
        if delegation.id_jag is not None:
            about = _assertion(delegation, delegation.id_jag, resource)
            return Draft(_without_nothing(common | about), TYP_ID_JAG)
        access = self._access(client, delegation, resource)
        return Draft(_without_nothing(common | access))

    def _common(
        self, delegation: Delegation, scopes: tuple[str, ...], lifetime: Lifetime
    ) -> dict[str, Any]:
        authentication, confirmation = delegation.authentication, delegation.confirmation
        return {
            "iss": self.issuer,
            "iat": lifetime.issued_at,
            "exp": lifetime.issued_at + lifetime.seconds,
            "jti": _new_jti(),
            "scope": " ".join(scopes),
            "auth_time": authentication.auth_time,
            "acr": authentication.acr,
            "amr": list(authentication.amr) or None,
            "cnf": None if confirmation is None else {"jkt": confirmation},
        }

    def _access(self, client: Client, delegation: Delegation, resource: Resource) -> dict[str, Any]:
        """The claims that only an access token has (RFC 9068 2.2, RFC 8693 4.1)."""
        claims = {
            "sub": delegation.subject.sub,
            "aud": resource.resource,
            "client_id": client.client_id,
            "act": delegation.act,
        }
        statements = {
            "client": delegation.mcp_client,
            "client_issuer": delegation.mcp_client_issuer,
            "server": delegation.mcp_server,
            "resource": resource.resource,
            "subject_issuer": delegation.subject.issuer,
            "tenant": delegation.subject.tenant,
            "foreign_actors_from": delegation.foreign_actors_from,
            "lineage": list(delegation.lineage) or None,
        }
        statements = _without_nothing(statements)
        if delegation.heritage:
            named = parties_of(claims, statements, issuer=self.issuer)
            statements |= heritage_claim(delegation.heritage - named)
        return {**claims, self.mcp_claim: statements}

    def prepare(self, draft: Draft, *, algorithm: str | None = None) -> Unsigned:
        """
        The drafted token, complete but for its signature.

        Raises ``InvalidRequest`` (``issued_too_large``) rather than cutting anything off, and
        ``TemporarilyUnavailable`` when no key can sign; nothing has been spent by then.
        """
        key = self.key_store.signing_key(algorithm or self.algorithm)
        payload = encode_segment(_ENCODER.encode(draft.claims))
        kid = key.kid
        signing_input = _header(draft.typ, key.algorithm, kid) + b"." + payload
        if len(signing_input) > self.max_token_bytes:
            raise InvalidRequest(Reason.ISSUED_TOO_LARGE)
        return Unsigned(draft, signing_input, key, kid)

    def mint(self, unsigned: Unsigned) -> IssuedToken:
        """The signed token; raises ``TemporarilyUnavailable`` when the key does not sign."""
        return _issued(unsigned, unsigned.key.sign(unsigned.signing_input))

    def mint_all(self, several: Sequence[Unsigned]) -> Sequence[IssuedToken]:
        """The signed tokens, in their order; each key is asked once. Raises as ``mint`` does."""
        by_key: dict[str, list[Unsigned]] = {}
        for unsigned in several:
            by_key.setdefault(unsigned.kid, []).append(unsigned)
        signatures: dict[bytes, bytes] = {}
        for of_one_key in by_key.values():
            inputs = [unsigned.signing_input for unsigned in of_one_key]
            signatures.update(zip(inputs, of_one_key[0].key.sign_all(inputs), strict=True))
        return [_issued(unsigned, signatures[unsigned.signing_input]) for unsigned in several]


def _issued(unsigned: Unsigned, signature: bytes) -> IssuedToken:
    claims = unsigned.draft.claims
    is_access_token = unsigned.draft.typ == TYP_ACCESS_TOKEN
    return IssuedToken(
        token=(unsigned.signing_input + b"." + encode_segment(signature)).decode("ascii"),
        issued_token_type=TOKEN_TYPE_ACCESS_TOKEN if is_access_token else TOKEN_TYPE_ID_JAG,
        token_type=scheme_of(claims) if is_access_token else TOKEN_TYPE_NOT_APPLICABLE,
        expires_in=claims["exp"] - claims["iat"],
        scopes=tuple(claims["scope"].split()),
        resource=claims["aud"] if is_access_token else claims["resource"],
        claims=claims,
        kid=unsigned.kid,
    )


def _assertion(delegation: Delegation, id_jag: IdJag, resource: Resource) -> dict[str, Any]:
    """The claims that only an identity assertion has (ID-JAG 3.1)."""
    return {
        "sub": id_jag.sub,
        "aud": id_jag.server.issuer,
        "client_id": id_jag.client_id,
        "resource": resource.resource,
        "tenant": delegation.subject.tenant,
        "aud_tenant": id_jag.server.tenant,
        "email": id_jag.email,
    }


def scheme_of(claims: Mapping[str, Any]) -> str:
    """How the token is presented: one that is bound to a key is no bearer token (RFC 9449 5)."""
    return TOKEN_TYPE_DPOP if "cnf" in claims else TOKEN_TYPE_BEARER


def _new_jti() -> str:
    """
    An id of 18 random bytes that no record changes.

    Without an underscore it can never look like the beginning of a client secret, which would be removed
    from the record of the very token that it is about.
    """
    return encode_segment(os.urandom(18)).replace(b"_", b"-").decode("ascii")


def _without_nothing(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


@lru_cache(maxsize=16)
def _header(typ: str, algorithm: str, kid: str) -> bytes:
    members = {"typ": typ, "alg": algorithm, "kid": kid}
    return encode_segment(_ENCODER.encode(members))
