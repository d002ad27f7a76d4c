"""A statement that a key in memory is ours, signed with a key that never leaves Vault."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import TokenRejected
from broker.jws import UnverifiedToken, read_token
from broker.keys.life import LONGEST_STATED_LIFE
from broker.keys.published import KeyUnfit, PublishedKey, key_of_jwk
from broker.keys.transit_key import TRANSIT_ALGORITHMS, KeyVersion, sign_digests
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_session import VaultSession

STATEMENT_TYPE: Final = "broker-key-statement+jwt"

_ALGORITHM: Final = "ES256"


class StatementRefused(ValueError):
    """What passes itself off as a statement is none; the sentence says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class KeyStatement:
    """
    A key of one replica: it may sign from ``begins_at`` until ``ends_at``, in unix seconds.

    ``certifier`` is the id of the key that the statement is signed with.
    """

    replica: str
    algorithm: str
    published: PublishedKey
    made_at: int
    begins_at: int
    ends_at: int
    certifier: str

    @property
    def kid(self) -> str:
        return self.published.kid


def sign_statement(
    session: VaultSession, path: str, *, issuer: str, statement: KeyStatement, by: KeyVersion
) -> str:
    """
    The statement as a compact JWS, signed in Vault.

    Raises ``TemporarilyUnavailable`` when Vault does not sign it, or not so that it verifies.
    """
    header = {"typ": STATEMENT_TYPE, "alg": _ALGORITHM, "kid": by.kid}
    claims = {
        "iss": issuer,
        "sub": statement.replica,
        "iat": statement.made_at,
        "nbf": statement.begins_at,
        "exp": statement.ends_at,
        "jwk": statement.published.members(),
    }
    signing_input = f"{_segment(header)}.{_segment(claims)}".encode("ascii")
    digest = hashlib.sha256(signing_input).digest()
    (signature,) = sign_digests(session, path, version=by, digests=[digest])
    if signature is None or not by.published.verification.verify(signing_input, signature):
        raise signer_unavailable("vault: a statement does not verify with its certifier's key")
    return f"{signing_input.decode()}.{_base64url(signature)}"


def read_statement(
    text: str,
    *,
    issuer: str,
    certifiers: Mapping[str, PublishedKey],
    latest_made_at: int,
) -> KeyStatement:
    """
    The statement in a compact JWS, verified; ``certifiers`` are the keys that may sign one, by id.

    Raises ``StatementRefused`` for whatever is not a statement of this issuer about a key that is fit,
    made no later than ``latest_made_at``.
    """
    try:
        token = read_token(text)
    except TokenRejected:
        raise StatementRefused("it is no token") from None
    certifier = _certifier(token, certifiers)
    claims = token.unverified_claims
    if claims.get("iss") != issuer:
        raise StatementRefused("it is of another issuer")
    made_at, begins_at, ends_at = (_moment(claims, name) for name in ("iat", "nbf", "exp"))
    if not made_at <= begins_at <= ends_at <= made_at + LONGEST_STATED_LIFE.total_seconds():
        raise StatementRefused("its moments make no sense")
    if made_at > latest_made_at:
        raise StatementRefused("it is from the future")
    replica = claims.get("sub")
    if not isinstance(replica, str) or not 0 < len(replica) <= 64 or not replica.isprintable():
        raise StatementRefused("it names no replica")
    published = _key(claims.get("jwk"))
    return KeyStatement(
        replica, published.jwk["alg"], published, made_at, begins_at, ends_at, certifier
    )


def _certifier(token: UnverifiedToken, certifiers: Mapping[str, PublishedKey]) -> str:
    """The id of the key that has signed the token, which says that it is a statement."""
    header = token.header
    if header.unverified_typ != STATEMENT_TYPE or header.unverified_algorithm != _ALGORITHM:
        raise StatementRefused("it is a token of another kind")
    kid = header.unverified_kid or ""
    certifier = certifiers.get(kid)
    if certifier is None:
        raise StatementRefused("its certifier is not known")
    if not certifier.verification.verify(token.signing_input, token.signature):
        raise StatementRefused("its signature is wrong")
    return kid


def _key(jwk: object) -> PublishedKey:
    algorithm = jwk.get("alg") if isinstance(jwk, dict) else None
    if not isinstance(jwk, dict) or algorithm not in TRANSIT_ALGORITHMS:
        raise StatementRefused("it holds no key")
    try:
        published = key_of_jwk(jwk, str(algorithm))
    except KeyUnfit:
        raise StatementRefused("its key is not fit") from None
    if published.jwk != jwk:
        raise StatementRefused("its key is not written as it is published")
    return published


def _moment(claims: Mapping[str, Any], name: str) -> int:
    moment = claims.get(name)
    if type(moment) is not int or moment < 0:
        raise StatementRefused("a moment is missing")
    return moment


def _segment(members: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(members, separators=(",", ":")).encode("ascii"))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def certifiers_of(versions: Sequence[KeyVersion]) -> Mapping[str, PublishedKey]:
    """The keys that may sign a statement, by id."""
    return {version.kid: version.published for version in versions}
