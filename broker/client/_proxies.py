"""Whether what stays on this machine would make a detour over a proxy, which would read it."""

from typing import Final
from urllib.request import getproxies, proxy_bypass

from broker.client._addresses import Origin
from broker.client.failures import WrongOrigin

_OF_HTTP: Final = ("http", "all")


def check_direct(found: Origin) -> None:
    """
    Raise ``WrongOrigin`` where the environment has plain http to the origin sent to a proxy.

    Only https may go through one, since a proxy sees nothing of that. Clients that do not ask the environment
    are refused too: from here they look the same. Of ports in ``NO_PROXY`` each library thinks otherwise,
    so they count for nothing.
    """
    if found.scheme != "http":
        return
    proxies = getproxies()
    if any(proxies.get(kind) for kind in _OF_HTTP) and not proxy_bypass(found.host):
        raise WrongOrigin(
            f"A proxy would read the token for {found}: name {found.host} in NO_PROXY."
        )
