"""The broker in the hand of a program that runs an event loop: it asks, retries, and remembers tokens."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from broker.client import asks
from broker.client._faces import async_face
from broker.client._together import Together
from broker.client.answers import Explanation, Introspection, Token
from broker.client.asks import Ask, Target
from broker.client.cache import Key, TokenCache, key_of
from broker.client.credentials import Credential
from broker.client.failures import Refused, Unavailable, anew
from broker.client.patience import CLOSED, TOO_LATE, Patience
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN

_Answer = TypeVar("_Answer")
_PATIENCE = Patience()


class Broker:
    """
    Asks the broker for tokens, from code that runs in an event loop.

    ``issuer`` is the broker's issuer, by which its HTTP face is found; with ``grpc`` (``host:port``)
    that face is asked instead. ``ca_file`` names the authorities to believe, if not the system's. All
    methods raise ``BrokerError``. Only ``token_for``, ``tokens_for`` and ``own_token`` remember what they
    fetched. It belongs to the event loop that first uses it, and to another once that is closed; used in
    two that run, it raises ``RuntimeError``. Closing it ends what is under way.
    """

    def __init__(
        self,
        issuer: str,
        credential: Credential,
        *,
        grpc: str | None = None,
        ca_file: str | None = None,
        patience: Patience = _PATIENCE,
        cache: TokenCache | None = None,
    ) -> None:
        self._open_face = partial(async_face, issuer, grpc=grpc, ca_file=ca_file)
        self._face = self._open_face()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._grpc = grpc
        self._credential = credential
        self._patience = patience
        # An empty cache is false, and still the one to use.
        self._cache = TokenCache() if cache is None else cache
        self._cache.belong_to(issuer, credential)
        self._flights: dict[Key, asyncio.Task[Token]] = {}
        self._formations: dict[tuple[Key, ...], asyncio.Task[tuple[Token, ...]]] = {}

    async def exchange(
        self,
        subject_token: str,
        *,
        resource: str,
        scopes: Sequence[str] = (),
        subject_token_type: str | None = None,
        actor_token: str | None = None,
        actor_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
    ) -> Token:
        """
        A token for the resource, made of the subject token (RFC 8693).

        That is an access token, or what its type says; an ``IdToken`` says so itself.
        """
        return await self._ask(
            asks.exchange(
                subject_token,
                resource=resource,
                scopes=scopes,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
                actor_token_type=actor_token_type,
            )
        )

    async def exchange_all(
        self,
        subject_token: str,
        targets: Sequence[Target],
        *,
        subject_token_type: str | None = None,
        actor_token: str | None = None,
        actor_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
    ) -> tuple[Token, ...]:
        """
        A token for each of the targets, in their order, or none at all; over gRPC alone.

        All are made of the subject token by one question. A refusal says which ``target`` it was.
        """
        asks.check_together(self._grpc)
        return await self._ask(
            asks.exchange_all(
                subject_token,
                targets,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
                actor_token_type=actor_token_type,
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
        self._cache.withdraw(token)

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
        return await self._remembered(
            key_of(subject_token, resource, scopes),
            lambda: asks.exchange(subject_token, resource=resource, scopes=scopes),
            subject_token=subject_token,
        )

    async def tokens_for(self, subject_token: str, targets: Sequence[Target]) -> tuple[Token, ...]:
        """
        The same as ``exchange_all``, remembered: only what is missing is asked for, by one question.

        Tokens that ``token_for`` has fetched are used, and the other way round.
        """
        asks.check_together(self._grpc)
        wanted = Together.look(self._cache, subject_token, targets)
        # There is a token for each of these already; one that is due is refreshed without waiting.
        held = {
            place: await self.token_for(subject_token, resource=one.resource, scopes=one.scopes)
            for place, one in wanted.held().items()
        }
        if not wanted.missing:
            return wanted.in_order(held, ())
        try:
            issued = await self._remembered_together(wanted)
        except Refused as refusal:
            raise wanted.placed(refusal) from None
        return wanted.in_order(held, issued)

    async def own_token(self, *, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The same as ``client_token``, remembered."""
        return await self._remembered(
            key_of(None, resource, scopes),
            lambda: asks.client_token(resource=resource, scopes=scopes),
            subject_token=None,
        )

    def forget(self, token: Token) -> bool:
        """
        Forget a remembered token that its resource did not accept.

        The value is whether to ask for another: one that has just taken the place of another is kept for a
        moment, since a resource that accepts neither accepts none.
        """
        return self._cache.drop(token)

    async def aclose(self) -> None:
        """End what is under way and close every connection."""
        self._is_closed = True
        for flight in [*self._flights.values(), *self._formations.values()]:
            flight.cancel()
        await self._face.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _remembered(
        self, key: Key, ask: Callable[[], Ask[Token]], *, subject_token: str | None
    ) -> Token:
        held = self._cache.find(key)
        if held is not None and not self._cache.is_due(held):
            return held.token
        self._settle_in()
        flight = self._flights.get(key)
        if flight is None:
            # It is a task of its own, so that whoever asked first may go without the others losing it.
            flight = asyncio.create_task(self._fetch(key, ask(), subject_token))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        if held is not None:
            # What is due is not dead: nobody waits for its refresh, and nobody sees that fail.
            return held.token
        await asyncio.wait({flight})
        return _outcome(flight)

    async def _remembered_together(self, wanted: Together) -> tuple[Token, ...]:
        self._settle_in()
        formation = self._formations.get(wanted.key)
        if formation is None:
            formation = asyncio.create_task(self._fetch_together(wanted))
            self._formations[wanted.key] = formation
            formation.add_done_callback(lambda done: self._landed_together(wanted.key, done))
        await asyncio.wait({formation})
        return _outcome(formation)

    def _landed(self, key: Key, flight: "asyncio.Task[Token]") -> None:
        self._flights.pop(key, None)
        _look_at(flight)

    def _landed_together(
        self, key: tuple[Key, ...], formation: "asyncio.Task[tuple[Token, ...]]"
    ) -> None:
        self._formations.pop(key, None)
        _look_at(formation)

    async def _fetch(self, key: Key, ask: Ask[Token], subject_token: str | None) -> Token:
        asked_at = self._cache.clock()
        try:
            token = await self._ask(ask)
        except Exception as failure:
            self._cache.postpone(key)
            if isinstance(failure, Refused):
                self._cache.deny(key, failure)
            raise
        self._cache.put(key, token, subject_token=subject_token, asked_at=asked_at)
        return token

    async def _fetch_together(self, wanted: Together) -> tuple[Token, ...]:
        asked_at = self._cache.clock()
        try:
            tokens = await self._ask(wanted.ask())
        except Refused as refusal:
            wanted.note_refusal(self._cache, refusal)
            raise
        wanted.keep(self._cache, tokens, asked_at=asked_at)
        return tokens

    def _settle_in(self) -> None:
        """Belong to the loop that runs; what was begun in one that is closed will never end there."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError("This Broker belongs to another event loop; make one for each.")
            self._flights.clear()
            self._formations.clear()
            self._face = self._open_face()
        self._loop = loop

    async def _ask(self, ask: Ask[_Answer]) -> _Answer:
        self._settle_in()
        if self._is_closed:
            raise Unavailable(CLOSED)
        try:
            async with asyncio.timeout(self._patience.deadline):
                return await self._ask_repeatedly(ask)
        except TimeoutError:
            raise Unavailable(TOO_LATE) from None

    async def _ask_repeatedly(self, ask: Ask[_Answer]) -> _Answer:
        attempts = self._patience.begin()
        while True:
            try:
                # Keys come from files or from Vault, which the event loop should not wait for.
                presented = await asyncio.to_thread(self._credential.present, self._face.issuer)
                asked = asks.presented_with(ask, presented.grant)
                return await self._face.ask(asked, presented, within=attempts.time_left())
            except Unavailable as failure:
                pause = attempts.pause_after(failure)
            await asyncio.sleep(pause)


def _look_at(flight: "asyncio.Task[_Answer]") -> None:
    """It counts as looked at, even if nobody waits for it any more."""
    if not flight.cancelled():
        flight.exception()


def _outcome(flight: "asyncio.Task[_Answer]") -> _Answer:
    """What came of a flight; each who waited raises an error of his own."""
    if flight.cancelled():
        raise Unavailable(CLOSED)
    failure = flight.exception()
    if failure is not None:
        raise anew(failure)
    return flight.result()
