"""Which authorities the library believes when it talks over TLS."""

import ssl
from functools import cache

import httpx2


def authorities(ca_file: str | None) -> ssl.SSLContext:
    """Those in a PEM file, or the system's; nothing in the environment names others."""
    if ca_file is not None:
        return ssl.create_default_context(cafile=ca_file)
    return _of_the_system()


# There are hundreds of them, and to read them takes as long as to verify a thousand tokens.
@cache
def _of_the_system() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)
