"""Many callers, one conversation: items are sent in batches from one thread, behind breakers."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from broker.errors import TemporarilyUnavailable
from broker.keys.unavailable import signer_unavailable

_JOIN_SECONDS: Final = 5.0
_CLOSED: Final = "the key store is closed"
_LATE: Final = "the signer did not answer in time"


class Lane(Protocol):
    """
    What items must have in common to travel together.

    Lanes of one name share a breaker. ``batch_limit`` is how many items may go out at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def batch_limit(self) -> int: ...


LaneT = TypeVar("LaneT", bound=Lane)

Send = Callable[[LaneT, Sequence[bytes]], Sequence[bytes | None]]
"""
Sends one batch and returns an answer for each item, ``None`` for one that was refused.

It raises ``TemporarilyUnavailable`` when the whole batch came to nothing, and within a bounded time.
"""


class _Ticket(Generic[LaneT]):
    """One waiting caller."""

    __slots__ = ("_gate", "answer", "expires_at", "fault", "item", "lane")

    def __init__(self, lane: LaneT, item: bytes, *, expires_at: float) -> None:
        self.lane = lane
        self.item = item
        self.expires_at = expires_at
        self.answer: bytes | None = None
        self.fault = "the request was refused"
        # It is shut here and opened once. An event would do the same for ten times the price.
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self, seconds: float) -> bool:
        """Whether the caller was let go in time."""
        return self._gate.acquire(timeout=seconds)

    def settle(self, answer: bytes | None) -> None:
        """Let the caller go, with an answer or without."""
        self.answer = answer
        self._gate.release()

    def refuse(self, fault: str) -> None:
        """Let the caller go with nothing but the reason."""
        self.fault = fault
        self._gate.release()


class Batches(Generic[LaneT]):
    """
    Sends at once when idle; what arrives while a call is under way goes out together in the next.

    When a call fails, everybody who waits in lanes of that name is refused at once and their breaker
    opens: from then on ``submit`` refuses without waiting, until somebody who got an answer by
    ``probe`` calls ``mend``. So no caller pays for finding out that the other side is still away.

    A caller waits for at most ``deadline`` seconds, and at most ``capacity`` callers wait. A call that
    takes longer than that opens the breaker too, before it comes back.
    """

    def __init__(
        self,
        send: Send[LaneT],
        *,
        deadline: float,
        capacity: int = 1024,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._deadline = deadline
        self._capacity = capacity
        self._monotonic = monotonic
        self._arrived = threading.Condition()
        self._waiting: deque[_Ticket[LaneT]] = deque()
        self._faults: dict[str, str] = {}
        self._called_at: float | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="broker-signer", daemon=True)
        self._thread.start()

    def fault(self, lane_name: str) -> str | None:
        """Why the breaker of these lanes is open, or ``None`` while it is closed."""
        return _CLOSED if self._is_closed else self._faults.get(lane_name)

    def submit(self, lane: LaneT, item: bytes) -> bytes:
        """
        The answer to one item.

        Raises ``TemporarilyUnavailable`` (``signer_unavailable``) when there is none within the
        deadline, and at once while the breaker is open or too many wait.
        """
        return self.submit_all(lane, (item,))[0]

    def submit_all(self, lane: LaneT, items: Sequence[bytes]) -> Sequence[bytes]:
        """The answers to several items, which go out together; raises like ``submit`` if one has none."""
        fault = self.fault(lane.name)
        if fault is not None:
            raise signer_unavailable(fault)
        return self._answers(lane, items)

    def probe(self, lane: LaneT, item: bytes) -> bytes:
        """Like ``submit``, but it goes through an open breaker."""
        return self._answers(lane, (item,))[0]

    def trip(self, lane_name: str, fault: str) -> None:
        """Open the breaker of these lanes, and refuse everybody who waits in them."""
        with self._arrived:
            self._faults[lane_name] = fault
            refused = [ticket for ticket in self._waiting if ticket.lane.name == lane_name]
            self._waiting = deque(t for t in self._waiting if t.lane.name != lane_name)
        for ticket in refused:
            ticket.refuse(fault)

    def mend(self, lane_name: str) -> None:
        """Close the breaker of these lanes."""
        self._faults.pop(lane_name, None)

    def close(self) -> None:
        """Refuse everybody who waits and stop the thread."""
        with self._arrived:
            self._is_closed = True
            waiting, self._waiting = self._waiting, deque()
            self._arrived.notify_all()
        for ticket in waiting:
            ticket.refuse(_CLOSED)
        self._thread.join(_JOIN_SECONDS)

    def _answers(self, lane: LaneT, items: Sequence[bytes]) -> Sequence[bytes]:
        expires_at = self._monotonic() + self._deadline
        tickets = [_Ticket(lane, item, expires_at=expires_at) for item in items]
        with self._arrived:
            if self._is_closed:
                raise signer_unavailable(_CLOSED)
            if len(self._waiting) + len(tickets) > self._capacity:
                raise signer_unavailable("too many requests wait for the signer")
            self._waiting.extend(tickets)
            self._arrived.notify()
        return [self._answer(ticket) for ticket in tickets]

    def _answer(self, ticket: _Ticket[LaneT]) -> bytes:
        if not ticket.wait(max(ticket.expires_at - self._monotonic(), 0)):
            self._trip_if_stuck(ticket)
            raise signer_unavailable(_LATE)
        if ticket.answer is None:
            raise signer_unavailable(ticket.fault)
        return ticket.answer

    def _trip_if_stuck(self, ticket: _Ticket[LaneT]) -> None:
        """Spare others the wait when the call was there before this caller came, and still is."""
        called_at = self._called_at
        if called_at is not None and called_at <= ticket.expires_at - self._deadline:
            self.trip(ticket.lane.name, _LATE)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._send_batch(batch)

    def _next_batch(self) -> list[_Ticket[LaneT]] | None:
        """The next items of one lane, in their order; ``None`` when there will be no more."""
        with self._arrived:
            while not self._waiting and not self._is_closed:
                self._arrived.wait()
            if self._is_closed:
                return None
            lane, now = self._waiting[0].lane, self._monotonic()
            batch: list[_Ticket[LaneT]] = []
            others: deque[_Ticket[LaneT]] = deque()
            for ticket in self._waiting:
                # Whose deadline has passed is not waiting any more.
                if ticket.expires_at <= now:
                    continue
                is_next = ticket.lane == lane and len(batch) < lane.batch_limit
                (batch if is_next else others).append(ticket)
            self._waiting = others
            return batch

    def _send_batch(self, batch: Sequence[_Ticket[LaneT]]) -> None:
        lane, items = batch[0].lane, [ticket.item for ticket in batch]
        self._called_at = self._monotonic()
        try:
            answers = list(zip(batch, self._send(lane, items), strict=True))
        except TemporarilyUnavailable as error:
            self._refuse(batch, error.detail)
        except Exception as error:  # noqa: BLE001 -- without this thread nothing is signed again.
            self._refuse(batch, f"unexpected {type(error).__name__}")
        else:
            for ticket, answer in answers:
                ticket.settle(answer)
        finally:
            self._called_at = None

    def _refuse(self, batch: Sequence[_Ticket[LaneT]], fault: str) -> None:
        self.trip(batch[0].lane.name, fault)
        for ticket in batch:
            ticket.refuse(fault)
