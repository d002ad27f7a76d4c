"""The seams of the broker with a watch in their hand: they do what the inner one does, and measure it."""

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from broker.errors import OAuthError
from broker.interfaces import AuditEntry, AuditLog, KeyStore, PolicyEngine, SigningKey
from broker.metrics.measures import Metrics
from broker.model import Decision, PolicyQuery, RequestContext, ScopeExplanation


@dataclass(frozen=True, slots=True)
class ObservedAuditLog:
    """An audit log that measures each request, from its entry's opening to the record on disk."""

    inner: AuditLog
    metrics: Metrics

    def entry(self, event: str, context: RequestContext) -> AbstractContextManager[AuditEntry]:
        return _ObservedEntry(self.inner.entry(event, context), self.metrics, event, context.face)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()


class _ObservedEntry:
    __slots__ = ("_event", "_face", "_inner", "_metrics", "_opened")

    def __init__(
        self,
        inner: AbstractContextManager[AuditEntry],
        metrics: Metrics,
        event: str,
        face: str,
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._event = event
        self._face = face
        self._opened = 0.0

    def __enter__(self) -> AuditEntry:
        self._opened = time.perf_counter()
        return self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        closing = time.perf_counter()
        try:
            return self._inner.__exit__(kind, raised, trace)
        finally:
            closed = time.perf_counter()
            # What leaves no record was not waited for either, and is counted elsewhere.
            if not isinstance(raised, OAuthError) or raised.is_recorded:
                self._metrics.observe_commit(closed - closing)
                self._metrics.observe_request(
                    closed - self._opened, face=self._face, event=self._event
                )


@dataclass(frozen=True, slots=True)
class ObservedKeyStore:
    """A key store that measures its signatures. ``store`` is its name in the configuration."""

    inner: KeyStore
    metrics: Metrics
    store: str

    def signing_key(self, algorithm: str) -> SigningKey:
        return _ObservedKey(self.inner.signing_key(algorithm), self.metrics, self.store)

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return self.inner.public_keys()

    def fresh_for(self) -> int:
        return self.inner.fresh_for()

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True, slots=True)
class _ObservedKey:
    inner: SigningKey
    metrics: Metrics
    store: str

    @property
    def kid(self) -> str:
        return self.inner.kid

    @property
    def algorithm(self) -> str:
        return self.inner.algorithm

    def sign(self, signing_input: bytes) -> bytes:
        return self.sign_all((signing_input,))[0]

    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]:
        begun = time.perf_counter()
        try:
            return self.inner.sign_all(signing_inputs)
        finally:
            self.metrics.observe_sign(time.perf_counter() - begun, store=self.store)


@dataclass(frozen=True, slots=True)
class ObservedPolicyEngine:
    """A policy engine that measures its decisions."""

    inner: PolicyEngine
    metrics: Metrics

    @property
    def digest(self) -> str:
        return self.inner.digest

    def decide(self, query: PolicyQuery) -> Decision:
        begun = time.perf_counter()
        try:
            return self.inner.decide(query)
        finally:
            self.metrics.observe_policy(time.perf_counter() - begun)

    def permits_any(self, query: PolicyQuery) -> bool:
        begun = time.perf_counter()
        try:
            return self.inner.permits_any(query)
        finally:
            self.metrics.observe_policy(time.perf_counter() - begun)

    def explain(self, query: PolicyQuery) -> Sequence[ScopeExplanation]:
        return self.inner.explain(query)
