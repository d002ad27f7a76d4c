"""The server of streams: grpc.aio beside the operators' port, with limits on all that a caller can hold."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import grpc.aio

from broker.endpoints.watching import WatchEndpoint
from broker.model import TlsFiles
from broker.rpc.audit_service import SERVICE as AUDIT_SERVICE
from broker.rpc.audit_service import AuditService, RecordReading
from broker.rpc.revocation_feed import RevocationFeed
from broker.rpc.revocation_service import SERVICE, RevocationService
from broker.rpc.stream_calls import StreamCalls
from broker.rpc.tls import ReloadingTls
from broker.rpc.unheard import Unheard

_ADMITTING_THREADS: Final = 8
_READING_THREADS: Final = 4
_MOST_CALLS: Final = 2048
"""More than may wait for their message, for admission, and stream, so that one cannot shut out another."""

_METADATA_BYTES: Final = 16 * 1024
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # One process serves this port.
    ("grpc.so_reuseport", 0),
    ("grpc.max_metadata_size", _METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", 2048),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    # Whoever listens authenticates anew after half an hour at the latest, and streams that nobody reads
    # end with their connections.
    ("grpc.max_connection_age_ms", 1_800_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
    # A peer that is gone is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)


@dataclass(frozen=True, slots=True)
class StreamListener:
    """
    Where streams are asked for, and how.

    The message of a call must come within ``read_timeout``, and what is sent must be taken within
    ``write_timeout``.
    """

    address: str
    tls: TlsFiles | None = None
    max_message_bytes: int = 65_536
    read_timeout: timedelta = timedelta(seconds=5)
    write_timeout: timedelta = timedelta(seconds=5)


@asynccontextmanager
async def streaming(
    endpoint: WatchEndpoint,
    feed: RevocationFeed,
    listener: StreamListener,
    *,
    reading: RecordReading | None = None,
) -> AsyncIterator[int]:
    """
    Serve streams until the end of the block; it gives the port.

    With ``reading`` questions about the audit record are answered beside them.
    Raises ``RuntimeError`` when the port cannot be had, ``ValueError`` or ``OSError`` for bad TLS files.
    """
    threads = ThreadPoolExecutor(_ADMITTING_THREADS, "admission")
    server = grpc.aio.server(
        options=(
            *_OPTIONS,
            # A little more is taken than is accepted, so that its refusal is ours, with a record.
            ("grpc.max_receive_message_length", 2 * listener.max_message_bytes),
        ),
        maximum_concurrent_rpcs=_MOST_CALLS,
    )
    calls = StreamCalls(
        Unheard(listener.read_timeout),
        max_message_bytes=listener.max_message_bytes,
        write_timeout=listener.write_timeout,
    )
    service = RevocationService(
        endpoint,
        feed,
        threads=threads,
        calls=calls,
    )
    server.add_registered_method_handlers(SERVICE, service.handlers())
    reading_threads = ThreadPoolExecutor(_READING_THREADS, "audit-reading")
    if reading is not None:
        record = AuditService(reading, threads=reading_threads, calls=calls)
        server.add_registered_method_handlers(AUDIT_SERVICE, record.handlers())
    port = _bind(server, listener)
    following = asyncio.create_task(feed.follow())
    await server.start()
    try:
        yield port
    finally:
        # Streams have no end of their own to wait for.
        await server.stop(0)
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        threads.shutdown(wait=False, cancel_futures=True)
        reading_threads.shutdown(wait=False, cancel_futures=True)


def _bind(server: grpc.aio.Server, listener: StreamListener) -> int:
    if listener.tls is None:
        return server.add_insecure_port(listener.address)
    return server.add_secure_port(listener.address, ReloadingTls(listener.tls).credentials())
