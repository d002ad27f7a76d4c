"""Connections of the operators' port: whoever only holds one keeps nobody else from asking."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST: Final = 64
"""No more connections are open at once."""

IDLE_SECONDS: Final = 5
"""A connection on which no whole request comes for so long is closed."""


class OperatorsConnection(H11Protocol):
    """
    A connection of which there are ``MOST`` at most.

    The one that has been idle longest makes room for a new one. Only when all are being answered is a new
    one turned away: with 503 while there is a place left for the answer, else by its end.
    """

    idle_since = 0.0
    """Since when nothing of it was answered, by the clock of the event loop."""
    is_given_up = False
    """Whether it was ended, and is only still to go."""

    @property
    def is_idle(self) -> bool:
        """Whether there is no whole request that still is to be answered."""
        # There is none before the first request, whatever the base class declares.
        return bool(getattr(self.cycle, "response_complete", True))

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the other side: idle, or with a request whose body has not come."""
        cycle = self.cycle
        return self.is_idle or (cycle.more_body and not cycle.response_started)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        self._await_request()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The base class takes the first byte of a request for all of it, and would wait for ever.
        if self.is_idle and not self.transport.is_closing():
            self._await_request()

    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def give_up(self) -> None:
        """End it at once; what was answered may not have gone to whoever does not read."""
        self.is_given_up = True
        self.transport.abort()

    def _await_request(self) -> None:
        if self.timeout_keep_alive_task is None:
            over_at = self.idle_since + self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_at(
                over_at, self.timeout_keep_alive_handler
            )

    def _make_room(self) -> None:
        others = [one for one in _open(self.connections) if one is not self]
        if len(others) + 1 < MOST:
            return
        waiting = [one for one in others if one.is_waiting]
        if waiting:
            min(waiting, key=lambda one: one.idle_since).give_up()
        elif len(others) >= MOST:
            self.give_up()


def _open(connections: Iterable[Any]) -> list[OperatorsConnection]:
    return [
        one for one in connections if isinstance(one, OperatorsConnection) and not one.is_given_up
    ]
