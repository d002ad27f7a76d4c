"""The key ring's tests share the servers of the fetch's."""

from tests.fetch.conftest import authority, ca_file, serve, server_tls

__all__ = ["authority", "ca_file", "serve", "server_tls"]
