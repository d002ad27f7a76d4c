"""How often anybody may ask: each client that proved itself, and each address that proves nothing."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Final

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.purses import MOST_PURSES, Purses
from broker.errors import (
    InvalidClient,
    OAuthError,
    RateLimited,
    Reason,
    ServerError,
    TemporarilyUnavailable,
    scattered,
)
from broker.interfaces import Allowances, AuditEntry, AuditLog, ReplayGuard
from broker.model import Admission, AuthenticatedClient, Quota, RequestContext

_SECONDS_BETWEEN_RECORDS: Final = 10.0
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")

Observer = Callable[[str, str], None]
"""Is told the face and the reason of each request that was turned away without a record."""


@dataclass(frozen=True, slots=True)
class LimitTerms:
    """The quotas that an operator set; where there is none, there is no limit."""

    per_client: Quota | None = None
    per_source: Quota | None = None


class TurnedAway(RateLimited):
    """
    A request was refused unread, since too many from its source proved nothing.

    There is no record of it: those that used the quota up have theirs.
    """

    is_recorded = False


class Limits:
    """
    Keeps clients and sources to their quotas.

    A client's requests count once it has proved to be that client, so nobody can use up what is another's.
    A source's requests count when they end without a proved client, whatever they claim; while its quota
    is used up, all that would need a proof is turned away unread. Each refusal tells when to come back, not
    all the same.
    """

    def __init__(
        self,
        allowances: Allowances,
        terms: LimitTerms,
        *,
        observe: Observer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._purses = Purses(allowances, monotonic=monotonic)
        self._refusals = _Refusals(monotonic)
        self._observe = observe

    def enter(self, context: RequestContext) -> None:
        """
        Let a request in that proves nothing yet.

        Raises ``TurnedAway`` (``source_limit``); nothing is written or asked for it.
        """
        if not context.source or self._terms.per_source is None:
            return
        wait = self._purses.wait_of(_source(context.source))
        if wait > 0:
            raise TurnedAway(Reason.SOURCE_LIMIT, retry_after=_seconds(wait))

    def charge(self, source: str) -> None:
        """Hold a request against its source that ended without a proved client."""
        if source and self._terms.per_source is not None:
            self._purses.take(_source(source), self._terms.per_source)

    def admit(self, caller: AuthenticatedClient, *, number: int = 1) -> Admission:
        """
        Count a request of a proved client, or as many as it asks for together, all or none.

        For more than the client may ever ask for at once, one is counted, as the value then says. Raises
        ``RateLimited`` (``client_limit``). Of these one is recorded in ten seconds for each client; it says
        how many there were since the one before.
        """
        client = caller.client
        quota = client.quota or self._terms.per_client
        if quota is not None:
            if number > quota.burst:
                number = 1
            wait = self._purses.take(_client(client.client_id), quota, number)
            if wait > 0:
                raise self._refusals.next_for(client.client_id, wait)
        return Admission(client.client_id, number, caller.one_time_id)

    def give_back(self, admitted: Admission) -> None:
        """Count a client for a request no more: somebody else had only repeated what the client once sent."""
        self._purses.give_back(_client(admitted.client_id), admitted.number)

    def count(self, face: str, error: OAuthError) -> None:
        """Tell the observer of a request that was turned away without a record."""
        if self._observe is not None:
            self._observe(face, error.reason.code)

    def close(self) -> None:
        """Close the allowances."""
        self._purses.close()


def no_limits() -> Limits:
    """What lets everybody in."""
    return Limits(LocalAllowances(), LimitTerms())


class _Refusals:
    """Decides which refusals of a client are worth a record, and counts the others."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def next_for(self, client_id: str, wait: float) -> RateLimited:
        with self._lock:
            now = self._monotonic()
            told_at, more = self._told.pop(client_id, (-math.inf, 0))
            is_due = now - told_at >= _SECONDS_BETWEEN_RECORDS
            self._told[client_id] = (now, 0) if is_due else (told_at, more + 1)
            if len(self._told) > MOST_PURSES:
                self._told.popitem(last=False)
        detail = f"{more} more since the last record" if is_due and more else ""
        error = RateLimited(Reason.CLIENT_LIMIT, retry_after=_seconds(wait), detail=detail)
        error.is_recorded = is_due
        return error


@dataclass(frozen=True, slots=True)
class ChargingAuditLog:
    """
    An audit log whose entries hold requests against their sources that end without a proved client.

    Every request has an entry, from before it is read to the end, and notes in it how its client was proved
    and what it was counted as. A proof whose one-time id ``replay`` knows as spent proves nothing of who
    repeats it; that is asked only when a request is refused, since a refused request spends nothing.
    """

    inner: AuditLog
    limits: Limits
    replay: ReplayGuard

    def entry(self, event: str, context: RequestContext) -> AbstractContextManager[AuditEntry]:
        return _ChargingEntry(self.inner.entry(event, context), self, context.source)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()


class _ChargingEntry:
    __slots__ = ("_entry", "_inner", "_log", "_source")

    def __init__(
        self, inner: AbstractContextManager[AuditEntry], log: ChargingAuditLog, source: str
    ) -> None:
        self._inner = inner
        self._log = log
        self._source = source

    def __enter__(self) -> AuditEntry:
        self._entry = self._inner.__enter__()
        return self._entry

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if isinstance(raised, OAuthError):
            self._settle(raised)
        return self._inner.__exit__(kind, raised, trace)

    def _settle(self, refusal: OAuthError) -> None:
        if not _is_callers_fault(refusal):
            return
        limits, admitted = self._log.limits, self._entry.admitted
        # Who proved nothing has no method of proof in the record, whatever it claims to be.
        if self._entry.noted("auth_method") is None:
            limits.charge(self._source)
        elif admitted is not None and self._is_repeated(refusal, admitted):
            # A proof that is shown again may be in anybody's hands.
            limits.give_back(admitted)
            limits.charge(self._source)

    def _is_repeated(self, refusal: OAuthError, admitted: Admission) -> bool:
        """Whether the proof was spent before; while nobody knows, it counts as the client's own."""
        if isinstance(refusal, InvalidClient):
            return True
        if admitted.one_time_id is None:
            return False
        try:
            return self._log.replay.is_spent(admitted.one_time_id)
        except TemporarilyUnavailable:
            return False


def source_of(address: str) -> str:
    """
    Whom requests from an address are held against: the address, or the network of an IPv6 address.

    Whoever has one IPv6 address has 2^64 of them (RFC 6177), and counts as one. An address that stands for
    an IPv4 address is that: behind one such network is everybody. What is no address is nobody's.
    """
    if ":" not in address:
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if not isinstance(found, IPv6Address):
        return str(found)
    embedded = _embedded(found)
    if embedded is not None:
        return str(embedded)
    return str(IPv6Address(int(found) >> 64 << 64)) + "/64"


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """
    The IPv4 address that it is reached by.

    It may be mapped (RFC 4291 2.5.5.2), translated under the well-known prefix (RFC 6052 2.1), or tunnelled
    by 6to4 (RFC 3056) or Teredo (RFC 4380), whose networks are those of a relay or a server.
    """
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return address.ipv4_mapped or address.sixtofour


def _is_callers_fault(refusal: OAuthError) -> bool:
    """Whether the caller could have known better: not when something of ours was away."""
    if isinstance(refusal, RateLimited):
        return True
    return not isinstance(refusal, TemporarilyUnavailable | ServerError)


def _client(client_id: str) -> str:
    return "client " + client_id


def _source(source: str) -> str:
    return "source " + source


def _seconds(wait: float) -> int:
    """Whole seconds that are not less than those, and not the same for all who are refused."""
    return scattered(max(1, math.ceil(wait)))
