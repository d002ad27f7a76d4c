"""The broker over HTTP: a form goes out, an answer or a failure comes back."""

import json
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import httpx2

from broker.client._oauth_error import refusal, sentence, whole_number
from broker.client._reading import NO_ANSWER, UNREADABLE
from broker.client._trust import authorities
from broker.client.asks import Ask
from broker.client.credentials import Presented
from broker.client.failures import BadAnswer, BrokerError, StepUp, Unavailable
from broker.client.patience import TOO_LATE

_LARGEST_ANSWER: Final = 256 * 1024
_Answer = TypeVar("_Answer")


class AsyncHttp:
    """Asks over HTTP, for a running event loop. ``issuer`` is the broker's; nothing else is contacted."""

    def __init__(self, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        self._client = httpx2.AsyncClient(**settings(issuer, ca_file))

    async def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``. Whoever calls sees to it that it ends in time."""
        request = _request(self._client, self.issuer, ask, presented, within)
        body = Body()
        try:
            answer = await self._client.send(request, stream=True)
            try:
                async for chunk in answer.aiter_raw():
                    body.take(chunk)
            finally:
                await answer.aclose()
        except httpx2.HTTPError as error:
            raise _unreachable(self.issuer, error) from None
        return _read(ask, answer, body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class SyncHttp:
    """The same for code that blocks; it sees to its end in time itself, from chunk to chunk."""

    def __init__(self, issuer: str, *, ca_file: str | None = None) -> None:
        self.issuer = issuer
        self._client = httpx2.Client(**settings(issuer, ca_file))

    def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer:
        """The answer; raises ``BrokerError``."""
        request = _request(self._client, self.issuer, ask, presented, within)
        body = Body(end=time.monotonic() + within)
        try:
            answer = self._client.send(request, stream=True)
            try:
                for chunk in answer.iter_raw():
                    body.take(chunk)
            finally:
                answer.close()
        except httpx2.HTTPError as error:
            raise _unreachable(self.issuer, error) from None
        return _read(ask, answer, body)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


class Body:
    """A body as it comes in; one that is too large or too late is read no further."""

    def __init__(self, *, end: float = float("inf")) -> None:
        self._end = end
        self._taken = bytearray()

    def take(self, chunk: bytes) -> None:
        """Take some more; raises ``BadAnswer`` or ``Unavailable``."""
        self._taken += chunk
        if len(self._taken) > _LARGEST_ANSWER:
            raise BadAnswer("The answer is too large.")
        if time.monotonic() > self._end:
            raise Unavailable(TOO_LATE)

    def members(self) -> Mapping[str, Any] | None:
        """The JSON object that it is; ``None`` for what is none. Nothing at all is an empty one."""
        try:
            read = json.loads(self._taken or b"{}")
        except (ValueError, RecursionError):
            return None
        return read if isinstance(read, dict) else None


def settings(url: str, ca_file: str | None) -> dict[str, Any]:
    """What every client of ours is made with; nothing ambient takes part: no proxy, no redirect."""
    return {
        "trust_env": False,
        "follow_redirects": False,
        # The answers are small, and what is not compressed cannot unfold.
        "headers": {"Accept-Encoding": "identity"},
        "verify": _trust(url, ca_file),
    }


def _trust(url: str, ca_file: str | None) -> ssl.SSLContext:
    if ca_file is None and url.startswith("http://"):
        # Nobody is asked over TLS, so nobody need be believed; the system's authorities take long to read.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return authorities(ca_file)


def _request(
    client: httpx2.AsyncClient | httpx2.Client,
    issuer: str,
    ask: Ask[Any],
    presented: Presented,
    within: float,
) -> httpx2.Request:
    _reader(ask)
    headers = {} if presented.authorization is None else {"Authorization": presented.authorization}
    return client.build_request(
        "POST",
        f"{issuer.rstrip('/')}/{ask.endpoint}",
        data=dict((*ask.form, *presented.form.items())),
        headers=headers,
        timeout=within,
    )


def _reader(ask: Ask[_Answer]) -> Callable[[Mapping[str, Any]], _Answer]:
    if ask.read_json is None:
        raise BadAnswer("This can be asked over gRPC alone.")
    return ask.read_json


def _read(ask: Ask[_Answer], answer: httpx2.Response, body: Body) -> _Answer:
    members = body.members()
    if answer.status_code == httpx2.codes.OK and members is not None:
        try:
            return _reader(ask)(members)
        except UNREADABLE:
            raise BadAnswer(NO_ANSWER) from None
    if members is not None and isinstance(members.get("error"), str):
        raise _failure(members, answer.headers)
    is_busy = answer.status_code == httpx2.codes.TOO_MANY_REQUESTS
    if is_busy or answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        # It is not the broker that says so, but something on the way to it.
        raise refusal(
            "temporarily_unavailable",
            f"The broker answers with status {answer.status_code}.",
            retry_after=whole_number(answer.headers.get("Retry-After")),
        )
    raise BadAnswer(f"The answer has status {answer.status_code} and is not the broker's.")


def _failure(members: Mapping[str, Any], headers: Mapping[str, str]) -> BrokerError:
    max_age = members.get("max_age")
    return refusal(
        members["error"],
        str(members.get("error_description", "")),
        decision_id=headers.get("Broker-Decision-Id", ""),
        retry_after=whole_number(headers.get("Retry-After")),
        step_up=StepUp(
            sentence(str(members.get("acr_values", ""))),
            max_age if isinstance(max_age, int) else None,
        ),
    )


def _unreachable(issuer: str, error: httpx2.HTTPError) -> Unavailable:
    is_nobody_there = isinstance(error, httpx2.ConnectError)
    how = "nobody can be reached" if is_nobody_there else type(error).__name__
    return Unavailable(f"The broker at {issuer} does not answer: {how}.")
