"""A token becomes verified claims by the rules of the slot it was presented in, or a rejection."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar, Final

from broker.errors import Reason, TokenRejected
from broker.interfaces import KeyRing, Now, Registry, VerificationKey
from broker.jws import Header
from broker.model import (
    Authentication,
    Client,
    JsonObject,
    Purpose,
    TrustedIssuer,
)
from broker.oauth import SIGNING_ALGORITHMS, TYP_ACCESS_TOKEN, TYP_ID_JAG
from broker.tokens.claims import (
    LONGEST_URI,
    Times,
    read_act,
    read_authentication,
    read_confirmation,
    read_optional_text,
    read_scope,
    read_sole_audience,
    read_text,
    read_times,
)
from broker.tokens.own_keys import OwnKeys
from broker.tokens.seen import SeenTokens, TakenToken
from broker.tokens.standing import Standing
from broker.unshown import Unshown

_OWN_ALGORITHMS: Final = frozenset(SIGNING_ALGORITHMS)
LONGEST_OWN_LIFETIME: Final = timedelta(minutes=15)
LONGEST_ASSERTION_LIFETIME: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Profile:
    """
    The rules of a slot: which ``typ`` values (lower case), from whom, for which purpose.

    Profiles are mutually exclusive: a token that fits one fits no other (RFC 8725 3.12). Where two
    kinds share a ``typ``, ``foreign_claims`` are those that give away the other kind. ``longest`` bounds
    the lifetime of such tokens, whoever signs them. ``own_refusal`` is what one of our own is
    refused with where it is not accepted.
    """

    typs: frozenset[str]
    purpose: Purpose
    is_own_accepted: bool = False
    is_jti_required: bool = False
    has_scope: bool = True
    foreign_claims: frozenset[str] = frozenset()
    longest: timedelta | None = None
    own_refusal: Reason = Reason.ISS_UNKNOWN


ACCESS_TOKEN: Final = Profile(
    typs=frozenset({TYP_ACCESS_TOKEN}),
    purpose=Purpose.ACCESS_TOKEN,
    is_own_accepted=True,
    is_jti_required=True,
)
FOREIGN_JWT: Final = Profile(typs=frozenset({"jwt", ""}), purpose=Purpose.ACCESS_TOKEN)
ID_TOKEN: Final = Profile(
    typs=frozenset({"jwt", ""}),
    purpose=Purpose.USER,
    has_scope=False,
    # An access token or a logout token of the same issuer must not pass for an identity.
    foreign_claims=frozenset({"scope", "scp", "client_id", "events"}),
)

ID_JAG: Final = Profile(
    typs=frozenset({TYP_ID_JAG}),
    purpose=Purpose.ID_JAG,
    is_jti_required=True,
    has_scope=False,
    longest=LONGEST_ASSERTION_LIFETIME,
    own_refusal=Reason.SELF_ISSUED_JAG,
)


class VerifiedToken(Unshown, frozen=True):
    """
    A token whose signature, issuer, type and times are right.

    ``trusted_issuer`` is ``None`` for our own tokens. ``scopes`` is ``None`` for a kind of token that
    has none. ``confirmation`` is the thumbprint of the key that it is bound to (RFC 9449 6.1). ``claims``
    is the rest, verified as signed but not otherwise interpreted.
    """

    unshown: ClassVar = frozenset({"claims"})

    issuer: str
    trusted_issuer: TrustedIssuer | None
    sub: str
    audience: str
    client_id: str | None
    scopes: frozenset[str] | None
    times: Times
    jti: str | None
    act: JsonObject | None
    authentication: Authentication
    confirmation: str | None
    claims: JsonObject

    @property
    def is_own(self) -> bool:
        """Whether this broker issued it."""
        return self.trusted_issuer is None

    @property
    def issued_at(self) -> int:
        """When it was issued, in unix seconds."""
        return self.times.issued_at or 0

    @property
    def expires_at(self) -> int:
        """When it expires, in unix seconds; that is its true expiry, without leeway."""
        return self.times.expires_at


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Verifies tokens of trusted issuers and of this broker. ``leeway`` serves acceptance alone."""

    issuer: str
    registry: Registry
    key_ring: KeyRing
    own_keys: OwnKeys
    standing: Standing
    now: Now
    leeway: timedelta
    seen: SeenTokens[VerifiedToken] = field(default_factory=SeenTokens)
    _leeway: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_leeway", int(self.leeway.total_seconds()))

    def verify(
        self, token: str, profile: Profile, *, client: Client, proved_key: str | None = None
    ) -> VerifiedToken:
        """
        The verified content of ``token``, presented by ``client``.

        ``proved_key`` is the thumbprint of the key that the client proved to hold; without it every
        token that is bound to a key is refused. Raises ``TokenRejected``, or
        ``TemporarilyUnavailable`` where keys or revocations cannot be had.
        """
        taken = self.seen.take(token)
        unverified = taken.unverified
        is_of_kind = profile.foreign_claims.isdisjoint(unverified.unverified_claims)
        if unverified.header.unverified_typ not in profile.typs or not is_of_kind:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        unverified_issuer = unverified.unverified_claims.get("iss")
        if unverified_issuer == self.issuer:
            if not profile.is_own_accepted:
                raise TokenRejected(profile.own_refusal)
            verified = self._read_own(taken, profile)
            try:
                self.standing.check_own(verified.claims)
            except TokenRejected as rejected:
                rejected.known_as = (
                    verified.issuer,
                    verified.jti,
                    verified.expires_at,
                    verified.sub,
                )
                raise
        else:
            verified = self._verify_foreign(taken, profile, client)
        _check_holder(verified, proved_key)
        return verified

    def read_own(self, token: str, profile: Profile) -> VerifiedToken:
        """
        The content of a token of ours, if it is one and its time has not passed (RFC 7662, RFC 7009).

        Whoever asks does not present it: it is read whether or not it was withdrawn, and though it may be
        bound to a key. Raises ``TokenRejected``.
        """
        taken = self.seen.take(token)
        if taken.unverified.header.unverified_typ not in profile.typs:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        if taken.unverified.unverified_claims.get("iss") != self.issuer:
            raise TokenRejected(Reason.ISS_UNKNOWN)
        return self._read_own(taken, profile)

    def _read_own(self, taken: TakenToken, profile: Profile) -> VerifiedToken:
        header = taken.unverified.header
        _check_algorithm(header, _OWN_ALGORITHMS)
        key = self.own_keys.key(header.unverified_kid, header.unverified_algorithm)
        self._check_signature(taken, key)
        return self._read(taken, profile, None, LONGEST_OWN_LIFETIME)

    def _verify_foreign(self, taken: TakenToken, profile: Profile, client: Client) -> VerifiedToken:
        header, claims = taken.unverified.header, taken.unverified.unverified_claims
        trusted = self._trusted_issuer(claims.get("iss"), profile, client)
        _check_algorithm(header, trusted.algorithms)
        key = self.key_ring.key(trusted.keys, header.unverified_kid, header.unverified_algorithm)
        self._check_signature(taken, key)
        longest = min(trusted.max_token_lifetime, profile.longest or trusted.max_token_lifetime)
        return self._read(taken, profile, trusted, longest)

    def _trusted_issuer(self, issuer: object, profile: Profile, client: Client) -> TrustedIssuer:
        trusted = self.registry.issuer(issuer) if isinstance(issuer, str) else None
        if trusted is None:
            raise TokenRejected(Reason.ISS_UNKNOWN)
        if trusted.is_disabled:
            raise TokenRejected(Reason.ISSUER_DISABLED)
        if profile.purpose not in trusted.purposes:
            raise TokenRejected(Reason.ISSUER_NOT_FOR_PURPOSE)
        if client.issuers is not None and trusted.issuer not in client.issuers:
            raise TokenRejected(Reason.ISSUER_NOT_FOR_CLIENT)
        return trusted

    def _read(
        self,
        taken: TakenToken,
        profile: Profile,
        trusted: TrustedIssuer | None,
        longest: timedelta,
    ) -> VerifiedToken:
        """Read the claims, whose signature has been checked by now; their times count each time anew."""
        claims = taken.unverified.unverified_claims
        terms = profile, trusted
        known = self.seen.reading(taken, terms)
        now = self.now()
        times = read_times(claims) if known is None else known.times
        times.check(now=now, leeway=self._leeway, longest=int(longest.total_seconds()))
        if known is not None and (known.authentication.auth_time or 0) <= now + self._leeway:
            return known
        client_claim = "client_id" if "client_id" in claims else "azp"
        jti = read_text(claims, "jti") if profile.is_jti_required else None
        read = VerifiedToken(
            issuer=self.issuer if trusted is None else trusted.issuer,
            trusted_issuer=trusted,
            sub=read_text(claims, "sub"),
            audience=read_sole_audience(claims),
            client_id=read_optional_text(claims, client_claim, longest=LONGEST_URI),
            scopes=read_scope(claims) if profile.has_scope else None,
            times=times,
            jti=jti or read_optional_text(claims, "jti"),
            act=read_act(claims),
            authentication=read_authentication(claims, latest=now + self._leeway),
            confirmation=read_confirmation(claims),
            claims=claims,
        )
        self.seen.remember_reading(taken, terms, read)
        return read

    def _check_signature(self, taken: TakenToken, key: VerificationKey) -> None:
        """Check the signature with the one key that the header names."""
        if not self.seen.is_signed_by(taken, key):
            raise TokenRejected(Reason.SIG_INVALID)


def _check_algorithm(header: Header, pinned: frozenset[str]) -> None:
    if header.unverified_algorithm not in pinned:
        raise TokenRejected(Reason.ALG_NOT_ALLOWED)


def _check_holder(verified: VerifiedToken, proved_key: str | None) -> None:
    """A token that is bound to a key is never taken for a bearer token (RFC 9449 7.1, 9)."""
    if verified.confirmation in (None, proved_key):
        return
    raise TokenRejected(Reason.POP_REQUIRED if proved_key is None else Reason.POP_MISMATCH)
