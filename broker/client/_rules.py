"""The rules by which a resource accepts a token, whatever waits for its key."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from typing import Any, Final, Protocol

from broker.client._claims import (
    check_audience,
    check_times,
    read_confirmation,
    read_delegation,
)
from broker.client._documents import Documents
from broker.client._incoming import Incoming
from broker.client._key_places import load_from
from broker.client._key_source import KeySchedule, KeySource
from broker.client._proofs import Proof, SpentProofs, check_proof
from broker.client.delegation import Delegation
from broker.client.refusals import InsufficientScope, InvalidProof, InvalidToken, NoToken
from broker.client.resource import ResourceMetadata, metadata_url
from broker.errors import Reason, TokenRejected
from broker.jws import UnverifiedToken, read_token
from broker.oauth import PROOF_ALGORITHMS, TYP_ACCESS_TOKEN, VERIFICATION_ALGORITHMS

_log = logging.getLogger("broker.client")
_LONGEST_LEEWAY: Final = timedelta(minutes=1)
_FAULTS_OF_PROOFS: Final = frozenset(
    {
        Reason.POP_HTM,
        Reason.POP_HTU,
        Reason.POP_MALFORMED,
        Reason.POP_SIGNATURE,
        Reason.POP_STALE,
        Reason.REPLAY,
    }
)


class RevocationView(Protocol):
    """
    What is known of withdrawn tokens.

    ``refuses`` says whether these claims, which have been verified, are of a token that no longer counts. It
    raises ``Unverifiable`` when what it knows is older than the bound it was given; it never guesses.
    """

    def refuses(self, claims: Mapping[str, Any]) -> bool: ...


@dataclass(eq=False)
class Rules:
    """
    Tokens of one issuer, signed as pinned, for one resource and no other.

    ``issuer`` and ``resource`` compare byte for byte. The keys are at ``{issuer}/jwks``, unless ``jwks_uri``
    says where, or ``is_discovered`` has the issuer's metadata say it (RFC 8414). ``leeway`` serves
    acceptance alone and is at most a minute. Every token must have the ``required_scopes``.
    ``mcp_claim`` names the object about client and server, ``{issuer}/claims/mcp`` if not told.
    ``ca_file`` replaces the system's certification authorities. ``clock`` is unix seconds. Raises
    ``ValueError`` for what cannot be meant.
    """

    issuer: str
    resource: str
    _: KW_ONLY
    algorithms: Collection[str] = ("ES256",)
    leeway: timedelta = timedelta(seconds=30)
    required_scopes: Collection[str] = ()
    revocations: RevocationView | None = None
    jwks_uri: str | None = None
    is_discovered: bool = False
    mcp_claim: str | None = None
    schedule: KeySchedule = field(default_factory=KeySchedule)
    ca_file: str | None = None
    clock: Callable[[], float] = time.time
    _keys: KeySource = field(init=False, repr=False)
    _spent: SpentProofs = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.algorithms or not set(self.algorithms) <= set(VERIFICATION_ALGORITHMS):
            raise ValueError(f"Pin one or more of {', '.join(VERIFICATION_ALGORITHMS)}.")
        if not timedelta() <= self.leeway <= _LONGEST_LEEWAY:
            raise ValueError("The leeway is at most a minute.")
        if isinstance(self.required_scopes, str):
            raise TypeError("The required scopes are a collection, not one text.")
        metadata_url(self.resource)
        if self.issuer.endswith("/"):
            raise ValueError("The issuer of a broker has no slash at its end.")
        usual = None if self.is_discovered else f"{self.issuer.rstrip('/')}/jwks"
        place = self.jwks_uri or usual
        documents = Documents(ca_file=self.ca_file)
        load = load_from(
            documents, self.issuer, jwks_uri=place, algorithms=frozenset(self.algorithms)
        )
        self._keys = KeySource(load, schedule=self.schedule)
        self._spent = SpentProofs()

    def metadata(
        self, *, scopes: Collection[str] = (), name: str | None = None
    ) -> ResourceMetadata:
        """What the resource tells of itself (RFC 9728); ``scopes`` are those besides the required ones."""
        return ResourceMetadata(
            self.resource,
            [self.issuer],
            scopes=sorted({*self.required_scopes, *scopes}),
            proof_algorithms=PROOF_ALGORITHMS,
            name=name,
        )

    def _read(self, token: str) -> UnverifiedToken:
        """The token taken apart, if its outside is that of an access token for here; nothing is proved."""
        unverified = read_token(token)
        if unverified.header.unverified_typ != TYP_ACCESS_TOKEN:
            raise TokenRejected(Reason.WRONG_TOKEN_TYPE)
        if unverified.header.unverified_algorithm not in self.algorithms:
            raise TokenRejected(Reason.ALG_NOT_ALLOWED)
        if unverified.unverified_claims.get("iss") != self.issuer:
            raise TokenRejected(Reason.ISS_UNKNOWN, f"the issuer here is {self.issuer}")
        return unverified

    def _presented(self, incoming: Incoming) -> tuple[str, Proof | None]:
        with self._as_refusals():
            presented = incoming.presented()
        if presented is None:
            raise NoToken(self.resource, self.required_scopes)
        return presented

    def _flight(self, unverified: UnverifiedToken) -> "Future[None] | None":
        """What to wait for before the token is judged."""
        header = unverified.header
        return self._keys.flight_for(header.unverified_kid, header.unverified_algorithm)

    def _judge(self, token: str, unverified: UnverifiedToken, proof: Proof | None) -> Delegation:
        """What the token says, now that its key should be known; the signature comes first."""
        header = unverified.header
        key = self._keys.find(header.unverified_kid, header.unverified_algorithm)
        key.check(unverified.signing_input, unverified.signature)
        claims = unverified.unverified_claims
        check_audience(claims, self.resource)
        check_times(claims, now=self.clock(), leeway=self.leeway.total_seconds())
        bound_to = read_confirmation(claims)
        mcp_claim = self.mcp_claim or f"{self.issuer}/claims/mcp"
        delegation = read_delegation(claims, mcp_claim=mcp_claim, token=token, key=bound_to)
        if self.revocations is not None and self.revocations.refuses(claims):
            raise TokenRejected(Reason.REVOKED)
        self._check_holder(token, bound_to, proof)
        return delegation

    def _check_holder(self, token: str, bound_to: str | None, proof: Proof | None) -> None:
        """A token that is bound to a key is never taken for a bearer token (RFC 9449 7.1, 7.2)."""
        if proof is None:
            if bound_to is not None:
                raise TokenRejected(Reason.POP_REQUIRED)
            return
        if bound_to is None:
            raise TokenRejected(Reason.POP_MISMATCH, "the token is not bound")
        check_proof(
            proof,
            token,
            bound_to,
            now=self.clock(),
            leeway=self.leeway.total_seconds(),
            spent=self._spent,
        )

    @contextmanager
    def _as_refusals(self) -> Iterator[None]:
        """Answer what is wrong with a token as RFC 6750 3.1 wants it."""
        try:
            yield
        except TokenRejected as rejected:
            # For whoever runs the server: the client is told less.
            _log.info("A token was refused: %s %s", rejected.reason.code, rejected.detail)
            kind = InvalidProof if rejected.reason in _FAULTS_OF_PROOFS else InvalidToken
            raise kind(rejected.reason, self.resource, scopes=self.required_scopes) from None

    def _check_scopes(self, delegation: Delegation, scopes: Collection[str] | None) -> None:
        try:
            delegation.require_scopes(*(self.required_scopes if scopes is None else scopes))
        except InsufficientScope as lacking:
            _log.info("A token was refused: it lacks %s", " ".join(sorted(lacking.missing)))
            raise
