"""A client assertion (RFC 7523 2.2) proves a client, or is rejected."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct

from broker.client_auth.audience import is_for_one_of, names_of
from broker.client_auth.known_clients import KnownClients
from broker.errors import Reason, TokenRejected
from broker.interfaces import Now, VerificationKey
from broker.jws import UnverifiedToken, read_token
from broker.model import Client, JsonObject, OneTimeId
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    TYP_CLIENT_AUTHENTICATION,
    VERIFICATION_ALGORITHMS,
)
from broker.tokens.claims import LONGEST_URI, Times, read_text, read_times
from broker.tokens.client_url import is_url_like
from broker.tokens.jwk import decoy_key

LONGEST_ASSERTION_LIFETIME: Final = timedelta(hours=1)
"""What a client's registration can allow; most are allowed much less."""
_LONGEST: Final = int(LONGEST_ASSERTION_LIFETIME.total_seconds())
ONE_TIME_KIND: Final = "client_assertion"
_TYPS: Final = frozenset({"", "jwt", TYP_CLIENT_AUTHENTICATION})


class VerifiedAssertion(Struct, frozen=True):
    """A client assertion whose every claim is right, and the one-time id to spend for it."""

    client: Client
    one_time_id: OneTimeId
    expires_at: int


class _Said(Struct, frozen=True):
    """
    What an assertion says of itself; moments are in unix seconds, the lifetime is in seconds.

    ``is_for_endpoint`` says that it is addressed to the token endpoint, which not every client may do.
    """

    unverified_id: str
    jti: str
    times: Times
    lifetime: int
    is_for_endpoint: bool


@dataclass(frozen=True, slots=True)
class AssertionVerifier:
    """Verifies client assertions that are addressed to ``issuer`` and to nobody else."""

    issuer: str
    token_endpoint: str
    clients: KnownClients
    now: Now
    leeway: timedelta
    decoy: VerificationKey = field(default_factory=decoy_key)
    _leeway: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_leeway", int(self.leeway.total_seconds()))

    def verify(self, assertion: str, *, client_id: str | None = None) -> VerifiedAssertion:
        """
        The client that signed ``assertion``.

        ``iss`` and ``sub`` are its id, ``aud`` is the issuer alone, it lives no longer than the client's
        registration allows, ``jti`` is there to be spent. ``client_id`` is what the request calls it
        besides, if it does. Raises ``TokenRejected``, and ``RateLimited`` where the client's document is
        not to be had.
        """
        unverified = read_token(assertion)
        said = self._said(unverified)
        if client_id is not None and client_id != said.unverified_id:
            raise TokenRejected(Reason.CLIENT_ID_MISMATCH)
        try:
            client, key = self._signer(unverified, self.clients.named(said.unverified_id))
        except TokenRejected:
            self._spend_time(unverified)
            raise
        if not key.verify(unverified.signing_input, unverified.signature):
            raise TokenRejected(Reason.SIG_INVALID)
        if client.is_disabled:
            raise TokenRejected(Reason.CLIENT_DISABLED)
        if said.lifetime > client.max_assertion_lifetime.total_seconds():
            raise TokenRejected(Reason.LIFETIME_TOO_LONG)
        if said.is_for_endpoint and not client.has_token_endpoint_audience:
            raise TokenRejected(Reason.AUD_NOT_SOLE_ISSUER)
        # The id must be remembered through the last moment at which the assertion is acceptable.
        until = said.times.expires_at + self._leeway
        since = self._earliest_use(said.times, client)
        one_time_id = OneTimeId(ONE_TIME_KIND, client.client_id, said.jti, until, since)
        return VerifiedAssertion(client, one_time_id, said.times.expires_at)

    def _earliest_use(self, times: Times, client: Client) -> int:
        """
        The second before which nobody can have used it.

        One that does not say when it was issued was refused for as long as it had more than the longest
        lifetime before it.
        """
        if times.issued_at is None:
            return times.expires_at - int(client.max_assertion_lifetime.total_seconds())
        return times.issued_at - self._leeway

    def _said(self, unverified: UnverifiedToken) -> _Said:
        """
        What the assertion says, of which nothing depends on who is registered.

        So a refusal tells nothing about that, and nothing is fetched for an assertion that could not count.
        """
        header, claims = unverified.header, unverified.unverified_claims
        if header.unverified_typ not in _TYPS:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        if header.unverified_algorithm not in VERIFICATION_ALGORITHMS:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        unverified_id = _unverified_client_id(claims)
        now = self.now()
        times = read_times(claims, is_iat_required=False)
        times.check(now=now, leeway=self._leeway, longest=_LONGEST)
        jti = read_text(claims, "jti")
        if "cnf" in claims:
            # Proofs are looked at once the client is known, too late for its own assertion.
            raise TokenRejected(Reason.CNF_UNSUPPORTED)
        is_for_endpoint = self._is_for_endpoint(claims)
        starts_at = now - self._leeway if times.issued_at is None else times.issued_at
        lifetime = times.expires_at - starts_at
        return _Said(unverified_id, jti, times, lifetime, is_for_endpoint)

    def _spend_time(self, unverified: UnverifiedToken) -> None:
        """Verify with a key of no meaning, so that a refusal takes as long as a wrong signature."""
        self.decoy.verify(unverified.signing_input, unverified.signature)

    def _signer(
        self, unverified: UnverifiedToken, registered: Client
    ) -> tuple[Client, VerificationKey]:
        """The client with what its document leaves it, if it has one, and the key that is named."""
        header = unverified.header
        _check_method(registered, header.unverified_algorithm)
        client = self.clients.as_documented(registered)
        _check_method(client, header.unverified_algorithm)
        return client, self.clients.key(client, header.unverified_kid, header.unverified_algorithm)

    def _is_for_endpoint(self, claims: JsonObject) -> bool:
        audience = claims.get("aud")
        if is_for_one_of(audience, names_of(self.issuer)):
            return False
        if not is_for_one_of(audience, (self.token_endpoint,)):
            raise TokenRejected(Reason.AUD_NOT_SOLE_ISSUER)
        return True


def _unverified_client_id(claims: JsonObject) -> str:
    """The client that the assertion says it is by (RFC 7523 3); one that is no URL is plain text."""
    unverified_sub: Any = claims.get("sub")
    if not is_url_like(unverified_sub):
        unverified_sub = read_text(claims, "sub", longest=LONGEST_URI)
    if claims.get("iss") != unverified_sub:
        raise TokenRejected(Reason.CLAIM_INCONSISTENT, "iss is not sub")
    return str(unverified_sub)


def _check_method(client: Client, algorithm: str) -> None:
    if AUTH_PRIVATE_KEY_JWT not in client.auth_methods:
        raise TokenRejected(Reason.AUTH_METHOD_REFUSED)
    if algorithm not in client.algorithms:
        raise TokenRejected(Reason.ALG_NOT_ALLOWED)
