"""The faces of a broker, of which the one that is used is loaded."""

from typing import Protocol, TypeVar

from broker.client._addresses import private_origin
from broker.client.asks import Ask
from broker.client.credentials import Presented

_Answer = TypeVar("_Answer")


class AsyncFace(Protocol):
    """One face of the broker, for a running event loop."""

    issuer: str

    async def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer: ...
    async def aclose(self) -> None: ...


class SyncFace(Protocol):
    """One face of the broker, for code that blocks."""

    issuer: str

    def ask(self, ask: Ask[_Answer], presented: Presented, *, within: float) -> _Answer: ...
    def close(self) -> None: ...


# gRPC alone costs a tenth of a second to load, and an HTTP client as much, so neither is loaded above.


def async_face(issuer: str, *, grpc: str | None, ca_file: str | None) -> AsyncFace:
    """The gRPC face at ``host:port``, or else the HTTP face at the issuer's URL."""
    private_origin(issuer)
    if grpc is not None:
        from broker.client._grpc import AsyncGrpc  # noqa: PLC0415 - see above.

        return AsyncGrpc(grpc, issuer, ca_file=ca_file)
    from broker.client._http import AsyncHttp  # noqa: PLC0415 - see above.

    return AsyncHttp(issuer, ca_file=ca_file)


def sync_face(issuer: str, *, grpc: str | None, ca_file: str | None) -> SyncFace:
    """The same for code that blocks."""
    private_origin(issuer)
    if grpc is not None:
        from broker.client._grpc import SyncGrpc  # noqa: PLC0415 - see above.

        return SyncGrpc(grpc, issuer, ca_file=ca_file)
    from broker.client._http import SyncHttp  # noqa: PLC0415 - see above.

    return SyncHttp(issuer, ca_file=ca_file)
