"""What a second sink is, and how it fails."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from broker.fetch import FetchReason, FetchRefused
from broker.fetch.deadline import Deadline
from broker.fetch.wire import failures_as_refusals

MOST_LINES: Final = 512
"""No destination is given more lines at once."""
MOST_BYTES: Final = 1024 * 1024
"""Nor more bytes, unless one line alone has more."""


class SinkFailed(Exception):
    """
    A destination did not take what it was given, or nobody knows whether it did.

    ``reason`` is a word for logs that holds nothing a server sent. ``retry_after`` is for how many
    seconds it asks to be left alone. ``is_too_much`` says that fewer lines might be taken.
    """

    def __init__(self, reason: str, *, retry_after: float = 0.0, is_too_much: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        self.is_too_much = is_too_much


class ConnectionTorn(SinkFailed):
    """A connection could not be made, or ended before the answer."""


class Destination(Protocol):
    """
    Somewhere that lines of the record are given to, by one thread.

    ``take`` returns once all of the lines are taken, in the sense that the kind of destination has,
    and raises ``SinkFailed`` at the deadline at the latest; some or all may then have got there. It
    opens what it needs, again and again, and so raises nothing when it is made.
    """

    def take(self, lines: Sequence[bytes], deadline: Deadline) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sink:
    """A destination under the name that the operator gave it."""

    name: str
    destination: Destination


@contextmanager
def failures_as_sink_failures() -> Iterator[None]:
    """Turn everything that a connection can raise into ``SinkFailed``."""
    try:
        with failures_as_refusals():
            yield
    except FetchRefused as refused:
        if refused.reason is FetchReason.FAILED:
            # The detail is the name of an exception.
            raise ConnectionTorn(f"{refused.reason}: {refused.detail}") from None
        raise SinkFailed(refused.reason) from None
