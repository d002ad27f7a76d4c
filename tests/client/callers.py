"""The HTTP libraries that have an adapter, behind one way of sending a request."""

import asyncio
import contextvars
import importlib
import ssl
from dataclasses import dataclass
from typing import Any, Final, Protocol

import requests

from broker.client import Broker, Secret, SyncBroker
from broker.client.requests import BrokerAuth as RequestsAuth

LIBRARIES: Final = ("httpx2-async", "httpx2-sync", "httpx-async", "httpx-sync", "requests")
SECRET: Final = Secret("tickets", "s3cret")
# No server here speaks TLS, and the authorities of the system take long to read.
SETTINGS: Final[dict[str, Any]] = {
    "follow_redirects": True,
    "trust_env": False,
    "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
}


@dataclass(frozen=True)
class Got:
    """What came back in the end: whose answer, and what it says."""

    status: int
    url: str
    body: bytes


class Caller(Protocol):
    """Sends requests with tokens for a resource; redirects are followed."""

    def send(self, url: str, *, method: str = "GET", **request: Any) -> Got: ...
    def close(self) -> None: ...


class AsyncCaller:
    """httpx or httpx2, in an event loop."""

    def __init__(self, library: str, issuer: str, resource: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._broker = Broker(issuer, SECRET)
        auth = importlib.import_module(f"broker.client.{library}").BrokerAuth
        self._client = importlib.import_module(library).AsyncClient(
            auth=auth(self._broker, resource, **options), **SETTINGS
        )

    def send(self, url: str, *, method: str = "GET", **request: Any) -> Got:
        async def run() -> Got:
            answer = await self._client.request(method, url, **request)
            return Got(answer.status_code, str(answer.url), answer.content)

        # The request in progress is that of whoever sends.
        return self._runner.run(run(), context=contextvars.copy_context())

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._broker.aclose())
        self._runner.close()


class SyncCaller:
    """httpx or httpx2, where there is none."""

    def __init__(self, library: str, issuer: str, resource: str, **options: Any) -> None:
        self._broker = SyncBroker(issuer, SECRET)
        auth = importlib.import_module(f"broker.client.{library}").BrokerAuth
        self._client = importlib.import_module(library).Client(
            auth=auth(self._broker, resource, **options), **SETTINGS
        )

    def send(self, url: str, *, method: str = "GET", **request: Any) -> Got:
        answer = self._client.request(method, url, **request)
        return Got(answer.status_code, str(answer.url), answer.content)

    def close(self) -> None:
        self._client.close()
        self._broker.close()


class RequestsCaller:
    """requests."""

    def __init__(self, issuer: str, resource: str, **options: Any) -> None:
        self._broker = SyncBroker(issuer, SECRET)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = RequestsAuth(self._broker, resource, **options)

    def send(self, url: str, *, method: str = "GET", **request: Any) -> Got:
        if "content" in request:
            request["data"] = request.pop("content")
        answer = self._session.request(method, url, timeout=10, **request)
        return Got(answer.status_code, answer.url, answer.content)

    def close(self) -> None:
        self._session.close()
        self._broker.close()


def caller(library: str, issuer: str, resource: str, **options: Any) -> Caller:
    """A library with our adapter; the options are the adapter's."""
    name, _, kind = library.partition("-")
    kinds: dict[str, type[AsyncCaller | SyncCaller]] = {"async": AsyncCaller, "sync": SyncCaller}
    if kind in kinds:
        return kinds[kind](name, issuer, resource, **options)
    return RequestsCaller(issuer, resource, **options)
