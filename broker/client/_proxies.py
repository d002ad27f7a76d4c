"""Whether what stays on this machine would make a detour over a proxy, which would read it."""

from typing import Final
from urllib.request import getproxies, proxy_bypass

from broker.client._addresses import Origin
from broker.client.failures import WrongOrigin

_OF_HTTP: Final = ("http", "all")
# gRPC asks these in their turn, also for channels without TLS and also on loopback.
_OF_GRPC: Final = ("grpc", "https", "http", "all")


def check_direct(found: Origin, *, is_grpc: bool = False) -> None:
    """
    Raise ``WrongOrigin`` where the environment has plain text to the origin sent to a proxy.

    Only https may go through one, since a proxy sees nothing of that. Clients that do not ask the environment
    are refused too: from here they look the same.
    """
    if found.scheme != "http":
        return
    proxies = getproxies()
    kinds = _OF_GRPC if is_grpc else _OF_HTTP
    if any(proxies.get(kind) for kind in kinds) and not proxy_bypass(f"{found.host}:{found.port}"):
        raise WrongOrigin(
            f"A proxy would read the token for {found}: name {found.host} in NO_PROXY."
        )
