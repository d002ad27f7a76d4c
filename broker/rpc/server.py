"""The gRPC server: services put on a port, with limits on everything a caller can hold on to."""

from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from broker.endpoints import Endpoints
from broker.model import TlsFiles
from broker.rpc import (
    admin_service,
    discovery_service,
    health,
    policy_service,
    token_inquiries,
    token_service,
)
from broker.rpc.boundary import Boundary, CallLimits
from broker.rpc.health import Health
from broker.rpc.reading import MessageReads
from broker.rpc.reflection import Reflection
from broker.rpc.threads import CallThreads
from broker.rpc.tls import ReloadingTls
from broker.v1 import (
    admin_service_pb2,
    discovery_service_pb2,
    policy_service_pb2,
    token_service_pb2,
)

_MOST_CALLS: Final = 1024
"""
Calls that may hold a thread. Few get near it: how many wait for their message is bounded, and how many
work is the boundary's limit. gRPC itself refuses those beyond, health checks among them.
"""
_HEALTH_CHECKS: Final = 64
"""Those that may wait for their message; no other call takes a place from them."""

_LIMITS: Final = CallLimits()
_METADATA_BYTES: Final = 16 * 1024
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # Every process of the face binds the port, and the kernel spreads connections over them.
    ("grpc.so_reuseport", 1),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    # One connection can fill the default number of places to work, and wait with no more than that;
    # honest clients hold further calls back, or open another connection.
    ("grpc.max_concurrent_streams", 16),
    # What this protection counts as open are also calls that were answered but not yet forgotten in
    # here; it would refuse honest clients. Calls that are reset are bounded as all others are.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_allowed_incoming_connections", 2048),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A connection without calls is closed after five minutes, any other after half an hour, so that
    # clients find new processes; and a peer that is gone is noticed.
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 35_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ping every ten seconds; the third ping too many ends the connection.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)


class RunningServer:
    """
    A gRPC server that takes calls.

    It reports itself healthy until told otherwise. ``port`` is the port that it got.
    """

    def __init__(
        self,
        server: grpc.Server,
        *,
        port: int,
        health_service: Health,
        reads: Sequence[MessageReads],
    ) -> None:
        self.port = port
        self._server = server
        self._health = health_service
        self._reads = reads

    def set_serving(self, is_serving: bool) -> None:  # noqa: FBT001 - The name says what it means.
        """Report health; load balancers look elsewhere while it is not serving."""
        self._health.set_serving(is_serving=is_serving)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended, or ``timeout`` seconds; tell whether the time ran out."""
        return self._server.wait_for_termination(timeout)

    def stop(self, grace: float) -> None:
        """Take no more calls, finish those under way within ``grace`` seconds, cut the rest off."""
        self._health.set_serving(is_serving=False)
        self._server.stop(grace).wait()
        for reads in self._reads:
            reads.stop()


def build_server(
    endpoints: Endpoints,
    *,
    address: str,
    limits: CallLimits = _LIMITS,
    tls: TlsFiles | None = None,
    has_reflection: bool = False,
) -> RunningServer:
    """
    Start serving ``endpoints`` on ``address``, a ``host:port`` with port 0 for any free one.

    Raises ``RuntimeError`` when the port cannot be had, ``ValueError`` or ``OSError`` for bad TLS
    files. It starts threads, so no process may be forked off afterwards.
    """
    reads = MessageReads(limits.read_timeout)
    health_reads = MessageReads(limits.read_timeout, places=_HEALTH_CHECKS)
    server = grpc.server(
        # gRPC asks for a pool, and uses no more of it than that it begins calls and tells their end.
        cast("Any", CallThreads()),
        # Beyond our own limit messages are taken up to twice its size, so that the refusal of one that
        # is a little too large is ours, with a record of it.
        options=(*_OPTIONS, ("grpc.max_receive_message_length", 2 * limits.max_message_bytes)),
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    origin = _proof_origin(endpoints.discovery.issuer)
    boundary = Boundary(reads, limits, endpoints.limits, proof_origin=origin)
    inquiries = token_inquiries.TokenInquiries(endpoints.introspection, endpoints.revocation)
    services = {
        token_service.SERVICE: {
            **token_service.TokenService(endpoints.token).rpcs(),
            **inquiries.rpcs(),
        },
        discovery_service.SERVICE: discovery_service.DiscoveryService(endpoints.discovery).rpcs(),
        policy_service.SERVICE: policy_service.PolicyService(endpoints.explain).rpcs(),
        admin_service.SERVICE: admin_service.AdminService(endpoints.withdrawal).rpcs(),
    }
    for name, rpcs in services.items():
        boundary.register(server, name, rpcs)
    health_service = Health((*services, health.SERVICE_NAME), health_reads)
    health_service.register(server)
    if has_reflection:
        Reflection(_DESCRIBED).register(server)
    port = _bind(server, address, tls)
    for one in (reads, health_reads):
        one.start()
    server.start()
    health_service.set_serving(is_serving=True)
    return RunningServer(
        server, port=port, health_service=health_service, reads=(reads, health_reads)
    )


_DESCRIBED: Final = (
    token_service_pb2.DESCRIPTOR,
    discovery_service_pb2.DESCRIPTOR,
    policy_service_pb2.DESCRIPTOR,
    admin_service_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    # The details of errors, so that tools can show them.
    error_details_pb2.DESCRIPTOR,
)


def _proof_origin(issuer: str) -> str:
    """
    What stands before the method in the address that DPoP proofs of calls must be for (RFC 9449 4.2).

    A call has no URL, so one is made of ``https``, whatever carries the call, and the issuer's host. The
    call's own ``:authority`` says nothing, since its sender chooses it: a server that somebody proved a
    key to could name itself there and use that proof here. Any port will do, because a face is often
    reached under another than it listens on.
    """
    host = urlsplit(issuer).hostname or ""
    return f"https://[{host}]:*" if ":" in host else f"https://{host}:*"


def _bind(server: grpc.Server, address: str, tls: TlsFiles | None) -> int:
    if tls is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, ReloadingTls(tls).credentials())
