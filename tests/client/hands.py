"""The library in all the ways it can be held: async or sync, over HTTP or over gRPC."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.client import Broker, SyncBroker
from broker.client.credentials import Credential
from tests.e2e.setting import Setting

WAYS: Final = ("http-async", "http-sync", "grpc-async", "grpc-sync")


class Hand(Protocol):
    """Holds the library; ``do`` does something with it and returns what came of that."""

    def do(self, ask: Callable[[Any], Any]) -> Any: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class AsyncHand:
    """The library in an event loop, which runs while something is done."""

    broker: Broker
    runner: asyncio.Runner

    def do(self, ask: Callable[[Any], Any]) -> Any:
        return self.runner.run(_awaited(ask, self.broker))

    def close(self) -> None:
        self.runner.run(self.broker.aclose())
        self.runner.close()


@dataclass(frozen=True)
class SyncHand:
    """The library where there is none."""

    broker: SyncBroker

    def do(self, ask: Callable[[Any], Any]) -> Any:
        return ask(self.broker)

    def close(self) -> None:
        self.broker.close()


async def _awaited(ask: Callable[[Any], Any], broker: Broker) -> Any:
    return await ask(broker)


def hand(way: str, issuer: str, credential: Credential, /, **options: Any) -> Hand:
    """The library, held in this way; ``grpc`` among the options is used by the ways over gRPC alone."""
    target = options.pop("grpc", None)
    face = {"grpc": target} if way.startswith("grpc") else {}
    if way.endswith("-sync"):
        return SyncHand(SyncBroker(issuer, credential, **face, **options))
    runner = asyncio.Runner()
    return AsyncHand(Broker(issuer, credential, **face, **options), runner)


def hand_of(way: str, setting: Setting, credential: Credential, /, **options: Any) -> Hand:
    """The same for a broker that runs."""
    target = f"127.0.0.1:{setting.ports.grpc}"
    return hand(way, setting.issuer, credential, grpc=target, **options)
