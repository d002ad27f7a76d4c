"""A client assertion (RFC 7523 2.2) proves a client, or is rejected."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from broker.errors import Reason, TokenRejected
from broker.interfaces import KeyRing, Now, Registry, VerificationKey
from broker.model import Client, OneTimeId
from broker.oauth import AUTH_PRIVATE_KEY_JWT, TYP_CLIENT_AUTHENTICATION
from broker.tokens.claims import LONGEST_URI, read_text, read_times
from broker.tokens.jwk import decoy_key
from broker.tokens.jws import UnverifiedToken, read_token

LONGEST_ASSERTION_LIFETIME: Final = timedelta(minutes=5)
ONE_TIME_KIND: Final = "client_assertion"
_TYPS: Final = frozenset({"", "jwt", TYP_CLIENT_AUTHENTICATION})


@dataclass(frozen=True, slots=True)
class VerifiedAssertion:
    """A client assertion whose every claim is right, and the one-time id to spend for it."""

    client: Client
    one_time_id: OneTimeId
    expires_at: int


@dataclass(frozen=True, slots=True)
class AssertionVerifier:
    """Verifies client assertions that are addressed to ``issuer`` and to nobody else."""

    issuer: str
    token_endpoint: str
    registry: Registry
    key_ring: KeyRing
    now: Now
    leeway: timedelta
    decoy: VerificationKey = field(default_factory=decoy_key)

    def verify(self, assertion: str) -> VerifiedAssertion:
        """
        The client that signed ``assertion``.

        ``iss`` and ``sub`` are its id, ``aud`` is the issuer alone, ``exp`` is at most five minutes
        away, ``jti`` is there to be spent. Raises ``TokenRejected``.
        """
        unverified = read_token(assertion)
        if unverified.header.unverified_typ not in _TYPS:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        try:
            client = self._named_client(unverified)
            key = self._key(unverified, client)
        except TokenRejected:
            self._spend_time(unverified)
            raise
        if not key.verify(unverified.signing_input, unverified.signature):
            raise TokenRejected(Reason.SIG_INVALID)
        claims = unverified.unverified_claims
        if client.is_disabled:
            raise TokenRejected(Reason.CLIENT_DISABLED)
        self._check_audience(claims.get("aud"), client)
        leeway = int(self.leeway.total_seconds())
        times = read_times(
            claims,
            now=self.now(),
            leeway=leeway,
            longest=int(LONGEST_ASSERTION_LIFETIME.total_seconds()),
            is_iat_required=False,
        )
        # The id must be remembered through the last moment at which the assertion is acceptable.
        one_time_id = OneTimeId(
            ONE_TIME_KIND, client.client_id, read_text(claims, "jti"), times.expires_at + leeway
        )
        return VerifiedAssertion(client, one_time_id, times.expires_at)

    def _named_client(self, unverified: UnverifiedToken) -> Client:
        claims = unverified.unverified_claims
        unverified_sub = read_text(claims, "sub", longest=LONGEST_URI)
        if claims.get("iss") != unverified_sub:
            raise TokenRejected(Reason.CLAIM_INCONSISTENT, "iss is not sub")
        client = self.registry.client(unverified_sub)
        if client is None:
            raise TokenRejected(Reason.CLIENT_UNKNOWN)
        return client

    def _spend_time(self, unverified: UnverifiedToken) -> None:
        """Verify with a key of no meaning, so that a refusal takes as long as a wrong signature."""
        self.decoy.verify(unverified.signing_input, unverified.signature)

    def _key(self, unverified: UnverifiedToken, client: Client) -> VerificationKey:
        header = unverified.header
        if AUTH_PRIVATE_KEY_JWT not in client.auth_methods or client.keys is None:
            raise TokenRejected(Reason.AUTH_METHOD_REFUSED)
        if header.unverified_algorithm not in client.algorithms:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        return self.key_ring.key(client.keys, header.unverified_kid, header.unverified_algorithm)

    def _check_audience(self, audience: object, client: Client) -> None:
        if isinstance(audience, list) and len(audience) == 1:
            audience = audience[0]
        accepted = {self.issuer}
        if self.issuer.count("/") == 2:
            # Official SDKs run an issuer without a path through a URL type that adds this slash.
            accepted.add(self.issuer + "/")
        if client.has_token_endpoint_audience:
            accepted.add(self.token_endpoint)
        if not isinstance(audience, str) or audience not in accepted:
            raise TokenRejected(Reason.AUD_NOT_SOLE_ISSUER)
