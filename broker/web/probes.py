"""Questions that the control process asks the broker's own ports, as any client could."""

import asyncio
import contextlib
import ssl

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from broker.web.readiness import PROBE_DEADLINE, Probe, ProbeFailed, Unready

_ANSWER_LIMIT = 64 * 1024

_CHANNEL_OPTIONS = (
    # The environment may name a proxy; our own ports are not behind it.
    ("grpc.enable_http_proxy", 0),
    # A shared connection could be in its back-off, and would tell about the last attempt.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", _ANSWER_LIMIT),
)

_WHY = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Unready.DEADLINE,
    grpc.StatusCode.UNAVAILABLE: Unready.UNREACHABLE,
}


def grpc_probe(
    target: str,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    server_name: str | None = None,
) -> Probe:
    """
    Ask for the health of a gRPC face, over a connection of its own each time.

    ``credentials`` are for a face with TLS, with a client certificate where it wants one;
    ``server_name`` is the name in the face's certificate where ``target`` is an address.
    """
    options: list[tuple[str, str | int]] = list(_CHANNEL_OPTIONS)
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))

    async def probe() -> None:
        channel = (
            grpc.aio.insecure_channel(target, options=options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=options)
        )
        async with channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                answer = await check(health_pb2.HealthCheckRequest(), timeout=PROBE_DEADLINE)
            except grpc.aio.AioRpcError as error:
                raise ProbeFailed(_WHY.get(error.code(), Unready.WRONG_ANSWER)) from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise ProbeFailed(Unready.NOT_SERVING)

    return probe


def http_probe(
    host: str,
    port: int,
    *,
    path: str,
    authority: str,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Probe:
    """
    Fetch ``path`` from an HTTP face, over a connection of its own each time; 200 is right.

    ``authority`` is the ``Host`` to ask for. With ``tls``, ``server_name`` is the name in the
    face's certificate, by default ``host``.
    """
    name = None if tls is None else server_name or host
    request = f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode(
        "ascii"
    )

    async def probe() -> None:
        try:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=name, limit=_ANSWER_LIMIT
            )
        except OSError as error:
            raise ProbeFailed(Unready.UNREACHABLE) from error
        try:
            writer.write(request)
            status = await reader.readuntil(b"\r\n")
            await reader.read(_ANSWER_LIMIT)
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise ProbeFailed(Unready.WRONG_ANSWER) from error
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if status.split(b" ", 2)[:2] != [b"HTTP/1.1", b"200"]:
            raise ProbeFailed(Unready.WRONG_ANSWER)

    return probe
