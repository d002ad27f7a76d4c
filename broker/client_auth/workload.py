"""A workload's own token (RFC 7523 2.1, JWT-SVID) proves the client that it is, or is rejected."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from broker.client_auth.audience import is_for_one_of, names_of
from broker.client_auth.workload_rules import client_named
from broker.errors import Reason, TokenRejected
from broker.interfaces import KeyRing, Now, Registry
from broker.jws import UnverifiedToken, read_token
from broker.model import (
    Client,
    InputToken,
    JsonObject,
    OneTimeId,
    Purpose,
    TokenRequest,
    TrustedIssuer,
)
from broker.oauth import GRANT_JWT_BEARER, TYP_ID_JAG
from broker.tokens.claims import LONGEST_URI, Times, read_optional_text, read_text, read_times
from broker.tokens.spiffe_id import is_trust_domain, trust_domain_of

ONE_TIME_KIND: Final = "workload"
_TYPS: Final = frozenset({"", "jwt"})
_SVID_TYPS: Final = _TYPS | {"jose"}
# An access token, a logout token or a delegated token is not what a workload says of itself.
_OF_OTHER_KINDS: Final = frozenset({"act", "client_id", "events", "scope", "scp"})


@dataclass(frozen=True, slots=True)
class VerifiedWorkload:
    """A workload's token whose every claim is right, whose client it is, and what to spend for it."""

    client: Client
    as_input: InputToken
    one_time_id: OneTimeId | None = None


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a workload's token is presented, and whom it must be addressed to there."""

    name: str
    audiences: frozenset[str]
    wrong_audience: Reason
    is_svid: bool = False


def is_workloads(request: TokenRequest) -> bool:
    """
    Whether a request's assertion is all that could say who the caller is.

    An ID-JAG says it of nobody: who redeems one authenticates as a client besides (ID-JAG 4.4).
    """
    credential, assertion = request.credential, (request.assertion or "").strip()
    others = (
        credential.client_secret,
        credential.client_assertion,
        credential.client_assertion_type,
    )
    is_alone = others == (None, None, None) and not credential.unverified_authorization
    if request.grant_type != GRANT_JWT_BEARER or not assertion or not is_alone:
        return False
    try:
        return read_token(assertion).header.unverified_typ != TYP_ID_JAG
    except TokenRejected:
        return True


@dataclass(frozen=True, slots=True)
class WorkloadVerifier:
    """
    Verifies tokens that platforms give to their workloads.

    An issuer's registration says that it is one for workloads, and its rules say which of them is which
    client. The keys are those of the issuer's registration, or of the trust domain's: never the token's.
    """

    issuer: str
    token_endpoint: str
    registry: Registry
    key_ring: KeyRing
    now: Now
    leeway: timedelta

    def verify(self, assertion: str) -> VerifiedWorkload:
        """
        The workload whose token is an authorization grant; raises ``TokenRejected``.

        The token is addressed to the issuer or to the token endpoint (RFC 7523 3).
        """
        audiences = names_of(self.issuer) | {self.token_endpoint}
        return self._verify(assertion, _Slot("assertion", audiences, Reason.AUD_MISMATCH))

    def verify_svid(self, client_assertion: str) -> VerifiedWorkload:
        """
        The workload whose JWT-SVID is a client assertion (SPIFFE Client Authentication 3.1).

        It is addressed to the issuer and to nobody else. Raises ``TokenRejected``.
        """
        slot = _Slot(
            "client_assertion", names_of(self.issuer), Reason.AUD_NOT_SOLE_ISSUER, is_svid=True
        )
        return self._verify(client_assertion, slot)

    def _verify(self, token: str, slot: _Slot) -> VerifiedWorkload:
        unverified = read_token(token)
        claims = unverified.unverified_claims
        _check_kind(unverified, slot)
        trusted = self._issuer_of(claims, slot)
        self._check_signature(unverified, trusted)
        self._check_origin(claims, trusted)
        if not is_for_one_of(claims.get("aud"), slot.audiences):
            raise TokenRejected(slot.wrong_audience)
        times = self._times(claims, trusted)
        if "cnf" in claims:
            raise TokenRejected(Reason.CNF_UNSUPPORTED, "a workload's token is a bearer token here")
        read_text(claims, "sub", longest=LONGEST_URI)
        client = self._client(claims, trusted)
        as_input = InputToken(slot.name, trusted.issuer, _jti(claims, trusted), times.expires_at)
        return VerifiedWorkload(client, as_input, self._one_time_id(as_input, trusted, times))

    def _issuer_of(self, claims: JsonObject, slot: _Slot) -> TrustedIssuer:
        """
        Whose keys decide: those of the trust domain of a SPIFFE ID, or else of the issuer that is named.

        A JWT-SVID need not name an issuer, and what it calls it is no place to look for keys
        (SPIFFE Client Authentication 6.2.4).
        """
        unverified_domain = trust_domain_of(claims.get("sub"))
        unverified_issuer = claims.get("iss")
        trusted = None if unverified_domain is None else self.registry.issuer(unverified_domain)
        if trusted is None and not slot.is_svid and isinstance(unverified_issuer, str):
            trusted = self.registry.issuer(unverified_issuer)
        if trusted is None:
            raise TokenRejected(Reason.ISS_UNKNOWN)
        if trusted.is_disabled:
            raise TokenRejected(Reason.ISSUER_DISABLED)
        if Purpose.WORKLOAD not in trusted.purposes:
            raise TokenRejected(Reason.ISSUER_NOT_FOR_PURPOSE)
        return trusted

    def _check_signature(self, unverified: UnverifiedToken, trusted: TrustedIssuer) -> None:
        header = unverified.header
        if header.unverified_algorithm not in trusted.algorithms:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        key = self.key_ring.key(trusted.keys, header.unverified_kid, header.unverified_algorithm)
        if not key.verify(unverified.signing_input, unverified.signature):
            raise TokenRejected(Reason.SIG_INVALID)

    def _check_origin(self, claims: JsonObject, trusted: TrustedIssuer) -> None:
        """
        A trust domain speaks for its own workloads, and in nobody else's name.

        This waits for the signature, so that no stranger learns from it which issuers are registered.
        """
        issuer = read_optional_text(claims, "iss", longest=LONGEST_URI)
        named = None if issuer is None else self.registry.issuer(issuer)
        if issuer == self.issuer or (named is not None and named.issuer != trusted.issuer):
            raise TokenRejected(Reason.CLAIM_INCONSISTENT, "iss is another issuer than sub's")
        if is_trust_domain(trusted.issuer) and trust_domain_of(claims.get("sub")) != trusted.issuer:
            raise TokenRejected(Reason.CLAIM_INCONSISTENT, "sub is not in the trust domain")

    def _times(self, claims: JsonObject, trusted: TrustedIssuer) -> Times:
        times = read_times(claims, is_iat_required=not is_trust_domain(trusted.issuer))
        times.check(
            now=self.now(),
            leeway=int(self.leeway.total_seconds()),
            longest=int(trusted.max_token_lifetime.total_seconds()),
        )
        return times

    def _client(self, claims: JsonObject, trusted: TrustedIssuer) -> Client:
        client = self.registry.client(client_named(trusted.workloads, claims))
        if client is None:
            raise TokenRejected(Reason.WORKLOAD_UNKNOWN, "the rule's client is not registered")
        if client.is_disabled:
            raise TokenRejected(Reason.CLIENT_DISABLED)
        if trusted.tenant is not None and client.tenant != trusted.tenant:
            raise TokenRejected(Reason.TENANT_MISMATCH, "a tenant's issuer and another's client")
        return client

    def _one_time_id(
        self, as_input: InputToken, trusted: TrustedIssuer, times: Times
    ) -> OneTimeId | None:
        """Platforms hand one token out again and again, so it is spent only where that is asked for."""
        if trusted.is_single_use is not True or as_input.jti is None:
            return None
        leeway = int(self.leeway.total_seconds())
        if times.issued_at is None:
            # With more than the longest lifetime before it, it was refused.
            since = times.expires_at - int(trusted.max_token_lifetime.total_seconds())
        else:
            since = times.issued_at - leeway
        until = times.expires_at + leeway
        return OneTimeId(ONE_TIME_KIND, trusted.issuer, as_input.jti, until, since)


def _check_kind(unverified: UnverifiedToken, slot: _Slot) -> None:
    """No other kind of token passes for a workload's, even where all else about it is right."""
    claims = unverified.unverified_claims
    is_svid = trust_domain_of(claims.get("sub")) is not None
    typs = _SVID_TYPS if is_svid else _TYPS
    is_of_kind = unverified.header.unverified_typ in typs and _OF_OTHER_KINDS.isdisjoint(claims)
    if not is_of_kind:
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
    if slot.is_svid and not is_svid:
        raise TokenRejected(Reason.WRONG_TOKEN_TYPE, "sub is no SPIFFE ID")


def _jti(claims: JsonObject, trusted: TrustedIssuer) -> str | None:
    read = read_text if trusted.is_single_use is True else read_optional_text
    return read(claims, "jti")
