"""Callers at work: threads that exchange over both faces until told to stop, and remember everything."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.e2e.patience import until
from tests.e2e.setting import Setting, exchange
from tests.e2e.wires import NoAnswer, NotReached, Wire, wire
from tests.harness import Answer
from tests.world import Parameters

_STOP_SECONDS: Final = 120.0
_SECONDS_BEFORE_TRYING_AGAIN: Final = 0.05
_STORE_IS_BUSY: Final = "replay_store_unavailable"


@dataclass(frozen=True, slots=True)
class Call:
    """
    A call that reached a face: what was asked, and the answer; ``None`` when the connection broke.

    ``begun`` is a moment of the monotonic clock, ``seconds`` how long it took.
    """

    face: str
    parameters: Parameters = field(repr=False)
    begun: float
    seconds: float
    answer: Answer | None

    @property
    def token(self) -> str:
        """The token that the caller received, if any."""
        return self.answer.token if self.answer else ""


def unserved(calls: Iterable[Call], records: Iterable[Mapping[str, Any]]) -> list[Call]:
    """
    The calls that got no token, but for one in twenty at most whose record says that the store was busy.

    On one disk with many others it is so now and then, and every client has to try again then.
    """
    busy = {one["event_id"] for one in records if one.get("reason") == _STORE_IS_BUSY}
    every = list(calls)
    refused = [call for call in every if not call.token]
    others = [
        call
        for call in refused
        if call.answer is None or busy.isdisjoint(call.answer.headers.values())
    ]
    return others if 20 * (len(refused) - len(others)) <= len(every) else refused


class Load:
    """
    ``with`` lets callers call over both faces in turn, each with a fresh assertion and subject token.

    ``pause`` is in seconds, between two calls of one caller.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        callers: int = 8,
        pause: float = 0.0,
        ask: Callable[[Setting], Parameters] = exchange,
    ) -> None:
        self._setting = setting
        self._ask = ask
        self._pause = pause
        self._stopping = threading.Event()
        self._calls: list[Call] = []
        self._tokens = 0
        self._turn = threading.Lock()
        self._acts: dict[str, Callable[[], None]] = {}
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(("http", "grpc")[number % 2],), daemon=True)
            for number in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        if self._failures:
            raise self._failures[0]

    @property
    def calls(self) -> Sequence[Call]:
        """The calls that have ended so far, in the order of their ends."""
        return list(self._calls)

    def wait_for(self, more: int, *, seconds: float = 60.0) -> None:
        """Return when so many more calls were granted."""
        goal = self.granted() + more
        until(lambda: self.granted() >= goal, seconds=seconds, what=f"{more} more tokens")

    def at_next_answer(self, face: str, act: Callable[[], None]) -> None:
        """Do this the moment that a caller receives an answer over this face; return when it is done."""
        self._acts[face] = act
        until(lambda: face not in self._acts, seconds=60, what=f"an answer over {face}")

    def refused(self, error: str) -> int:
        """How many calls were refused with this error so far."""
        return sum(1 for call in self.calls if call.answer and call.answer.error == error)

    def granted(self) -> int:
        """How many calls were granted so far."""
        return self._tokens

    def _run(self, face: str) -> None:
        try:
            with wire(face, self._setting) as connection:
                while not self._stopping.wait(self._pause):
                    self._call(connection)
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the load ends.
            self._failures.append(failure)

    def _call(self, connection: Wire) -> None:
        parameters = self._ask(self._setting)
        begun = time.monotonic()
        answer = None
        try:
            answer = connection.exchange(parameters)
            if act := self._acts.pop(connection.name, None):
                act()
        except NotReached:
            # Against a face that is away, a caller would only spin.
            self._stopping.wait(_SECONDS_BEFORE_TRYING_AGAIN)
            return
        except NoAnswer:
            pass
        took = time.monotonic() - begun
        call = Call(connection.name, parameters, begun, took, answer)
        with self._turn:
            self._calls.append(call)
            self._tokens += bool(call.token)
