"""Giving lines to a sink: in bounded parts, and with the pauses it asks for."""

import time
from collections.abc import Sequence

import structlog

from broker.audit.sinks.destination import MOST_BYTES, MOST_LINES, Sink, SinkFailed
from broker.fetch.deadline import Deadline

_log = structlog.get_logger("broker.audit.sinks")


class Delivery:
    """
    The way to one sink, for one thread.

    ``longest_pause`` bounds, in seconds, what a sink can ask for.
    """

    def __init__(self, sink: Sink, *, longest_pause: float) -> None:
        self.name = sink.name
        self.failure = ""
        self._destination = sink.destination
        self._longest_pause = longest_pause
        self._most_lines = MOST_LINES
        self._paused_until = 0.0

    def give(self, lines: Sequence[bytes], deadline: Deadline) -> int:
        """
        Give as many of the lines as go at once, and tell how many those were: one at least.

        Raises ``SinkFailed``, at once while the sink has asked to be left alone.
        """
        if time.monotonic() < self._paused_until:
            raise SinkFailed(self.failure or "paused")
        part = first_part(lines, self._most_lines)
        try:
            self._destination.take(part, deadline)
        except SinkFailed as failed:
            self._fail(failed, len(part))
            raise
        self._mend()
        return len(part)

    def close(self) -> None:
        self._destination.close()

    def _fail(self, failed: SinkFailed, lines: int) -> None:
        pause = min(failed.retry_after, self._longest_pause)
        self._paused_until = time.monotonic() + pause
        if failed.is_too_much:
            self._most_lines = max(lines // 2, 1)
        if failed.reason != self.failure:
            _log.error("audit_sink_failed", sink=self.name, reason=failed.reason)
        self.failure = failed.reason

    def _mend(self) -> None:
        self._most_lines = min(self._most_lines * 2, MOST_LINES)
        if self.failure:
            _log.warning("audit_sink_works_again", sink=self.name, after=self.failure)
            self.failure = ""


def first_part(lines: Sequence[bytes], most: int) -> Sequence[bytes]:
    """The first lines, at most so many and within what is given at once; one at least."""
    size = 0
    for number, line in enumerate(lines[:most]):
        size += len(line) + 1
        if size > MOST_BYTES and number:
            return lines[:number]
    return lines[:most]
