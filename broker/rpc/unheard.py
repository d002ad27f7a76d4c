"""Calls to streams whose message has not come yet, bounded without a thread for each."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import grpc.aio

from broker.rpc.call import peer_address

_PLACES: Final = 128


class NotHeard(Exception):
    """A call's message did not come in time."""


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """A call whose message is awaited; ``over`` is set to end the wait."""

    over: asyncio.Event = field(default_factory=asyncio.Event)


class Unheard:
    """
    Takes the message of a call, and gives up calls whose message does not come within ``limit``.

    None is turned away. Beyond ``places`` at a time the oldest of the address that has most of them is
    given up, as on the other faces. It is lived in by one event loop.
    """

    def __init__(self, limit: timedelta, *, places: int = _PLACES) -> None:
        self._limit = limit.total_seconds()
        self._places = places
        # By address, the oldest first.
        self._waits: dict[str, dict[_Wait, None]] = {}

    async def message(self, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes | None:
        """
        The call's message as it came, or ``None`` when the caller is done without sending one.

        Raises ``NotHeard`` for a call that is given up.
        """
        address = peer_address(context.peer())
        wait = _Wait()
        self._waits.setdefault(address, {})[wait] = None
        if sum(map(len, self._waits.values())) > self._places:
            self._displace()
        try:
            return await self._first(context, wait)
        finally:
            self._remove(address, wait)

    def _displace(self) -> None:
        address, waits = max(self._waits.items(), key=lambda item: len(item[1]))
        oldest = next(iter(waits))
        oldest.over.set()
        self._remove(address, oldest)

    def _remove(self, address: str, wait: _Wait) -> None:
        """Forget a wait that has ended; nothing for one that was displaced before."""
        waits = self._waits.get(address, {})
        waits.pop(wait, None)
        if not waits:
            self._waits.pop(address, None)

    async def _first(
        self, context: "grpc.aio.ServicerContext[Any, Any]", wait: _Wait
    ) -> bytes | None:
        read = asyncio.ensure_future(context.read())
        over = asyncio.ensure_future(wait.over.wait())
        try:
            await asyncio.wait(
                {read, over}, timeout=self._limit, return_when=asyncio.FIRST_COMPLETED
            )
            if not read.done():
                raise NotHeard
            message = read.result()
        finally:
            read.cancel()
            over.cancel()
        return None if message is grpc.aio.EOF else message
