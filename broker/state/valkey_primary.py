"""Conversations with the primary: few connections, one deadline for each, and a breaker before them."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from broker.state.breaker import Breaker, BreakerOpen
from broker.state.valkey_link import (
    Access,
    Endpoint,
    Link,
    Reply,
    ValkeyFault,
)
from broker.state.valkey_places import OpenLink, Places

# Errors by which a server says that somebody else is to be asked, now or soon.
_ELSEWHERE: Final = frozenset({"READONLY", "MOVED", "ASK", "MASTERDOWN", "CLUSTERDOWN"})

_LOOK_EVERY: Final = 2.0


class Conversation:
    """Some commands to one server over one connection, which must all be answered by one moment."""

    def __init__(self, link: Link, moment: float) -> None:
        self._link = link
        self._moment = moment

    @property
    def remaining(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._moment - time.monotonic())

    def ask(self, *command: bytes | str | float) -> Reply:
        """The answer to one command; raises ``ValkeyFault``."""
        return self._link.ask(*command, moment=self._moment)


class Primary:
    """
    The server that holds the state, wherever it is at the moment.

    At most ``connections`` are open; who finds none free before the ``deadline``, in seconds, is refused.
    Who finds the breaker open is refused at once. Nothing is asked twice: what a broken connection has
    left undone, nobody knows. Who has to open a connection first has until ``opening``, if that is later:
    it takes several round trips, and with too little time for them a distant server would never be reached.
    """

    def __init__(
        self,
        places: Places,
        access: Access,
        *,
        open_link: OpenLink,
        connections: int,
        deadline: float,
        opening: float = 0.0,
    ) -> None:
        self._opening = max(deadline, opening)
        self._places = places
        self._access = access
        self._open_link = open_link
        self._deadline = deadline
        self._breaker = Breaker()
        self._room = threading.BoundedSemaphore(connections)
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._idle: list[Link] = []
        self._endpoint: Endpoint | None = None
        self._process = os.getpid()
        self._is_closed = False
        self._look_at = 0.0

    @contextmanager
    def conversation(self) -> Iterator[Conversation]:
        """
        Have a connection alone.

        Raises ``ValkeyFault``, as what is asked over it does.
        """
        began = time.monotonic()
        if self._is_closed:
            raise ValkeyFault("closed")
        try:
            self._breaker.enter()
        except BreakerOpen as is_open:
            raise ValkeyFault(is_open.detail) from None
        if not self._room.acquire(timeout=self._deadline):
            self._breaker.fail("busy")
            raise ValkeyFault("busy")
        try:
            with self._telling_breaker():
                link = self._link(began + self._opening)
                allowed = self._deadline if link.is_open else self._opening
                try:
                    yield Conversation(link, began + allowed)
                finally:
                    self._put_back(link)
        finally:
            self._room.release()

    def look_again(self) -> None:
        """
        Ask where the primary is, if others know, every other second.

        Raises ``ValkeyFault`` when they cannot be asked.
        """
        now = time.monotonic()
        if not self._places.is_told or now < self._look_at:
            return
        found = self._places.primary(moment=now + self._opening)
        self._look_at = now + _LOOK_EVERY
        if found != self._endpoint:
            self._forget()

    def close(self) -> None:
        """Refuse from now on."""
        self._is_closed = True
        self._forget()

    @contextmanager
    def _telling_breaker(self) -> Iterator[None]:
        try:
            yield
        except ValkeyFault as fault:
            if not fault.is_answer or fault.detail in _ELSEWHERE:
                self._forget()
            if fault.is_answer and fault.detail not in _ELSEWHERE:
                self._breaker.succeed()
            else:
                self._breaker.fail(fault.detail)
            raise
        except BaseException:
            self._breaker.succeed()
            raise
        self._breaker.succeed()

    def _link(self, moment: float) -> Link:
        """An idle connection that is still good, or a new one."""
        endpoint = self._found(moment)
        while True:
            with self._lock:
                link = self._idle.pop() if self._idle else None
            if link is None:
                return self._open_link(endpoint, self._access)
            if link.endpoint == endpoint and not link.is_stale():
                return link
            link.close()

    def _found(self, moment: float) -> Endpoint:
        if self._process != os.getpid():
            # Connections cannot be shared with the process that this one was forked from.
            self._process = os.getpid()
            self._forget()
        endpoint = self._endpoint
        if endpoint is not None:
            return endpoint
        if not self._looking.acquire(timeout=self._deadline):
            raise ValkeyFault("busy")
        try:
            endpoint = self._endpoint or self._places.primary(moment=moment)
            self._endpoint = endpoint
        finally:
            self._looking.release()
        return endpoint

    def _put_back(self, link: Link) -> None:
        with self._lock:
            is_good = link.endpoint == self._endpoint and not self._is_closed and link.is_open
            if is_good:
                self._idle.append(link)
        if not is_good:
            link.close()

    def _forget(self) -> None:
        """Look for the primary anew before anything else is asked."""
        with self._lock:
            self._endpoint = None
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()
