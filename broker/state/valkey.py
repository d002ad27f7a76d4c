"""Spent ids and withdrawn tokens in Valkey or Redis, shared by the brokers of several machines."""

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from broker.endpoints.withdrawal import LONGEST_INPUT_LIFETIME
from broker.errors import Reason
from broker.interfaces import Now
from broker.model import OneTimeId, Pedigree, Revocation, Withdrawal
from broker.state.connection import Unavailable
from broker.state.copied import RevocationCopy
from broker.state.database import StateRefused
from broker.state.entries import (
    CLOCK_WENT_BACK,
    LAST_SECOND,
    REVOCATION_GRACE,
    TOO_MANY,
    Keys,
    everything_key,
    replay_store_unavailable,
    revocation_unavailable,
    revoked_key,
    spent_key,
    withdrawn_key,
)
from broker.state.valkey_link import Reply, ValkeyFault
from broker.state.valkey_primary import Conversation, Primary
from broker.state.valkey_scripts import (
    ASK,
    BEGIN,
    REVOKE,
    SETTLING,
    SPEND,
    TELL,
    TEND,
    VOUCH,
    WRITE,
    Script,
)

DEFAULT_CAPACITY: Final = 10_000_000
_CLOSEST: Final = timedelta(seconds=5)
_PAGE: Final = 500
# The server looks ten times a second whether somebody has waited for long enough, in seconds.
_ROUNDING: Final = 0.15
_NO_EVICTION: Final = "noeviction"
_CHANGED: Final = frozenset({"lost", "moved", "older", "other"})
"""What a script says when the store may not remember what it did."""

_log = structlog.get_logger("broker.state")


@dataclass(frozen=True, slots=True)
class StoreTerms:
    """How the keys begin, how many replicas must have what is acknowledged, and how much is held."""

    prefix: str = "broker"
    replicas: int = 0
    capacity: int = DEFAULT_CAPACITY


@dataclass(frozen=True, slots=True)
class _Known:
    """The epoch that this process is in, and the latest second that it saw in it."""

    epoch: str = ""
    seen: int = 0


@dataclass(frozen=True, slots=True)
class _Tended:
    """How the store stands: the second that it is there, and when its epoch began."""

    now: int
    began: int
    seen: int
    is_whole: bool


class _EpochChanged(Exception):
    """The store may have forgotten something, or another process found that it had."""


class ValkeyState:
    """
    A replay guard and a revocation list that brokers on several machines share.

    Every answer is one script, done whole by one server, so of two callers exactly one is told yes,
    wherever they are. What is acknowledged is in that server's memory and in that of as many replicas as the
    terms say.
    Where a start, a failover, a flush or a restored backup may have cost the server some of it, a new epoch
    begins: ids of tokens that may have been spent before are refused for good, and all that any process knows
    to be withdrawn is withdrawn again, or, where none knew it all, everything issued up to then.

    The server's own clock decides, which all brokers share, or ``now`` if not ``is_server_time``. ``check``
    has to be called every few seconds. Raises ``StateRefused`` when the server forgets on purpose.
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
        names = ("facts", "spent", "revoked", "numbers", "ends")
        self._keys = tuple(f"{{{terms.prefix}}}:{name}" for name in names)
        self._now = now
        self._leeway = int(leeway.total_seconds())
        self._replicas = terms.replicas
        self._is_server_time = is_server_time
        self._capacity = terms.capacity
        self._known = _Known()
        self._copy = RevocationCopy()
        self._tending = threading.Lock()
        # Why nothing is answered although the server answers.
        self._doubt = "nobody has looked at the store yet"
        self._has_warned = False
        self._open()

    def spend(self, one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        if not one_time_ids:
            return None
        facts = [fact for one in one_time_ids for fact in (spent_key(one), one.until, one.since)]
        with self._talking(replay_store_unavailable) as talk:
            verdict, found = self._run(talk, SPEND, self._capacity, *facts)
            if verdict == "spent":
                return one_time_ids[int(found[0])]
            if verdict != "well":
                raise replay_store_unavailable(_REFUSALS.get(verdict, verdict))
            self._confirm(talk)
        return None

    def revoke(self, jti: str, until: int) -> None:
        self._withdraw(Revocation(0, revoked_key(jti), 0, LAST_SECOND, until + REVOCATION_GRACE))

    def withdraw(self, withdrawal: Withdrawal) -> None:
        key, until = withdrawn_key(withdrawal.party), withdrawal.kept_until + REVOCATION_GRACE
        issued = (withdrawal.issued_since, withdrawal.issued_until)
        self._withdraw(Revocation(0, key, *issued, until))

    def _withdraw(self, revocation: Revocation) -> None:
        with self._talking(revocation_unavailable) as talk:
            self._record(talk, [revocation], is_told_again=False, known=self._known)
            self._copy.add(revocation)
            self._confirm(talk)

    def _record(
        self,
        talk: Conversation,
        revocations: Sequence[Revocation],
        *,
        is_told_again: bool,
        known: _Known,
    ) -> None:
        facts: list[bytes | int] = []
        for one in revocations:
            last = one.kept_until - REVOCATION_GRACE
            facts += (one.key, last, one.issued_since, one.issued_until)
        told_again = int(is_told_again)
        verdict, _ = self._run(talk, REVOKE, self._capacity, told_again, *facts, known=known)
        if verdict != "well":
            raise revocation_unavailable(_REFUSALS.get(verdict, verdict))

    def reason_against(self, pedigree: Pedigree) -> Reason | None:
        keys = Keys.of(pedigree)
        every = (*keys.own, *keys.ancestral)
        with self._talking(revocation_unavailable) as talk:
            verdict, found = self._run(talk, ASK, pedigree.issued_at, *every)
        if verdict != "well":
            raise revocation_unavailable(_REFUSALS.get(verdict, verdict))
        return keys.reason({every[int(at)] for at in found})

    def revocations_after(self, number: int, *, most: int) -> Sequence[Revocation]:
        found: list[Revocation] = []
        while True:
            room = min(_PAGE, most + 1 - len(found))
            with self._talking(revocation_unavailable) as talk:
                page = self._page(talk, number, room)
            found += page
            if len(found) > most:
                raise revocation_unavailable(TOO_MANY)
            if len(page) < room:
                return found
            number = page[-1].number

    def _page(self, talk: Conversation, number: int, room: int) -> list[Revocation]:
        verdict, found = self._run(talk, TELL, number, room)
        if verdict != "well":
            raise revocation_unavailable(_REFUSALS.get(verdict, verdict))
        return _revocations(found)

    def spent_count(self) -> int:
        """How many one-time ids are remembered."""
        with self._talking(replay_store_unavailable) as talk:
            # The marker is no entry.
            return int(talk.ask("ZCARD", self._keys[1])) - 1

    def check(self) -> None:
        """
        Look after the store, and write for real: a server that can be read may not take anything.

        This is also what lets go of what is over, finds that an epoch began, and gives back what the store
        forgot. It raises as well while what was issued lately is refused for that reason.
        """
        with self._tending:
            try:
                tended = self._tend()
            except ValkeyFault as fault:
                raise replay_store_unavailable(f"state: {fault.detail}") from None
        if tended.now <= tended.began + max(self._leeway, SETTLING - 1):
            raise replay_store_unavailable("state: it began anew just now")
        difference = abs(tended.now - self._now()) if self._is_server_time else 0
        if difference > max(self._leeway, _CLOSEST.total_seconds()):
            raise replay_store_unavailable(f"state: its clock differs by {difference} s")

    def close(self) -> None:
        self._primary.close()

    def _open(self) -> None:
        """Look at the store for the first time; one that is away is waited for."""
        try:
            with self._tending:
                self._tend()
        except ValkeyFault as fault:
            if self._doubt.startswith(_POLICY):
                self._primary.close()
                raise StateRefused(f"the state store cannot be used: {self._doubt}") from None
            _log.warning("state_away", detail=fault.detail)

    def _tend(self) -> _Tended:
        try:
            self._primary.look_again()
        except ValkeyFault as fault:
            # There may be another primary, so nothing is answered until this is known.
            self._doubt = fault.detail
            raise
        self._look_at_server()
        try:
            tended = self._tend_once()
        except _EpochChanged:
            self._join()
            tended = self._tend_once()
        with self._primary.conversation() as talk:
            self._run(talk, WRITE)
        return tended

    def _look_at_server(self) -> None:
        """Refuse a server that forgets on purpose; say once that one forgets when it ends."""
        with self._primary.conversation() as talk:
            facts = _facts(talk.ask("INFO", "memory", "persistence"))
        policy = facts.get("maxmemory_policy", "unknown")
        if policy != _NO_EVICTION:
            self._doubt = f"{_POLICY} is {policy}; it must be {_NO_EVICTION}"
            raise ValkeyFault(self._doubt)
        self._doubt = ""
        if facts.get("aof_enabled") != "1" and not self._has_warned:
            self._has_warned = True
            _log.warning("state_not_on_disk", detail="appendonly is off")

    def _tend_once(self) -> _Tended:
        known = self._known
        with self._primary.conversation() as talk:
            life = int(LONGEST_INPUT_LIFETIME.total_seconds()) + self._leeway
            _, found = self._run_known(
                talk, TEND, everything_key(), self._leeway, life, known=known
            )
        now, began, whole, seen, is_over = found
        tended = _Tended(int(now), int(began), int(seen), is_whole=bool(whole) and bool(is_over))
        self._known = _Known(known.epoch, tended.seen)
        if tended.is_whole:
            self._copy_news(tended.now)
        return tended

    def _copy_news(self, now: int) -> None:
        while True:
            with self._primary.conversation() as talk:
                after = self._copy.last_number
                verdict, found = self._run_known(talk, TELL, after, _PAGE, known=self._known)
            if verdict != "well":
                return
            page = _revocations(found)
            self._copy.take(page)
            if len(page) < _PAGE:
                self._copy.finish_look(now=now)
                break
        self._give(self._copy.unseen(), self._known)

    def _join(self) -> None:
        """Be in the epoch that is, or begin one, and give the store what this process knows."""
        before = self._known
        with self._primary.conversation() as talk:
            _, found = self._run_known(
                talk, BEGIN, secrets.token_hex(16), self._now(), known=before
            )
        epoch, cause = found[0].decode(), found[1].decode()
        held, is_whole = self._copy.entries(), self._copy.is_whole
        if cause:
            _log.warning("state_began_anew", cause=cause, known=len(held), is_whole=is_whole)
        known = _Known(epoch, before.seen)
        self._give(held, known)
        if is_whole:
            with self._primary.conversation() as talk:
                self._run_known(talk, VOUCH, known=known)
        self._copy.begin_anew()
        self._known = known

    def _give(self, held: Sequence[Revocation], known: _Known) -> None:
        """Withdraw again what the store may not know, or not any more."""
        for begin in range(0, len(held), _PAGE):
            with self._primary.conversation() as talk:
                page = held[begin : begin + _PAGE]
                self._record(talk, page, is_told_again=True, known=known)

    def _confirm(self, talk: Conversation) -> None:
        """Return once so many replicas have it too."""
        if self._replicas == 0:
            return
        patience = max(1, int((talk.remaining - _ROUNDING) * 1000))
        if int(talk.ask("WAIT", self._replicas, patience)) < self._replicas:
            raise ValkeyFault("too few replicas have it", is_answer=True)

    @contextmanager
    def _talking(self, unavailable: Unavailable) -> Iterator[Conversation]:
        """A conversation for a request; what goes wrong in it becomes ``TemporarilyUnavailable``."""
        if self._doubt:
            raise unavailable(f"state: {self._doubt}")
        try:
            with self._primary.conversation() as talk:
                yield talk
        except ValkeyFault as fault:
            raise unavailable(f"state: {fault.detail}") from None

    def _run(
        self,
        talk: Conversation,
        script: Script,
        *arguments: bytes | str | int,
        known: _Known | None = None,
    ) -> tuple[str, list[Reply]]:
        """Run a script for a request, which does not wait until a changed epoch is joined."""
        try:
            return self._run_known(talk, script, *arguments, known=known or self._known)
        except _EpochChanged:
            raise ValkeyFault("it may have forgotten something", is_answer=True) from None

    def _run_known(
        self, talk: Conversation, script: Script, *arguments: bytes | str | int, known: _Known
    ) -> tuple[str, list[Reply]]:
        """What a script says, and with it; raises ``_EpochChanged``."""
        now = "" if self._is_server_time else self._now()
        rest = (len(self._keys), *self._keys, now, known.epoch, known.seen, *arguments)
        try:
            reply = talk.ask("EVALSHA", script.digest, *rest)
        except ValkeyFault as fault:
            if fault.detail != "NOSCRIPT":
                raise
            reply = talk.ask("EVAL", script.text, *rest)
        verdict = reply[0].decode()
        if verdict == "replica":
            raise ValkeyFault("READONLY", is_answer=True)
        if verdict in _CHANGED:
            raise _EpochChanged
        return verdict, reply[1:]


_POLICY: Final = "maxmemory-policy"
_REFUSALS: Final = {
    "clock": CLOCK_WENT_BACK,
    "fenced": "state: it was issued before the store began anew",
    "full": "state: full",
    "settling": "state: it began anew just now",
}


def _facts(reply: Reply) -> dict[str, str]:
    """What ``INFO`` tells, by its names."""
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _revocations(found: Sequence[bytes]) -> list[Revocation]:
    """Keys and what is held under them, in turn."""
    return [_revocation(key, value) for key, value in zip(found[::2], found[1::2], strict=True)]


def _revocation(key: bytes, value: bytes) -> Revocation:
    last, first_issued, last_issued, number = map(int, value.split())
    return Revocation(number, key, first_issued, last_issued, last + REVOCATION_GRACE)
