"""Every seam of the broker, on one page: what the core asks of the parts around it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from broker.errors import Reason
from broker.model import (
    Admission,
    Client,
    ClientDocument,
    Decision,
    KeySource,
    OneTimeId,
    Pedigree,
    PolicyQuery,
    Portion,
    Quota,
    RequestContext,
    Resource,
    ResourceAuthorizationServer,
    Revocation,
    ScopeExplanation,
    TrustedIssuer,
    Withdrawal,
)

Now = Callable[[], int]
"""The clock: unix seconds. It is always an argument, so that a test can hold it."""


class SigningKey(Protocol):
    """
    One of our keys, able to sign.

    ``sign`` returns the raw JWS signature (RFC 7515): for ES256 the 64 bytes of r and s. It raises
    ``TemporarilyUnavailable`` when the key cannot be reached, within the key store's own deadline.
    ``sign_all`` does the same for several at once, within the same deadline: all or none.
    """

    @property
    def kid(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    def sign(self, signing_input: bytes) -> bytes: ...
    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]: ...


class KeyStore(Protocol):
    """
    Our signing keys. It never returns a key for signing that verifiers cannot see yet.

    ``public_keys`` is the published set as JWK members, public ones only, each with ``kid``, ``alg``
    and ``use``. While the engine behind it is away it keeps answering with the last good set, until all
    that its keys have signed is dead; from then on the set is empty.
    ``fresh_for`` is for how many seconds from now no key signs, anywhere, that is not in that set: as
    long as a verifier may keep it. ``close`` stops threads and forgets what is secret.
    """

    def signing_key(self, algorithm: str) -> SigningKey: ...
    def public_keys(self) -> Sequence[Mapping[str, str]]: ...
    def fresh_for(self) -> int: ...
    def close(self) -> None: ...


class VerificationKey(Protocol):
    """
    Somebody's public key, bound to one algorithm (RFC 8725 3.1).

    ``verify`` tells whether the signature is right; it never raises for a wrong one.
    """

    @property
    def kid(self) -> str | None: ...
    @property
    def algorithm(self) -> str: ...
    def verify(self, signing_input: bytes, signature: bytes) -> bool: ...


class KeyRing(Protocol):
    """
    Other people's keys, fetched, checked and remembered.

    ``key`` raises ``TokenRejected`` (``unknown_key``, ``key_alg_mismatch``, ``key_not_for_sig``) when
    the source has no such key, and ``TemporarilyUnavailable`` (``key_source_unavailable``) when it
    cannot know. It never fetches for a source that the registry does not hold, and at most once per
    source and cool-down. It never tries several keys on one signature.
    """

    def key(self, source: KeySource, kid: str | None, algorithm: str) -> VerificationKey: ...


class ClientDocuments(Protocol):
    """
    The metadata documents of clients, each at the URL that is the client's id, and the keys in them.

    Both methods fetch what is not remembered, for any URL that can be a client's id: ask the registry
    first. They raise ``TokenRejected`` (``cimd_*``, ``fetch_*``) when there is no acceptable document,
    ``RateLimited`` (``fetch_limit``) when it would have to be fetched and too much is, and ``key``
    raises as that of a ``KeyRing`` does when it names no such key.
    """

    def document(self, url: str) -> ClientDocument: ...
    def key(self, url: str, kid: str | None, algorithm: str) -> VerificationKey: ...


class Registry(Protocol):
    """
    What the operator declared. Ids compare byte for byte; disabled entries are returned as such.

    ``client`` also answers for a client that is known by a metadata document, without looking at the
    document. ``has_client_documents`` tells whether there can be such clients.
    ``client_at`` finds the client that is registered to have this id at another issuer; equal ids alone
    say nothing. ``resource`` also finds a resource by one of its logical audience names, and
    ``authorization_server`` another authorization server by its issuer or a logical name.
    ``is_subject_disabled`` takes a subject as minted here.
    """

    @property
    def has_client_documents(self) -> bool: ...
    def client(self, client_id: str) -> Client | None: ...
    def client_at(self, issuer: str, client_id: str) -> Client | None: ...
    def resource(self, name: str) -> Resource | None: ...
    def issuer(self, issuer: str) -> TrustedIssuer | None: ...
    def authorization_server(self, name: str) -> ResourceAuthorizationServer | None: ...
    def is_subject_disabled(self, sub: str) -> bool: ...


class ReplayGuard(Protocol):
    """
    Remembers which one-time ids have been spent.

    ``spend`` is atomic over all ids given, across threads and processes: of two callers with one id
    exactly one is told yes. It returns the first id that was spent before, having spent none, or
    ``None`` when all are spent now. ``is_spent`` tells, and spends nothing. A guard that cannot answer
    raises ``TemporarilyUnavailable`` (``replay_store_unavailable``); it never guesses. ``check`` raises
    likewise when it could not.
    """

    def spend(self, one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None: ...
    def is_spent(self, one_time_id: OneTimeId) -> bool: ...
    def check(self) -> None: ...
    def close(self) -> None: ...


class RevocationList(Protocol):
    """
    Remembers what was withdrawn before its time: one of our tokens, or everything issued for a party.

    ``until`` is the unix second at which the token would have expired. A second withdrawal for a
    party widens the first. ``reason_against`` answers for a token all at once: ``REVOKED`` for itself
    or a party, ``ANCESTOR_REVOKED`` for a token that it derives from, or ``None``. Raises
    ``TemporarilyUnavailable`` (``revocation_unavailable``) when it cannot know.
    """

    def revoke(self, jti: str, until: int) -> None: ...
    def withdraw(self, withdrawal: Withdrawal) -> None: ...
    def reason_against(self, pedigree: Pedigree) -> Reason | None: ...


class RevocationJournal(Protocol):
    """
    Everything withdrawn that is still remembered, for whoever keeps a copy of it.

    ``revocations_after`` is what has a higher number, the lowest first; after 0 that is all. Raises
    ``TemporarilyUnavailable`` (``revocation_unavailable``) when it cannot know, or there is more than
    ``most``.
    """

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]: ...


class Allowances(Protocol):
    """
    What is left for each party of what it gets by the second, which several processes draw on.

    ``draw`` gives up to ``wanted`` out of a party's quota, atomically across threads and processes: over
    any time a party gets no more than its burst and what its rate brings meanwhile. Where there are fewer
    than ``least`` it gives nothing, and the portion says how long that lasts. Raises
    ``TemporarilyUnavailable`` when it cannot know. What is full is forgotten, so it keeps as much as was
    drawn on lately.
    """

    def draw(self, party: str, quota: Quota, wanted: int, *, least: int = 1) -> Portion: ...
    def close(self) -> None: ...


class PolicyEngine(Protocol):
    """
    Decides. An engine that fails answers with ``Verdict.ERROR``; it does not raise.

    ``digest`` is the SHA-256 of the policy set in force, in hex. ``permits_any`` tells, as cheaply as
    it can, whether ``decide`` would grant any of the scopes; one that fails says no. ``explain``
    decides anew, with the policies' files and lines and, for each scope denied, the permits that
    came nearest.
    """

    @property
    def digest(self) -> str: ...
    def decide(self, query: PolicyQuery) -> Decision: ...
    def permits_any(self, query: PolicyQuery) -> bool: ...
    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]: ...


class AuditEntry(Protocol):
    """
    The record being written about one request.

    ``note`` adds facts by their field names, which come from a closed list; a later value replaces
    an earlier one. No fact may hold a token or a secret. ``noted`` tells a fact again while the entry is
    open, or ``None`` where there is none. ``admitted`` is no fact: it is what the request was counted as,
    once it was, for whoever looks after quotas. ``receipt`` is what a token tells of this record, so that
    whoever holds the token can ask for it: ``<event id>@<log>/<chain>/<number>``, where its number in its
    chain is not below that one. It is empty where nothing is kept.

    ``part`` opens a part of a request that asks for several tokens; it knows what was noted until then,
    and can be noted in until the entry is closed. Each part has a record of its own, written together
    with the others as one group. When the block of a part raises, its facts become the entry's, and the
    entry that is then denied is the only record.
    """

    admitted: Admission | None

    @property
    def receipt(self) -> str: ...
    def note(self, **facts: Any) -> None: ...
    def noted(self, name: str) -> Any: ...
    def part(self) -> "AbstractContextManager[AuditEntry]": ...


class AuditLog(Protocol):
    """
    The durable witness.

    ``entry`` opens a record, whose id is the context's ``request_id``. Leaving its block writes it:
    as permitted, or, when the block raises, as denied with the reason of the ``OAuthError`` or of the
    ``TokenRejected``, which the caller is told no code for (anything else is recorded as
    ``internal_error``). An ``OAuthError`` that is not ``is_recorded`` leaves nothing.
    The block is left only once the record is on disk; if it cannot be, ``TemporarilyUnavailable``
    (``audit_unavailable``) replaces whatever the block returned or raised. ``check`` raises it too
    while the writer is closed.
    """

    def entry(self, event: str, context: RequestContext) -> AbstractContextManager[AuditEntry]: ...
    def check(self) -> None: ...
    def close(self) -> None: ...
