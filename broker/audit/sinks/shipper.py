"""Ships what the files hold to every sink that has not taken it, however long the sink was away."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from broker.audit.chain import Head
from broker.audit.durable import read_head
from broker.audit.follow import Follower, Line, Position
from broker.audit.gaps import next_beginning
from broker.audit.sinks.delivery import Delivery
from broker.audit.sinks.destination import MOST_BYTES, MOST_LINES, Sink, SinkFailed
from broker.audit.sinks.positions import Reached, ReachedFile, reached_path, read_reached
from broker.errors import Reason, TemporarilyUnavailable
from broker.fetch.deadline import Deadline

_LONGEST_PAUSE: Final = 300.0
_LONGEST_WAIT: Final = 30.0
_PATIENCE: Final = 10.0

_log = structlog.get_logger("broker.audit.sinks")


@dataclass(frozen=True, slots=True)
class Shipped:
    """A sink to ship to; to a required one goes only what no writer has delivered itself."""

    sink: Sink
    is_required: bool = False


class Shipper:
    """
    Follows all chains of a directory for each sink, in a thread for each, from where that sink was last.

    A sink that is new gets everything that the files hold. Each line is given at least once, in the order of
    its chain; where a chain no longer fits, what is behind the gap is shipped from the next segment on. The
    files are the only backlog. ``interval`` is how often there is a look, and ``timeout`` how long a sink may
    take over a part, in seconds.
    """

    def __init__(
        self,
        directory: Path,
        sinks: Sequence[Shipped],
        *,
        timeout: float = 10.0,
        interval: float = 0.5,
        patience: float = _PATIENCE,
    ) -> None:
        self._directory = directory
        self._stopping = threading.Event()
        self._routes = [
            Route(directory, one, timeout=timeout, patience=patience if one.is_required else None)
            for one in sinks
        ]
        self._threads = [
            threading.Thread(
                target=route.run, args=(self._stopping, interval), name="audit-sink", daemon=True
            )
            for route in self._routes
        ]
        self._timeout = timeout

    def begin(self) -> None:
        """Start to ship."""
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise ``TemporarilyUnavailable`` where a thread has ended; a sink that is away is no such fault."""
        if not self._stopping.is_set() and not all(one.is_alive() for one in self._threads):
            raise TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE, detail="a shipper has ended")

    def backlogs(self) -> Mapping[str, int]:
        """How many durable records each sink has not taken yet, by its name, as far as writers tell."""
        return {route.name: route.backlog() for route in self._routes}

    def ask_to_end(self) -> None:
        """Have the last look begun."""
        self._stopping.set()

    def close(self, *, within: float | None = None) -> None:
        """
        Stop, after one more look, so that the records of the end are shipped where the sink is there.

        All sinks together are waited for so many seconds; usually for as long as one may take.
        """
        self._stopping.set()
        until = time.monotonic() + (self._timeout + 1 if within is None else within)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(until - time.monotonic(), 0))


class Route:
    """One sink, and how far it has come in each chain."""

    def __init__(
        self, directory: Path, shipped: Shipped, *, timeout: float, patience: float | None
    ) -> None:
        self.name = shipped.sink.name
        self._directory = directory
        self._delivery = Delivery(shipped.sink, longest_pause=_LONGEST_PAUSE)
        self._timeout = timeout
        self._patience = patience
        self._follower = Follower(directory)
        # What was read is not shipped yet, so the follower is ahead of what is told here.
        self._shipped: dict[str, Position] = {}
        self._files: dict[str, ReachedFile] = {}
        self._stalled: dict[str, tuple[int, float]] = {}

    def run(self, stopping: threading.Event, interval: float) -> None:
        """Ship until told to stop, and then once more."""
        wait, is_last = interval, False
        while not is_last:
            is_last = stopping.wait(wait)
            try:
                self.ship()
                wait = interval
            except SinkFailed:
                # Scattered pauses are of no use here: there is one shipper for each sink.
                wait = min(wait * 2, _LONGEST_WAIT)
            except Exception:  # noqa: BLE001 - the thread outlives whatever it was.
                _log.exception("audit_sink_route_failed", sink=self.name)
                wait = min(wait * 2, _LONGEST_WAIT)
        self._delivery.close()
        for file in self._files.values():
            file.close()

    def ship(self) -> None:
        """Ship everything that there is. Raises ``SinkFailed``, or ``OSError`` for unreadable files."""
        unreadable: OSError | None = None
        for writer in self._writers():
            try:
                self._ship_chain(writer)
            except OSError as failure:
                # What is wrong with the files of one chain keeps no other from being shipped.
                unreadable = failure
        if unreadable is not None:
            raise unreadable

    def _ship_chain(self, writer: str) -> None:
        self._load(writer)
        is_due = self._is_due(writer)
        while is_due:
            is_due = self._ship_part(writer)
        if writer in self._follower.faults:
            self._pass_over_gap(writer)

    def backlog(self) -> int:
        """How many records are durable and not shipped, as far as the writers tell."""
        count = 0
        for writer in self._writers():
            told = read_head(self._directory, writer)
            seq = self._reached(writer).head.seq
            count += max((told.seq if told else 0) - seq, 0)
        return count

    def _writers(self) -> Sequence[str]:
        try:
            return self._follower.writers()
        except FileNotFoundError:
            return []

    def _load(self, writer: str) -> None:
        if writer not in self._files:
            path = reached_path(self._directory, sink=self.name, writer=writer, by="shipper")
            reached = read_reached(path)
            self._shipped[writer] = reached.position if reached is not None else Position()
            self._files[writer] = ReachedFile(path)

    def _reached(self, writer: str) -> Position:
        """How far the sink has come, by whoever brought it there."""
        position = self._shipped.get(writer)
        if position is None:
            path = reached_path(self._directory, sink=self.name, writer=writer, by="shipper")
            stored = read_reached(path)
            position = stored.position if stored else Position()
        own = self._by_writer(writer)
        if own is not None and own.since <= position.head.seq < own.position.head.seq:
            return own.position
        return position

    def _by_writer(self, writer: str) -> Reached | None:
        """What the writer has delivered itself, to a required sink."""
        if self._patience is None:
            return None
        return read_reached(
            reached_path(self._directory, sink=self.name, writer=writer, by="writer")
        )

    def _is_due(self, writer: str) -> bool:
        """Whether the rest of a chain is to be shipped; a writer has first say in what it delivers itself."""
        if self._patience is None:
            return True
        position = self._reached(writer)
        if position != self._shipped[writer]:
            self._keep(writer, position)
        told = read_head(self._directory, writer)
        if told is not None and told.seq <= position.head.seq:
            self._stalled.pop(writer, None)
            return False
        seq, since = self._stalled.get(writer, (-1, 0.0))
        if seq != position.head.seq:
            self._stalled[writer] = (position.head.seq, time.monotonic())
            return False
        return time.monotonic() - since >= self._patience

    def _ship_part(self, writer: str) -> bool:
        """Ship some more of a chain, and tell whether there was any more."""
        before = self._shipped[writer]
        part = self._read(writer)
        done = 0
        try:
            while done < len(part):
                deadline = Deadline.after(self._timeout)
                done += self._delivery.give([one.content for one in part[done:]], deadline)
        finally:
            if part:
                self._keep(writer, _after(part[:done], before))
                self._stalled.pop(writer, None)
        return bool(part)

    def _read(self, writer: str) -> Sequence[Line]:
        part: list[Line] = []
        size = 0
        self._follower.positions[writer] = self._shipped[writer]
        for line in islice(self._follower.lines(writer), MOST_LINES):
            part.append(line)
            size += len(line.content) + 1
            if size >= MOST_BYTES:
                break
        return part

    def _keep(self, writer: str, position: Position) -> None:
        self._shipped[writer] = position
        self._files[writer].tell(Reached(0, position), is_synced=True)

    def _pass_over_gap(self, writer: str) -> None:
        """Go on after the place where a chain no longer fits, once a later segment has begun."""
        fault = self._follower.faults[writer]
        position = self._shipped[writer]
        beginning = next_beginning(self._directory, writer, position)
        if beginning is not None:
            del self._follower.faults[writer]
            self._keep(writer, beginning)
            _log.error(
                "audit_sink_gap",
                sink=self.name,
                chain=writer,
                wrong=str(fault.wrong),
                from_seq=position.head.seq,
                to_seq=beginning.head.seq,
            )


def _after(part: Sequence[Line], before: Position) -> Position:
    if not part:
        return before
    last = part[-1]
    return Position(last.number, last.offset + len(last.content) + 1, Head(last.seq + 1, last.hash))
