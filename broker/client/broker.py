"""The broker in the hand of a program: one object that asks, retries, and remembers tokens."""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from broker.client import asks
from broker.client.answers import Explanation, Introspection, Token
from broker.client.asks import Ask
from broker.client.cache import Key, TokenCache, key_of
from broker.client.credentials import Credential, Presented
from broker.client.failures import Refused, Unavailable
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN

_Answer = TypeVar("_Answer")
_LONGEST_PAUSE: Final = 5.0


class AsyncFace(Protocol):
    """One face of the broker, for a running event loop."""

    issuer: str

    async def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer: ...
    async def aclose(self) -> None: ...


class SyncFace(Protocol):
    """One face of the broker, for code that blocks."""

    issuer: str

    def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """
    How long to wait for the broker: ``deadline`` seconds for a question with all its ``attempts``.

    Only what may succeed later is tried again, each time with a fresh assertion.
    """

    deadline: float = 10.0
    attempts: int = 3

    def pause(self, failure: Unavailable, *, tried: int, end: float) -> float | None:
        """How many seconds to wait before the next attempt; ``None`` to give up."""
        asked = min(failure.retry_after, _LONGEST_PAUSE)
        # Those who were turned away together should not come back together.
        pause = asked * (0.5 + random.random() / 2)  # noqa: S311 - nothing secret depends on it.
        has_time = time.monotonic() + pause < end
        return pause if tried < self.attempts and has_time else None


class Broker:
    """
    Asks the broker for tokens, from code that runs in an event loop.

    ``issuer`` is the broker's issuer, by which its HTTP face is found; with ``grpc`` (``host:port``)
    that face is asked instead. All methods raise ``BrokerError``. Only ``token_for`` and ``own_token``
    remember what they fetched.
    """

    def __init__(
        self,
        issuer: str,
        credential: Credential,
        *,
        grpc: str | None = None,
        ca_file: str | None = None,
        patience: Patience = Patience(),
        cache: TokenCache | None = None,
    ) -> None:
        self._face = _async_face(issuer, grpc, ca_file)
        self._credential = credential
        self._patience = patience
        self._cache = cache or TokenCache(time.time)
        self._flights: dict[Key, asyncio.Task[Token]] = {}

    async def exchange(
        self,
        subject_token: str,
        *,
        resource: str,
        scopes: Sequence[str] = (),
        subject_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
        actor_token: str | None = None,
    ) -> Token:
        """A token for the resource, made of the subject token (RFC 8693)."""
        return await self._ask(
            asks.exchange(
                subject_token,
                resource=resource,
                scopes=scopes,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
            )
        )

    async def client_token(
        self, *, resource: str | None = None, scopes: Sequence[str] = ()
    ) -> Token:
        """A token for the client itself (RFC 6749 4.4)."""
        return await self._ask(asks.client_token(resource=resource, scopes=scopes))

    async def issue_id_jag(
        self,
        id_token: str,
        *,
        audience: str,
        resource: str | None = None,
        scopes: Sequence[str] = (),
    ) -> Token:
        """An identity assertion for the authorization server ``audience`` (ID-JAG 4.3)."""
        return await self._ask(
            asks.issue_id_jag(id_token, audience=audience, resource=resource, scopes=scopes)
        )

    async def redeem(
        self, assertion: str, *, resource: str | None = None, scopes: Sequence[str] = ()
    ) -> Token:
        """The token that an identity assertion is good for (ID-JAG 4.4)."""
        return await self._ask(asks.redeem(assertion, resource=resource, scopes=scopes))

    async def introspect(self, token: str) -> Introspection:
        """Whether a token still counts (RFC 7662)."""
        return await self._ask(asks.introspect(token))

    async def revoke(self, token: str) -> None:
        """Withdraw a token with all that was derived from it (RFC 7009)."""
        await self._ask(asks.revoke(token))

    async def explain(
        self,
        subject_token: str,
        *,
        resource: str,
        scopes: Sequence[str] = (),
        client_id: str | None = None,
    ) -> Explanation:
        """What an exchange would lead to, and why; over gRPC, for clients that may ask."""
        return await self._ask(
            asks.explain(subject_token, resource=resource, scopes=scopes, client_id=client_id)
        )

    async def token_for(
        self, subject_token: str, *, resource: str, scopes: Sequence[str] = ()
    ) -> Token:
        """
        The same as ``exchange``, remembered: however many ask at once, the broker is asked once.

        A refusal is remembered for a moment too. The subject token itself is never returned in place of one.
        """
        key = key_of(subject_token, resource, scopes)
        ask = asks.exchange(subject_token, resource=resource, scopes=scopes)
        return await self._remembered(key, ask, subject_token)

    async def own_token(self, *, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The same as ``client_token``, remembered."""
        key = key_of(None, resource, scopes)
        return await self._remembered(
            key, asks.client_token(resource=resource, scopes=scopes), None
        )

    def forget(
        self, token: Token, subject_token: str | None, *, scopes: Sequence[str] = ()
    ) -> None:
        """Forget a remembered token that its resource did not accept."""
        self._cache.drop(key_of(subject_token, token.resource, scopes), token.access_token)

    async def aclose(self) -> None:
        """End what is under way and close every connection."""
        for flight in list(self._flights.values()):
            flight.cancel()
        await self._face.aclose()

    async def _remembered(self, key: Key, ask: Ask[Token], subject_token: str | None) -> Token:
        held = self._cache.find(key)
        if held is not None and not self._cache.is_due(held):
            return held.token
        flight = self._flights.get(key)
        if flight is None:
            # It is a task of its own, so that whoever asked first may go without the others losing it.
            flight = asyncio.ensure_future(self._fetch(key, ask, subject_token))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        if held is not None:
            return held.token
        return await asyncio.shield(flight)

    def _landed(self, key: Key, flight: "asyncio.Task[Token]") -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            # A refresh ahead of time that fails concerns nobody yet.
            flight.exception()

    async def _fetch(self, key: Key, ask: Ask[Token], subject_token: str | None) -> Token:
        asked_at = time.time()
        try:
            token = await self._ask(ask)
        except Refused as refused:
            self._cache.deny(key, refused)
            raise
        self._cache.put(key, token, subject_token=subject_token, asked_at=asked_at)
        return token

    async def _ask(self, ask: Ask[_Answer]) -> _Answer:
        end, tried = time.monotonic() + self._patience.deadline, 0
        while True:
            tried += 1
            # Keys come from files or from Vault, which the event loop should not wait for.
            presented = await asyncio.to_thread(self._credential.present, self._face.issuer)
            try:
                return await self._face.ask(ask, presented, within=end - time.monotonic())
            except Unavailable as failure:
                pause = self._patience.pause(failure, tried=tried, end=end)
                if pause is None:
                    raise
            await asyncio.sleep(pause)


class SyncBroker:
    """The same for code that blocks, from any number of threads."""

    def __init__(
        self,
        issuer: str,
        credential: Credential,
        *,
        grpc: str | None = None,
        ca_file: str | None = None,
        patience: Patience = Patience(),
        cache: TokenCache | None = None,
    ) -> None:
        self._face = _sync_face(issuer, grpc, ca_file)
        self._credential = credential
        self._patience = patience
        self._cache = cache or TokenCache(time.time)
        self._flights: dict[Key, Future[Token]] = {}
        self._lock = threading.Lock()

    def exchange(
        self,
        subject_token: str,
        *,
        resource: str,
        scopes: Sequence[str] = (),
        subject_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
        actor_token: str | None = None,
    ) -> Token:
        """A token for the resource, made of the subject token (RFC 8693)."""
        return self._ask(
            asks.exchange(
                subject_token,
                resource=resource,
                scopes=scopes,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
            )
        )

    def client_token(self, *, resource: str | None = None, scopes: Sequence[str] = ()) -> Token:
        """A token for the client itself (RFC 6749 4.4)."""
        return self._ask(asks.client_token(resource=resource, scopes=scopes))

    def issue_id_jag(
        self,
        id_token: str,
        *,
        audience: str,
        resource: str | None = None,
        scopes: Sequence[str] = (),
    ) -> Token:
        """An identity assertion for the authorization server ``audience`` (ID-JAG 4.3)."""
        return self._ask(
            asks.issue_id_jag(id_token, audience=audience, resource=resource, scopes=scopes)
        )

    def redeem(
        self, assertion: str, *, resource: str | None = None, scopes: Sequence[str] = ()
    ) -> Token:
        """The token that an identity assertion is good for (ID-JAG 4.4)."""
        return self._ask(asks.redeem(assertion, resource=resource, scopes=scopes))

    def introspect(self, token: str) -> Introspection:
        """Whether a token still counts (RFC 7662)."""
        return self._ask(asks.introspect(token))

    def revoke(self, token: str) -> None:
        """Withdraw a token with all that was derived from it (RFC 7009)."""
        self._ask(asks.revoke(token))

    def explain(
        self,
        subject_token: str,
        *,
        resource: str,
        scopes: Sequence[str] = (),
        client_id: str | None = None,
    ) -> Explanation:
        """What an exchange would lead to, and why; over gRPC, for clients that may ask."""
        return self._ask(
            asks.explain(subject_token, resource=resource, scopes=scopes, client_id=client_id)
        )

    def token_for(self, subject_token: str, *, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The same as ``exchange``, remembered: however many ask at once, the broker is asked once."""
        key = key_of(subject_token, resource, scopes)
        ask = asks.exchange(subject_token, resource=resource, scopes=scopes)
        return self._remembered(key, ask, subject_token)

    def own_token(self, *, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The same as ``client_token``, remembered."""
        key = key_of(None, resource, scopes)
        return self._remembered(key, asks.client_token(resource=resource, scopes=scopes), None)

    def forget(
        self, token: Token, subject_token: str | None, *, scopes: Sequence[str] = ()
    ) -> None:
        """Forget a remembered token that its resource did not accept."""
        self._cache.drop(key_of(subject_token, token.resource, scopes), token.access_token)

    def close(self) -> None:
        """Close every connection."""
        self._face.close()

    def _remembered(self, key: Key, ask: Ask[Token], subject_token: str | None) -> Token:
        held = self._cache.find(key)
        if held is not None and not self._cache.is_due(held):
            return held.token
        with self._lock:
            flight = self._flights.get(key)
            is_mine = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if is_mine:
            self._fly(flight, key, ask, subject_token)
        if held is not None:
            # What is due is not dead: whoever refreshes it, nobody waits and no failure shows.
            return held.token
        return flight.result()

    def _fly(
        self, flight: "Future[Token]", key: Key, ask: Ask[Token], subject_token: str | None
    ) -> None:
        asked_at = time.time()
        try:
            token = self._ask(ask)
            self._cache.put(key, token, subject_token=subject_token, asked_at=asked_at)
        except BaseException as failure:  # noqa: BLE001 - whoever waits for it must hear of it.
            if isinstance(failure, Refused):
                self._cache.deny(key, failure)
            self._land(key)
            flight.set_exception(failure)
        else:
            self._land(key)
            flight.set_result(token)

    def _land(self, key: Key) -> None:
        with self._lock:
            self._flights.pop(key, None)

    def _ask(self, ask: Ask[_Answer]) -> _Answer:
        end, tried = time.monotonic() + self._patience.deadline, 0
        while True:
            tried += 1
            presented = self._credential.present(self._face.issuer)
            try:
                return self._face.ask(ask, presented, within=end - time.monotonic())
            except Unavailable as failure:
                pause = self._patience.pause(failure, tried=tried, end=end)
                if pause is None:
                    raise
            time.sleep(pause)


def _async_face(issuer: str, grpc: str | None, ca_file: str | None) -> AsyncFace:
    # Only the face that is used is loaded: gRPC alone costs a tenth of a second.
    if grpc is not None:
        from broker.client._grpc import AsyncGrpc  # noqa: PLC0415 - see above.

        return AsyncGrpc(grpc, issuer, ca_file=ca_file)
    from broker.client._http import AsyncHttp  # noqa: PLC0415 - see above.

    return AsyncHttp(issuer, ca_file=ca_file)


def _sync_face(issuer: str, grpc: str | None, ca_file: str | None) -> SyncFace:
    if grpc is not None:
        from broker.client._grpc import SyncGrpc  # noqa: PLC0415 - see above.

        return SyncGrpc(grpc, issuer, ca_file=ca_file)
    from broker.client._http import SyncHttp  # noqa: PLC0415 - see above.

    return SyncHttp(issuer, ca_file=ca_file)
