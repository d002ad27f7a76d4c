"""The broker in the hand of a program that blocks: it asks, retries, and remembers tokens."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from broker.client import asks
from broker.client._faces import sync_face
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


class SyncBroker:
    """The same as ``Broker`` for code that blocks, from any number of threads."""

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
        self._open_face = partial(sync_face, issuer, grpc=grpc, ca_file=ca_file)
        self._face = self._open_face()
        self._process = os.getpid()
        self._is_closed = False
        self._grpc = grpc
        self._credential = credential
        self._patience = patience
        # An empty cache is false, and still the one to use.
        self._cache = TokenCache() if cache is None else cache
        self._cache.belong_to(issuer, credential)
        self._flights: dict[Key, Future[Token]] = {}
        self._formations: dict[tuple[Key, ...], Future[tuple[Token, ...]]] = {}
        self._lock = threading.Lock()

    def exchange(
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
        return self._ask(
            asks.exchange(
                subject_token,
                resource=resource,
                scopes=scopes,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
                actor_token_type=actor_token_type,
            )
        )

    def exchange_all(
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
        return self._ask(
            asks.exchange_all(
                subject_token,
                targets,
                subject_token_type=subject_token_type,
                actor_token=actor_token,
                actor_token_type=actor_token_type,
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
        self._cache.withdraw(token)

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
        """
        The same as ``exchange``, remembered: however many ask at once, the broker is asked once.

        A refusal is remembered for a moment too. The subject token itself is never returned in place of one.
        """
        return self._remembered(
            key_of(subject_token, resource, scopes),
            lambda: asks.exchange(subject_token, resource=resource, scopes=scopes),
            subject_token=subject_token,
        )

    def tokens_for(self, subject_token: str, targets: Sequence[Target]) -> tuple[Token, ...]:
        """
        The same as ``exchange_all``, remembered: only what is missing is asked for, by one question.

        Tokens that ``token_for`` has fetched are used, and the other way round.
        """
        asks.check_together(self._grpc)
        wanted = Together.look(self._cache, subject_token, targets)
        # There is a token for each of these already; one that is due is refreshed without waiting.
        held = {
            place: self.token_for(subject_token, resource=one.resource, scopes=one.scopes)
            for place, one in wanted.held().items()
        }
        if not wanted.missing:
            return wanted.in_order(held, ())
        try:
            issued = self._remembered_together(wanted)
        except Refused as refusal:
            raise wanted.placed(refusal) from None
        return wanted.in_order(held, issued)

    def own_token(self, *, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The same as ``client_token``, remembered."""
        return self._remembered(
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

    def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        self._face.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _remembered(
        self, key: Key, ask: Callable[[], Ask[Token]], *, subject_token: str | None
    ) -> Token:
        self._settle_in()
        held = self._cache.find(key)
        if held is None or self._cache.is_due(held):
            with self._lock:
                # Another flight may have landed since the look above: it puts its token away first.
                held = self._cache.find(key)
                if held is None or self._cache.is_due(held):
                    flight = self._flights.get(key) or self._take_off(key, ask(), subject_token)
        # What is due is not dead: nobody waits for its refresh, and nobody sees that fail.
        return self._outcome(flight) if held is None else held.token

    def _take_off(self, key: Key, ask: Ask[Token], subject_token: str | None) -> "Future[Token]":
        # It has a thread of its own, so that whoever asked first may be interrupted without the others
        # losing it, and so that nobody waits for a refresh.
        def fetch() -> Token:
            try:
                return self._fetch(key, ask, subject_token)
            finally:
                self._land(key)

        flight = _in_a_thread(fetch)
        self._flights[key] = flight
        return flight

    def _remembered_together(self, wanted: Together) -> tuple[Token, ...]:
        self._settle_in()
        with self._lock:
            formation = self._formations.get(wanted.key)
            if formation is None:
                formation = _in_a_thread(lambda: self._fetch_together(wanted))
                self._formations[wanted.key] = formation
        return self._outcome(formation)

    def _land(self, key: Key) -> None:
        with self._lock:
            self._flights.pop(key, None)

    def _fetch(self, key: Key, ask: Ask[Token], subject_token: str | None) -> Token:
        asked_at = self._cache.clock()
        try:
            token = self._ask_repeatedly(ask)
        except Exception as failure:
            self._cache.postpone(key)
            if isinstance(failure, Refused):
                self._cache.deny(key, failure)
            raise
        self._cache.put(key, token, subject_token=subject_token, asked_at=asked_at)
        return token

    def _fetch_together(self, wanted: Together) -> tuple[Token, ...]:
        asked_at = self._cache.clock()
        try:
            tokens = self._ask_repeatedly(wanted.ask())
            wanted.keep(self._cache, tokens, asked_at=asked_at)
        except Refused as refusal:
            wanted.note_refusal(self._cache, refusal)
            raise
        finally:
            with self._lock:
                self._formations.pop(wanted.key, None)
        return tokens

    def _outcome(self, flight: "Future[_Answer]") -> _Answer:
        """What came of a flight; each who waited raises an error of his own."""
        try:
            failure = flight.exception(timeout=self._patience.deadline)
        except TimeoutError:
            raise Unavailable(TOO_LATE) from None
        if failure is not None:
            raise anew(failure)
        return flight.result()

    def _settle_in(self) -> None:
        """Leave to the parent what it had under way: nothing of it ever ends in a process that it forked."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._flights = {}
            self._formations = {}
            self._lock = threading.Lock()
            self._face = self._open_face()

    def _ask(self, ask: Ask[_Answer]) -> _Answer:
        """Ask in a thread that may be left behind: no reading of a socket ends in time by itself."""
        self._settle_in()
        return self._outcome(_in_a_thread(lambda: self._ask_repeatedly(ask)))

    def _ask_repeatedly(self, ask: Ask[_Answer]) -> _Answer:
        if self._is_closed:
            raise Unavailable(CLOSED)
        attempts = self._patience.begin()
        while True:
            try:
                presented = self._credential.present(self._face.issuer)
                asked = asks.presented_with(ask, presented.grant)
                return self._face.ask(asked, presented, within=attempts.time_left())
            except Unavailable as failure:
                pause = attempts.pause_after(failure)
            time.sleep(pause)


def _in_a_thread(work: Callable[[], _Answer]) -> "Future[_Answer]":
    """What comes of work that is begun now, in a thread that may be left behind."""
    flight: Future[_Answer] = Future()

    def fly() -> None:
        try:
            answer = work()
        except BaseException as failure:  # noqa: BLE001 - whoever waits for it must hear of it.
            flight.set_exception(failure)
        else:
            flight.set_result(answer)

    threading.Thread(target=fly, daemon=True).start()
    return flight
