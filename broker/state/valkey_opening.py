"""From plain facts about servers to the primary among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.fetch.resolver import TimedResolver, resolve_by_system
from broker.state.valkey_link import Access, ClientTls, Endpoint, Link
from broker.state.valkey_places import Cluster, OneServer, OpenLink, Places, Sentinels
from broker.state.valkey_primary import Primary


@dataclass(frozen=True, slots=True)
class Servers:
    """
    Where servers are, as host and port, and how to talk to them.

    With a ``service`` they are sentinels. ``tls`` has the files of the authorities, of the certificate and of
    its key; a credential is a user's name and the file of a password.
    """

    hosts: Sequence[tuple[str, int]]
    service: str | None = None
    is_cluster: bool = False
    tls: tuple[Path | None, Path | None, Path | None] | None = None
    credential: tuple[str | None, Path | None] = (None, None)
    sentinel_credential: tuple[str | None, Path | None] = (None, None)
    database: int = 0


def primary_of(
    servers: Servers, *, prefix: str, connections: int, deadline: float, opening: float = 0.0
) -> Primary:
    """The primary that holds the keys with this prefix; nobody is asked for it yet."""
    resolver = TimedResolver(resolve_by_system)

    def open_link(endpoint: Endpoint, access: Access) -> Link:
        return Link(endpoint, access, resolver=resolver)

    tls = None if servers.tls is None else ClientTls(*servers.tls)
    access = Access(tls, *servers.credential, servers.database)
    places = _places(servers, Access(tls, *servers.sentinel_credential), access, prefix, open_link)
    return Primary(
        places,
        access,
        open_link=open_link,
        connections=connections,
        deadline=deadline,
        opening=opening,
    )


def _places(
    servers: Servers, at_sentinels: Access, access: Access, prefix: str, open_link: OpenLink
) -> Places:
    endpoints = [Endpoint(host, port) for host, port in servers.hosts]
    if servers.service is not None:
        return Sentinels(servers.service, endpoints, at_sentinels, open_link)
    if servers.is_cluster:
        return Cluster(f"{{{prefix}}}".encode(), endpoints, access, open_link)
    return OneServer(endpoints[0])
