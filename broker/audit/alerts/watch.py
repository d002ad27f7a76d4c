"""Follows the record for the sake of alerts, and remembers across restarts what rules have learnt."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.rule import Status
from broker.audit.chain import Head
from broker.audit.follow import Follower, Position
from broker.audit.gaps import next_beginning
from broker.audit.record import RECORD_DECODER
from broker.audit.replacing import replace_file
from broker.audit.segments import regular
from broker.errors import Reason, TemporarilyUnavailable

_FILE: Final = "alerts.json"
_LARGEST_FILE: Final = 64 * 1024 * 1024
_KEEP_INTERVAL: Final = 60.0

_log = structlog.get_logger("broker.audit.alerts")


class _Place(Struct, frozen=True):
    number: int
    offset: int
    seq: int
    prev: str


class _Kept(Struct):
    """What is kept in the file."""

    places: dict[str, _Place]
    rules: dict[str, list[str]]


_DECODER: Final = msgspec.json.Decoder(_Kept)


class AlertWatch:
    """
    Shows every durable record of a directory to the rules, in a thread of its own.

    ``status`` is asked about once a second how things stand; what the chains themselves show is added to
    it. Where nothing is remembered, the rules learn from what the files hold, and alert of what comes after.
    """

    def __init__(
        self,
        directory: Path,
        alerts: Alerts,
        *,
        status: Callable[[], Status] = lambda: Status(time.time()),
        interval: float = 1.0,
    ) -> None:
        self._directory = directory
        self._alerts = alerts
        self._status = status
        self._interval = interval
        self._follower = Follower(directory)
        self._damaged: dict[str, str] = {}
        self._unreadable: dict[str, str] = {}
        # Of these, what is in the files is still of the past.
        self._unlearnt: set[str] = set()
        self._is_past = True
        self._kept_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-alerts", daemon=True)

    def begin(self) -> None:
        """Start to look."""
        self._thread.start()

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` when nobody looks any more."""
        if not self._stopping.is_set() and not self._thread.is_alive():
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail="alerts have ended")

    def ask_to_end(self) -> None:
        """Have the last look begun."""
        self._stopping.set()

    def close(self, *, within: float = 10.0) -> None:
        """Stop, after one more look that is waited for so many seconds, and keep what was learnt."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(within)

    def _run(self) -> None:
        self._recall()
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(self._interval)
            try:
                self._look()
            except Exception:  # noqa: BLE001 - the thread outlives whatever it was.
                _log.exception("audit_alerts_failed")
        self._keep()

    def _look(self) -> None:
        self._read_all()
        status = self._status()
        damaged = {**self._damaged, **self._unreadable, **status.damaged}
        self._alerts.look(replace(status, damaged=damaged))
        if time.monotonic() - self._kept_at > _KEEP_INTERVAL:
            self._keep()

    def _read_all(self) -> None:
        unreadable = {}
        for writer in self._writers():
            try:
                self._read_chain(writer)
            except FileNotFoundError:
                # It was removed just now; the next look tells what that means.
                continue
            except OSError as failure:
                # What is wrong with the files of one chain keeps no other from being looked at.
                unreadable[writer] = f"it cannot be read: {failure.strerror}"
        unlearnt = {one for one in unreadable if self._is_past or one in self._unlearnt}
        self._unreadable, self._unlearnt, self._is_past = unreadable, unlearnt, False

    def _writers(self) -> Sequence[str]:
        try:
            return self._follower.writers()
        except FileNotFoundError:
            return []

    def _read_chain(self, writer: str) -> None:
        self._read(writer)
        while self._goes_on(writer):
            self._read(writer)

    def _read(self, writer: str) -> None:
        is_past = self._is_past or writer in self._unlearnt
        for line in self._follower.lines(writer):
            # A record of another version, with other members, is nothing to judge.
            with suppress(msgspec.DecodeError, RecursionError):
                self._alerts.see(RECORD_DECODER.decode(line.content), is_past=is_past)

    def _goes_on(self, writer: str) -> bool:
        """Whether a chain that no longer fits can be taken up again."""
        fault = self._follower.faults.get(writer)
        if fault is None:
            return False
        self._damaged[writer] = str(fault.wrong)
        position = self._follower.positions.get(writer, Position())
        beginning = next_beginning(self._directory, writer, position)
        if beginning is not None:
            del self._follower.faults[writer]
            self._follower.positions[writer] = beginning
        return beginning is not None

    def _recall(self) -> None:
        try:
            with open(self._directory / _FILE, "rb", opener=regular) as file:
                kept = _DECODER.decode(file.read(_LARGEST_FILE))
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as failure:
            _log.warning("audit_alerts_memory_lost", reason=type(failure).__name__)
            return
        self._alerts.recall(kept.rules)
        for writer, place in kept.places.items():
            head = Head(place.seq, place.prev)
            self._follower.positions[writer] = Position(place.number, place.offset, head)
        self._is_past = False

    def _keep(self) -> None:
        self._kept_at = time.monotonic()
        content = msgspec.json.encode(
            _Kept(_places(self._follower.positions), _listed(self._alerts.memory()))
        )
        # What cannot be kept is learnt again.
        with suppress(OSError):
            replace_file(self._directory / _FILE, content, is_synced=True)


def _places(positions: Mapping[str, Position]) -> dict[str, _Place]:
    return {
        writer: _Place(one.number, one.offset, one.head.seq, one.head.prev)
        for writer, one in positions.items()
    }


def _listed(memory: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {name: list(lines) for name, lines in memory.items()}
