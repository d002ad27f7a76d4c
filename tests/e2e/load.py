"""Callers at work: threads that exchange over both faces until told to stop, and remember everything."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.e2e.patience import until
from tests.e2e.setting import Setting, exchange
from tests.e2e.wires import NoAnswer, wire
from tests.harness import Answer
from tests.world import Parameters

_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """
    One call: what was asked over which face, and the answer; ``None`` when the connection broke.

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

    def wait_for(self, more: int, *, seconds: float = 20.0) -> None:
        """Return when so many more calls were granted."""
        goal = self._granted() + more
        until(lambda: self._granted() >= goal, seconds=seconds, what=f"{more} more tokens")

    def _granted(self) -> int:
        return sum(1 for call in self.calls if call.token)

    def _run(self, face: str) -> None:
        try:
            with wire(face, self._setting) as connection:
                while not self._stopping.is_set():
                    parameters = self._ask(self._setting)
                    begun = time.monotonic()
                    answer = None
                    with suppress(NoAnswer):
                        answer = connection.exchange(parameters)
                    took = time.monotonic() - begun
                    self._calls.append(Call(face, parameters, begun, took, answer))
                    # Against a face that is away, a caller would only spin.
                    self._stopping.wait(self._pause if answer else max(self._pause, 0.02))
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the load ends.
            self._failures.append(failure)
