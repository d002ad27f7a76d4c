"""Where the primary is that holds the state: one server, or whom the sentinels or a cluster name."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from valkey.crc import key_slot

from broker.state.valkey_link import Access, Endpoint, Link, Reply, ValkeyFault

OpenLink = Callable[[Endpoint, Access], Link]
"""Makes a connection that connects when it is first used."""


class Places(Protocol):
    """
    Knows where the primary is, by a moment of the monotonic clock. Raises ``ValkeyFault``.

    ``is_told`` says that it may be another one without the former knowing, so that others must be asked.
    """

    @property
    def is_told(self) -> bool: ...
    def primary(self, *, moment: float) -> Endpoint: ...


@dataclass(frozen=True, slots=True)
class OneServer:
    """The server is where the settings say."""

    endpoint: Endpoint

    @property
    def is_told(self) -> bool:
        return False

    def primary(self, *, moment: float) -> Endpoint:  # noqa: ARG002 - it need not look for it.
        return self.endpoint


@dataclass(frozen=True, slots=True)
class Sentinels:
    """
    Whom the sentinels name.

    More than half must answer, and the one that knows of the latest failover is believed: those who are cut
    off from the others go on naming the primary that was, and a failover takes more than half.
    """

    service: str
    endpoints: Sequence[Endpoint]
    access: Access
    open_link: OpenLink

    @property
    def is_told(self) -> bool:
        return True

    def primary(self, *, moment: float) -> Endpoint:
        command = ("SENTINEL", "MASTER", self.service)
        found, fault = _ask_all(self, command, moment=moment, enough=len(self.endpoints))
        named = [_named_by_sentinel(reply) for _, reply in found]
        best = max((one for one in named if one is not None), default=None, key=lambda one: one[0])
        if best is None or 2 * len(found) <= len(self.endpoints):
            raise ValkeyFault(f"too few sentinels answer: {fault}")
        return best[1]


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    Whom a node of the cluster names for the slot of this key.

    A primary that is cut off from the others stops by itself.
    """

    key: bytes
    endpoints: Sequence[Endpoint]
    access: Access
    open_link: OpenLink

    @property
    def is_told(self) -> bool:
        return False

    def primary(self, *, moment: float) -> Endpoint:
        found, fault = _ask_all(self, ("CLUSTER", "SLOTS"), moment=moment, enough=1)
        slot = key_slot(self.key)
        for asked, reply in found:
            named = _named_by_node(reply, slot, asked)
            if named is not None:
                return named
        raise ValkeyFault(f"no node names a primary: {fault}")


def _ask_all(
    places: Sentinels | Cluster, command: tuple[str, ...], *, moment: float, enough: int
) -> tuple[list[tuple[Endpoint, Reply]], str]:
    """What so many of the servers answer, asked in any order, and why the last that failed did."""
    found: list[tuple[Endpoint, Reply]] = []
    fault = "the answer is not understood"
    asked = random.sample(list(places.endpoints), len(places.endpoints))
    for at, endpoint in enumerate(asked):
        link = places.open_link(endpoint, places.access)
        now = time.monotonic()
        try:
            reply = link.ask(*command, moment=now + (moment - now) / (len(asked) - at))
            found.append((endpoint, reply))
        except ValkeyFault as failed:
            fault = failed.detail
        finally:
            link.close()
        if len(found) >= enough:
            break
    return found, fault


def _named_by_sentinel(reply: Reply) -> tuple[int, Endpoint] | None:
    """The number of the failover, and the primary since then."""
    try:
        facts = dict(zip(reply[::2], reply[1::2], strict=True))
        endpoint = _endpoint(facts[b"ip"], int(facts[b"port"]))
        return int(facts[b"config-epoch"]), endpoint
    except (KeyError, TypeError, ValueError, UnicodeError):
        return None


def _named_by_node(reply: Reply, slot: int, asked: Endpoint) -> Endpoint | None:
    """The primary of the slot; a node that has no name for itself is where it was asked."""
    try:
        for first, last, primary, *_ in reply:
            if first <= slot <= last:
                return _endpoint(primary[0] or asked.host.encode(), primary[1])
    except (IndexError, TypeError, ValueError, UnicodeError):
        pass
    return None


def _endpoint(host: bytes, port: int) -> Endpoint:
    if not host or not 0 < port < 65_536:
        raise ValueError("no address")
    return Endpoint(host.decode("ascii"), port)
