"""The sinks that every answer waits for."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.audit.follow import Position
from broker.audit.sinks.delivery import Delivery
from broker.audit.sinks.destination import Sink, SinkFailed
from broker.audit.sinks.positions import Reached, ReachedFile, reached_path
from broker.fetch.deadline import Deadline

# Longer than that nobody is kept from trying, whatever a collector asks for: requests are being refused.
_LONGEST_PAUSE: Final = 5.0


class RequiredSinks:
    """
    Takes what has become durable of one chain, and gives it to every required sink.

    What a sink does not take is kept for the next time; that is never more than one batch, since nothing is
    written meanwhile. How far each has come is told to the shipper in a file, so that it delivers what this
    process could not. ``timeout`` is in seconds. For one thread.
    """

    def __init__(
        self, sinks: Sequence[Sink], directory: Path, *, writer: str, timeout: float
    ) -> None:
        self._timeout = timeout
        self._ways = [
            _Way(
                Delivery(sink, longest_pause=_LONGEST_PAUSE),
                ReachedFile(reached_path(directory, sink=sink.name, writer=writer, by="writer")),
            )
            for sink in sinks
        ]

    def note(self, data: bytes, since: int, position: Position) -> None:
        """Lines that are on disk now, from record ``since`` on, and where the chain goes on after them."""
        if self._ways:
            lines = data.split(b"\n")[:-1]
            for way in self._ways:
                way.note(lines, since, position)

    def deliver(self) -> None:
        """Return once every sink has taken everything. Raises ``SinkFailed``, at the deadline at last."""
        deadline = Deadline.after(self._timeout)
        failures = []
        for way in self._ways:
            try:
                way.deliver(deadline)
            except SinkFailed as failed:
                failures.append(f"sink {way.name}: {failed.reason}")
        if failures:
            raise SinkFailed(", ".join(failures))

    def close(self) -> None:
        """Try once more to give what is left, and let go of everything."""
        with suppress(SinkFailed):
            self.deliver()
        for way in self._ways:
            way.close()


class _Way:
    """One sink and what it has not taken yet."""

    def __init__(self, delivery: Delivery, file: ReachedFile) -> None:
        self._delivery = delivery
        self._file = file
        self._waiting: deque[bytes] = deque()
        self._since: int | None = None
        self._position = Position()

    @property
    def name(self) -> str:
        return self._delivery.name

    def note(self, lines: Sequence[bytes], since: int, position: Position) -> None:
        if self._since is None:
            self._since = since
        self._waiting.extend(lines)
        self._position = position

    def deliver(self, deadline: Deadline) -> None:
        if not self._waiting or self._since is None:
            return
        while self._waiting:
            for _ in range(self._delivery.give(list(self._waiting), deadline)):
                self._waiting.popleft()
        self._file.tell(Reached(self._since, self._position))

    def close(self) -> None:
        self._delivery.close()
        self._file.close()
