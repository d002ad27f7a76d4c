"""What looks after a shared state: which epoch it is in, what is over, and what it may have forgotten."""

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from broker.endpoints.withdrawal import LONGEST_INPUT_LIFETIME
from broker.interfaces import Now
from broker.model import Revocation
from broker.state.copied import RevocationCopy
from broker.state.entries import REVOCATION_GRACE, everything_key, revocation_unavailable
from broker.state.valkey_link import Reply, ValkeyFault, reading
from broker.state.valkey_primary import Conversation, Primary
from broker.state.valkey_scripts import (
    BEGIN,
    REFUSALS,
    REVOKE,
    TELL,
    TEND,
    VOUCH,
    WRITE,
    Script,
    settled_after,
)

DEFAULT_CAPACITY: Final = 10_000_000
PAGE: Final = 500
"""How many revocations travel at once."""

_NO_EVICTION: Final = "noeviction"
_POLICY: Final = "maxmemory-policy"
_CHANGED: Final = frozenset({"lost", "moved", "older", "other"})
"""What a script says when the store may not remember what it did."""
_WHY: Final = {
    "lost": "something of ours is missing there, as at a first start, or after a flush",
    "moved": "the server started again, or another one leads",
    "older": "it knows less than it did, as after a restored backup",
}
"""Why the state begins anew, by the words of the scripts."""

_log = structlog.get_logger("broker.state")


@dataclass(frozen=True, slots=True)
class StoreTerms:
    """How the keys begin, how many replicas must have what is acknowledged, and how much is held."""

    prefix: str = "broker"
    replicas: int = 0
    capacity: int = DEFAULT_CAPACITY


@dataclass(frozen=True, slots=True)
class Known:
    """The epoch that this process is in, and the latest second that it saw in it."""

    epoch: str = ""
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Tended:
    """How the store stands: the second that it is there, and when its epoch began."""

    now: int
    began: int
    is_whole: bool


class EpochChanged(ValkeyFault):
    """The store may have forgotten something, or another process found that it had."""

    def __init__(self) -> None:
        super().__init__("it may have forgotten something", is_answer=True)


class Keeper:
    """
    Runs scripts over the keys of one deployment, and keeps a process in step with their epoch.

    ``doubt`` is why nothing may be answered although the server answers; it is empty when there is no
    reason. The server's own clock decides, or ``now`` if not ``is_server_time``.
    """

    def __init__(
        self,
        primary: Primary,
        terms: StoreTerms,
        *,
        now: Now,
        leeway: timedelta,
        is_server_time: bool,
    ) -> None:
        self.doubt = "nobody has looked at the store yet"
        self._primary = primary
        names = ("facts", "spent", "revoked", "numbers", "ends")
        self.keys = tuple(f"{{{terms.prefix}}}:{name}" for name in names)
        self._capacity = terms.capacity
        self._now = now
        self._leeway = int(leeway.total_seconds())
        self._is_server_time = is_server_time
        self._known = Known()
        self._copy = RevocationCopy()
        self._tending = threading.Lock()
        self._has_warned = False

    @property
    def is_evicting(self) -> bool:
        """Whether the server was found to forget on purpose."""
        return self.doubt.startswith(_POLICY)

    def run(
        self,
        talk: Conversation,
        script: Script,
        *arguments: bytes | str | int,
        known: Known | None = None,
    ) -> tuple[str, list[Reply]]:
        """
        What a script says in a word, and with it.

        Raises ``ValkeyFault``, and ``EpochChanged`` for a store that is not the one known.
        """
        known = known or self._known
        now = "" if self._is_server_time else self._now()
        asked = (len(self.keys), *self.keys, now, known.epoch, known.seen, *arguments)
        try:
            reply = talk.ask("EVALSHA", script.digest, *asked)
        except ValkeyFault as fault:
            if fault.detail != "NOSCRIPT":
                raise
            reply = talk.ask("EVAL", script.text, *asked)
        word, rest = reply[0].decode(), reply[1:]
        if word == "replica":
            raise ValkeyFault("READONLY", is_answer=True)
        if word in _CHANGED:
            raise EpochChanged
        return word, rest

    def record(self, talk: Conversation, revocation: Revocation) -> None:
        """
        Withdraw something, and remember to withdraw it again should the store forget it.

        Raises ``TemporarilyUnavailable`` where there is no room.
        """
        self._record(talk, [revocation], is_told_again=False, known=self._known)
        self._copy.add(revocation)

    def tend(self) -> Tended:
        """
        Look at the server, be in the epoch that is, let go of what is over, and write for real.

        Raises ``ValkeyFault``.
        """
        with self._tending, reading():
            self._look_for_primary()
            self._look_at_server()
            try:
                tended = self._tend()
            except EpochChanged:
                self._join()
                tended = self._tend()
            with self._primary.conversation() as talk:
                self.run(talk, WRITE)
            return tended

    def _look_for_primary(self) -> None:
        try:
            self._primary.look_again()
        except ValkeyFault as fault:
            # There may be another, so nothing is answered until this is known.
            self.doubt = fault.detail
            raise

    def _look_at_server(self) -> None:
        """Doubt a server that forgets on purpose; say once that one forgets when it ends."""
        with self._primary.conversation() as talk:
            facts = _facts(talk.ask("INFO", "memory", "persistence"))
        policy = facts.get("maxmemory_policy", "unknown")
        if policy != _NO_EVICTION:
            self.doubt = f"{_POLICY} is {policy}; it must be {_NO_EVICTION}"
            raise ValkeyFault(self.doubt)
        self.doubt = ""
        if facts.get("aof_enabled") != "1" and not self._has_warned:
            self._has_warned = True
            _log.warning("state_not_on_disk", detail="appendonly is off")

    def _tend(self) -> Tended:
        known = self._known
        life = int(LONGEST_INPUT_LIFETIME.total_seconds()) + self._leeway
        with self._primary.conversation() as talk:
            _, found = self.run(talk, TEND, everything_key(), self._leeway, life, known=known)
        now, began, whole, seen, is_over = found
        self._known = Known(known.epoch, int(seen))
        tended = Tended(int(now), int(began), is_whole=bool(whole) and bool(is_over))
        if tended.is_whole:
            self._copy_news(tended.now)
        return tended

    def _copy_news(self, now: int) -> None:
        """Take in what was withdrawn since the last look; what was withdrawn here must be among it."""
        while True:
            with self._primary.conversation() as talk:
                word, found = self.run(talk, TELL, self._copy.last_number, PAGE)
            if word != "well":
                return
            page = read_revocations(found)
            self._copy.take(page)
            if len(page) < PAGE:
                break
        self._copy.finish_look(now=now)
        self._give(self._copy.unseen(), self._known)

    def _join(self) -> None:
        """Be in the epoch that is, or begin one, and give the store what this process knows."""
        before = self._known
        with self._primary.conversation() as talk:
            _, found = self.run(talk, BEGIN, secrets.token_hex(16), self._now(), known=before)
        epoch, cause = found[0].decode(), found[1].decode()
        held, is_whole = self._copy.entries(), self._copy.is_whole
        if cause:
            _log.warning(
                "state_began_anew",
                cause=cause,
                why=_WHY.get(cause, ""),
                ready_in=f"{settled_after(self._leeway)} s",
                known=len(held),
                is_whole=is_whole,
            )
        known = Known(epoch, before.seen)
        self._give(held, known)
        if is_whole:
            with self._primary.conversation() as talk:
                self.run(talk, VOUCH, known=known)
        self._copy.begin_anew()
        # Until here whoever asks is told that the epoch is another one.
        self._known = known

    def _give(self, held: Sequence[Revocation], known: Known) -> None:
        """Withdraw again what the store may not know, or not any more."""
        for begin in range(0, len(held), PAGE):
            with self._primary.conversation() as talk:
                page = held[begin : begin + PAGE]
                self._record(talk, page, is_told_again=True, known=known)

    def _record(
        self,
        talk: Conversation,
        revocations: Sequence[Revocation],
        *,
        is_told_again: bool,
        known: Known,
    ) -> None:
        facts: list[bytes | int] = []
        for one in revocations:
            last = one.kept_until - REVOCATION_GRACE
            facts += (one.key, last, one.issued_since, one.issued_until)
        told_again = int(is_told_again)
        word, _ = self.run(talk, REVOKE, self._capacity, told_again, *facts, known=known)
        if word != "well":
            raise revocation_unavailable(REFUSALS[word])


def read_revocations(found: Sequence[Reply]) -> list[Revocation]:
    """Keys and what is held under them, in turn."""
    return [_revocation(key, value) for key, value in zip(found[::2], found[1::2], strict=True)]


def _revocation(key: bytes, value: bytes) -> Revocation:
    last, first_issued, last_issued, number = map(int, value.split())
    return Revocation(number, key, first_issued, last_issued, last + REVOCATION_GRACE)


def _facts(reply: Reply) -> dict[str, str]:
    """What ``INFO`` tells, by its names."""
    lines = reply.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
