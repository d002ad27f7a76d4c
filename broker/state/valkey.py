"""Spent ids and withdrawn tokens in Valkey or Redis, shared by the brokers of several machines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import structlog

from broker.errors import OAuthError, Reason
from broker.interfaces import Now
from broker.model import OneTimeId, Pedigree, Revocation, Withdrawal
from broker.state.connection import Unavailable
from broker.state.database import StateRefused
from broker.state.entries import (
    LAST_SECOND,
    REVOCATION_GRACE,
    TOO_MANY,
    Keys,
    replay_store_unavailable,
    revocation_unavailable,
    revoked_key,
    spent_key,
    withdrawn_key,
)
from broker.state.valkey_keeper import PAGE, Keeper, StoreTerms, read_revocations
from broker.state.valkey_link import ValkeyFault, reading
from broker.state.valkey_primary import Conversation, Primary
from broker.state.valkey_scripts import ASK, FIND, REFUSALS, SPEND, TELL, settled_after

# The server looks ten times a second whether somebody has waited for long enough, in seconds.
_ROUNDING: Final = 0.15
_LEAST_TOLERANCE: Final = 5

_log = structlog.get_logger("broker.state")


class ValkeyState:
    """
    A replay guard and a revocation list that brokers on several machines share.

    Every answer is one script, done whole by one server, so of two callers exactly one is told yes,
    wherever they are. What is acknowledged is in that server's memory and in that of as many replicas as
    the terms say.

    Where a start, a failover, a flush or a restored backup may have cost the server some of it, a new
    epoch begins: ids of tokens that may have been spent before are refused for good, and all that any
    process knows to be withdrawn is withdrawn again, or, where none knew it all, everything issued up to
    then.

    The server's own clock decides, which all brokers share, or ``now`` if not ``is_server_time``. ``check``
    has to be called every few seconds. A server that is away, or forgets on purpose, is waited for.
    """

    def __init__(
        self,
        primary: Primary,
        terms: StoreTerms,
        *,
        now: Now,
        leeway: timedelta,
        is_server_time: bool = True,
    ) -> None:
        self._primary = primary
        self._terms = terms
        self._now = now
        self._leeway = int(leeway.total_seconds())
        self._is_server_time = is_server_time
        self._keeper = Keeper(primary, terms, now=now, leeway=leeway, is_server_time=is_server_time)
        try:
            self._keeper.tend()
        except (ValkeyFault, OAuthError) as failure:
            _log.warning("state_away", detail=failure.detail)

    def spend(self, one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        if not one_time_ids:
            return None
        facts = [fact for one in one_time_ids for fact in (spent_key(one), one.until, one.since)]
        with self._talking(replay_store_unavailable) as talk:
            word, found = self._keeper.run(talk, SPEND, self._terms.capacity, *facts)
            if word == "spent":
                return one_time_ids[int(found[0])]
            if word != "well":
                raise replay_store_unavailable(REFUSALS[word])
            self._confirm(talk)
        return None

    def is_spent(self, one_time_id: OneTimeId) -> bool:
        asked = (spent_key(one_time_id), one_time_id.until, one_time_id.since)
        with self._talking(replay_store_unavailable) as talk:
            word, _ = self._keeper.run(talk, FIND, *asked)
        if word in {"spent", "well"}:
            return word == "spent"
        raise replay_store_unavailable(REFUSALS[word])

    def revoke(self, jti: str, until: int) -> None:
        self._withdraw(Revocation(0, revoked_key(jti), 0, LAST_SECOND, until + REVOCATION_GRACE))

    def withdraw(self, withdrawal: Withdrawal) -> None:
        key, until = withdrawn_key(withdrawal.party), withdrawal.kept_until + REVOCATION_GRACE
        issued = (withdrawal.issued_since, withdrawal.issued_until)
        self._withdraw(Revocation(0, key, *issued, until))

    def _withdraw(self, revocation: Revocation) -> None:
        with self._talking(revocation_unavailable) as talk:
            self._keeper.record(talk, revocation)
            self._confirm(talk)

    def reason_against(self, pedigree: Pedigree) -> Reason | None:
        keys = Keys.of(pedigree)
        every = (*keys.own, *keys.ancestral)
        with self._talking(revocation_unavailable) as talk:
            word, found = self._keeper.run(talk, ASK, pedigree.issued_at, *every)
            if word != "well":
                raise revocation_unavailable(REFUSALS[word])
            return keys.reason({every[int(at)] for at in found})

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        found: list[Revocation] = []
        while True:
            room = min(PAGE, most + 1 - len(found))
            page = self._page(number, room)
            found += page
            if len(found) > most:
                raise revocation_unavailable(TOO_MANY)
            if len(page) < room:
                return found
            number = page[-1].number

    def _page(self, number: int, room: int) -> list[Revocation]:
        with self._talking(revocation_unavailable) as talk:
            word, found = self._keeper.run(talk, TELL, number, room)
            if word != "well":
                raise revocation_unavailable(REFUSALS[word])
            return read_revocations(found)

    def spent_count(self) -> int:
        """How many one-time ids are remembered."""
        with self._talking(replay_store_unavailable) as talk:
            # The marker is no entry.
            return int(talk.ask("ZCARD", self._keeper.keys[1])) - 1

    def check(self) -> None:
        """
        Look after the store, and write for real: a server that can be read may not take anything.

        This is also what lets go of what is over, finds that an epoch began, and gives back what the store
        forgot. It raises as well while what was issued lately is refused for that reason.
        """
        try:
            tended = self._keeper.tend()
        except ValkeyFault as fault:
            raise replay_store_unavailable(f"state: {fault.detail}") from None
        difference = abs(tended.now - self._now()) if self._is_server_time else 0
        if difference > max(self._leeway, _LEAST_TOLERANCE):
            raise replay_store_unavailable(f"state: its clock differs by {difference} s")
        left = tended.began + settled_after(self._leeway) - tended.now
        if left > 0:
            detail = f"{REFUSALS['settling']}, and is ready in {left} s"
            raise replay_store_unavailable(detail, well_in=left)

    def check_policy(self) -> None:
        """Raise ``StateRefused`` when the server was found to forget on purpose."""
        if self._keeper.is_evicting:
            raise StateRefused(f"the state store cannot be used: {self._keeper.doubt}")

    def close(self) -> None:
        self._primary.close()

    def _confirm(self, talk: Conversation) -> None:
        """Return once so many replicas have it too."""
        replicas = self._terms.replicas
        if replicas == 0:
            return
        patience = max(1, int((talk.remaining - _ROUNDING) * 1000))
        if int(talk.ask("WAIT", replicas, patience)) < replicas:
            raise ValkeyFault("too few replicas have it", is_answer=True)

    @contextmanager
    def _talking(self, unavailable: Unavailable) -> Iterator[Conversation]:
        """A conversation for a request; what goes wrong in it becomes ``TemporarilyUnavailable``."""
        if self._keeper.doubt:
            raise unavailable(f"state: {self._keeper.doubt}")
        try:
            with self._primary.conversation() as talk, reading():
                yield talk
        except ValkeyFault as fault:
            raise unavailable(f"state: {fault.detail}") from None
