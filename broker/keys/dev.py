"""The embedded key store: private keys in files of one machine, for development and small sites."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.interfaces import Now, SigningKey
from broker.keys.book import KeyBook
from broker.keys.key_files import KeyFileRefused, KeyFiles, LocalSigningKey
from broker.keys.life import FoundKey, KeyLife, KeyState, Schedule
from broker.keys.record_file import FileRecord
from broker.keys.unavailable import signer_unavailable

DEV_SCHEDULE: Final = Schedule(
    publish_ahead=timedelta(minutes=5, seconds=45), keep_published=timedelta(minutes=20)
)
"""What fits the settings as they are when nothing is set."""

_LOGGER: Final = logging.getLogger(__name__)

_Stamp = tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is published and what signs, by algorithm, from one moment until before another."""

    published: tuple[LocalSigningKey, ...]
    signing: Mapping[str, LocalSigningKey]
    stamp: _Stamp
    since: int
    until: float

    def holds(self, now: int, stamp: _Stamp) -> bool:
        return self.stamp == stamp and stamp is not None and self.since <= now < self.until


class DevKeyStore:
    """
    Private keys of each algorithm, as PKCS#8 PEM in a directory that only its owner can read.

    The first key of an algorithm is made where there is none. Several processes may start on one
    directory at once: one key wins and all of them use it. Later keys and the record of their lives are
    made by others; every call sees them at once, since it looks whether the directory has changed.
    While the directory cannot be used nothing is signed, and the last good keys stay published until
    all that they signed is dead.
    Raises ``KeyFileRefused`` when the directory or a file in it can be read by others, belongs to
    somebody else, or holds anything but a key fit for its algorithm, or a record.
    """

    def __init__(
        self,
        directory: Path,
        *,
        algorithms: Sequence[str] = ("ES256",),
        schedule: Schedule = DEV_SCHEDULE,
        now: Now = lambda: int(time.time()),
    ) -> None:
        self._files = KeyFiles(directory)
        self._places = str(directory), str(directory / FileRecord.NAME)
        self._algorithms = tuple(algorithms)
        self._book = KeyBook(schedule, now=now, records=FileRecord(directory))
        self._now = now
        self._loaded: dict[tuple[str, int], LocalSigningKey] = {}
        self._turn = threading.Lock()
        self._is_closed = False
        self._fault = ""
        self._read_at = now()
        for algorithm in self._algorithms:
            if not self._files.numbers(algorithm):
                self._files.make(algorithm, 1)
        self._chosen = self._choose(self._stamp(), signed={})

    def signing_key(self, algorithm: str) -> SigningKey:
        if self._is_closed:
            raise signer_unavailable("the key store is closed")
        if algorithm not in self._algorithms:
            raise LookupError(f"no key is configured for {algorithm}")
        signing = self._current().signing
        if self._fault:
            raise signer_unavailable(self._fault)
        if algorithm not in signing:
            raise signer_unavailable("no key has been published for long enough")
        return signing[algorithm]

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        chosen = self._chosen if self._is_closed else self._current()
        if self._fault and self._book.is_outdated(self._read_at):
            return []
        return [key.published.members() for key in chosen.published]

    def fresh_for(self) -> int:
        return self._book.fresh_for(self._read_at if self._fault else self._now())

    def close(self) -> None:
        with self._turn:
            self._is_closed = True
            self._loaded = {}
            self._chosen = _Chosen(self._chosen.published, {}, None, 0, 0)

    def _current(self) -> _Chosen:
        """What counts now, read anew if the directory has changed or a moment has come."""
        now = self._now()
        if self._chosen.holds(now, self._stamp()):
            self._read_at = now
            return self._chosen
        with self._turn:
            # It is looked at before it is read: a change in between is then seen at the next call.
            stamp = self._stamp()
            if not self._is_closed and not self._chosen.holds(self._now(), stamp):
                self._refresh(stamp)
            return self._chosen

    def _refresh(self, stamp: _Stamp) -> None:
        before = self._chosen
        signed = {algorithm: key.kid for algorithm, key in before.signing.items()}
        try:
            self._chosen = self._choose(stamp, signed=signed)
            self._fault, self._read_at = "", self._now()
            _tell_changes(before, self._chosen)
        except KeyFileRefused:
            self._fault = "the directory of the keys cannot be used"
        except TemporarilyUnavailable as error:
            self._fault = error.detail

    def _stamp(self) -> _Stamp:
        """What is different after every change of the directory or of the record in it."""
        folder, record = self._places
        try:
            # It is asked at every signature, and a Path would take ten times as long to answer.
            status = os.stat(folder)  # noqa: PTH116 -- see above.
            try:
                recorded = os.stat(record)  # noqa: PTH116 -- the same.
            except FileNotFoundError:
                return (status.st_ctime_ns,)
        except OSError:
            return None
        return status.st_ctime_ns, recorded.st_ctime_ns, recorded.st_ino

    def _choose(self, stamp: _Stamp, *, signed: Mapping[str, str]) -> _Chosen:
        self._book.look()
        now = self._now()
        published: list[LocalSigningKey] = []
        signing: dict[str, LocalSigningKey] = {}
        moments: list[int] = []
        for algorithm in self._algorithms:
            found = self._found(algorithm)
            for life in self._book.lives(
                algorithm, list(found.values()), signed=signed.get(algorithm)
            ):
                moments.extend(_moments(life))
                if life.is_published and life.entry.kid in found:
                    published.append(found[life.entry.kid])
                    if life.state is KeyState.ACTIVE:
                        signing[algorithm] = found[life.entry.kid]
        # Whatever is not needed any more is forgotten here.
        self._loaded = {key.place: key for key in published}
        until = min((moment for moment in moments if moment > now), default=float("inf"))
        return _Chosen(tuple(published), signing, stamp, now, until)

    def _found(self, algorithm: str) -> Mapping[str, LocalSigningKey]:
        numbers = self._files.numbers(algorithm)
        known = (
            self._loaded.get((algorithm, number)) or self._files.load(algorithm, number)
            for number in numbers
        )
        return {key.kid: key for key in known if key is not None}


def _tell_changes(before: _Chosen, after: _Chosen) -> None:
    """Log which keys have come and gone, and which sign now."""
    was, now = ({key.kid for key in one.published} for one in (before, after))
    for kid in sorted(now - was):
        _LOGGER.info("key %s is published", kid)
    for kid in sorted(was - now):
        _LOGGER.info("key %s is published no more", kid)
    for algorithm, key in after.signing.items():
        former = before.signing.get(algorithm)
        if former is None or former.kid != key.kid:
            _LOGGER.info("%s is signed with key %s", algorithm, key.kid)


def _moments(life: KeyLife) -> list[int]:
    found = (life.entry.activates_at, life.leaves_at)
    return [moment for moment in found if moment is not None]


@dataclass(frozen=True, slots=True)
class _FoundFile:
    """A key in a file, without its private half."""

    number: int
    kid: str
    created_at: int


class DevKeySmith:
    """Makes embedded keys, and deletes those that are gone. No private key is kept in memory."""

    def __init__(self, directory: Path) -> None:
        self._files = KeyFiles(directory)
        self._known: dict[tuple[str, int], FoundKey] = {}

    def found(self, algorithm: str) -> Sequence[FoundKey]:
        """The keys that exist."""
        known = (
            (number, self._look(algorithm, number)) for number in self._files.numbers(algorithm)
        )
        found = {(algorithm, number): key for number, key in known if key is not None}
        others = {place: key for place, key in self._known.items() if place[0] != algorithm}
        self._known = {**others, **found}
        return list(found.values())

    def make(self, algorithm: str) -> None:
        """Make the next key."""
        self._files.make(algorithm, max(self._files.numbers(algorithm), default=0) + 1)

    def settle(self, algorithm: str, *, signs_from: int, gone: frozenset[int]) -> None:  # noqa: ARG002 -- a file signs nothing by itself.
        """Delete the keys that are gone."""
        self._files.drop(algorithm, gone.intersection(self._files.numbers(algorithm)))

    def _look(self, algorithm: str, number: int) -> FoundKey | None:
        known = self._known.get((algorithm, number))
        if known is not None:
            return known
        key = self._files.load(algorithm, number)
        return None if key is None else _FoundFile(number, key.kid, key.created_at)
