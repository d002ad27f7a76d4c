"""Issuers on a script: a fetcher that answers from memory, and a clock that stands still."""

import json
import threading
from collections.abc import Mapping
from typing import Any

from broker.fetch import Fetched, FetchReason, FetchRefused
from broker.issuers import IssuerKeyRing, RefreshSchedule
from broker.model import KeySource

URI = "https://idp-a.test/jwks"
SOURCE = KeySource(jwks_uri=URI)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class ScriptedFetcher:
    """
    A ``Fetcher`` that answers what the test says and remembers what was asked.

    While ``gate`` is not set, fetches wait in it; ``is_waiting`` tells that one does. By the clock a
    fetch ``takes`` so many seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.takes = 0.0
        self.answers: dict[str, Fetched | FetchReason | Exception] = {}
        self.fetched: list[str] = []
        self.limits: list[int] = []
        self.withins: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_waiting = threading.Event()

    def publish(self, document: Any, *, at: str = URI, max_age: int | None = None) -> None:
        """Let this document be found there."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.answers[at] = Fetched(raw, "application/json", max_age)

    def publish_keys(self, *jwks: Mapping[str, Any], at: str = URI) -> None:
        """Let a set of these keys be found there."""
        self.publish({"keys": list(jwks)}, at=at)

    def fail(self, fault: FetchReason | Exception, *, at: str = URI) -> None:
        """Let a fetch from there fail."""
        self.answers[at] = fault

    def get(
        self,
        url: str,
        *,
        max_bytes: int,
        media_types: frozenset[str],
        within: float | None = None,
    ) -> Fetched:
        assert "application/json" in media_types
        assert within is not None
        self.fetched.append(url)
        self.limits.append(max_bytes)
        self.withins.append(within)
        self.is_waiting.set()
        assert self.gate.wait(120)
        self.clock.at += self.takes
        answer = self.answers.get(url, FetchReason.STATUS)
        if isinstance(answer, FetchReason):
            raise FetchRefused(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """A key ring without background threads on a standing clock, and its scripted issuers."""

    def __init__(self, *, schedule: RefreshSchedule | None = None, refreshers: int = 0) -> None:
        self.clock = Clock()
        self.fetcher = ScriptedFetcher(self.clock)
        self.ring = IssuerKeyRing(
            self.fetcher,
            schedule=schedule,
            key_hosts={"https://split.test": frozenset({"keys.test", "keys.test:8443"})},
            refreshers=refreshers,
            monotonic=self.clock,
        )
