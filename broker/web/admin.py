"""The operators' port: whether the broker lives, whether it is ready, and its measures."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import uvicorn
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from broker.lifeline import ORPHANED, REPORT_LIMIT, Lifeline
from broker.web.idle_connections import IDLE_SECONDS, MOST, OperatorsConnection
from broker.web.readiness import Readiness

Beside = Callable[[], AbstractAsyncContextManager[object]]
"""Begins what is served in the same event loop, until the end of its block."""

MetricsPage = Callable[[Mapping[str, bool], Mapping[tuple[str, str], bool]], bytes]
"""Makes the page for Prometheus; it is told which workers are up, and which checks pass."""

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_HEADER_LIMIT = 16 * 1024


def admin_app(
    readiness: Readiness, exposition: MetricsPage, *, routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """
    The port's pages; ``routes`` are further ones.

    It asks nobody who they are, so it listens on loopback or a network for operators alone
    (CFG-03), and tells nothing that is secret.
    """

    async def livez(_request: Request) -> Response:
        # A dependency that is away is no reason to be started again, so none is looked at.
        return PlainTextResponse("ok\n", headers=_HEADERS)

    async def readyz(request: Request) -> Response:
        findings = await readiness.findings()
        is_ready = not any(finding.failure for finding in findings)
        text = "ok\n" if is_ready else "not ready\n"
        if "verbose" in request.query_params:
            verdict = f"readyz check {'passed' if is_ready else 'failed'}"
            text = "\n".join([*map(str, findings), verdict, ""])
        return PlainTextResponse(text, status_code=200 if is_ready else 503, headers=_HEADERS)

    async def metrics(_request: Request) -> Response:
        findings = await readiness.findings()
        workers = readiness.workers_up()
        checks = {one.check: not one.failure for one in findings if one.name not in workers}
        page = await asyncio.to_thread(exposition, workers, checks)
        return Response(page, headers=_HEADERS, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    own = [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    return Starlette(routes=[*own, *routes])


def run_control(
    lifeline: Lifeline,
    *,
    listener: tuple[str, int],
    readiness: Callable[[], Readiness],
    exposition: MetricsPage,
    routes: Sequence[BaseRoute] = (),
    beside: Beside = contextlib.nullcontext,
) -> None:
    """
    Serve the operators' port until asked to stop; the whole life of the control process.

    ``listener`` is the address and port to listen on. ``readiness`` is made here, in the process
    and the event loop that use it, and so is what is served ``beside`` it. Raises ``OSError`` when the
    port cannot be had.
    """
    host, port = listener
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=MOST) as server:
        serving = _serve(
            lifeline, server, readiness(), exposition=exposition, routes=routes, beside=beside
        )
        asyncio.run(serving)


async def _serve(
    lifeline: Lifeline,
    listener: socket.socket,
    readiness: Readiness,
    *,
    exposition: MetricsPage,
    routes: Sequence[BaseRoute],
    beside: Beside,
) -> None:
    app = admin_app(readiness, exposition, routes=routes)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=OperatorsConnection,
            lifespan="off",
            ws="none",
            # Logging is set up once for the whole broker.
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST,
            h11_max_incomplete_event_size=_HEADER_LIMIT,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=1,
        )
    )
    loop = asyncio.get_running_loop()
    loop.add_reader(lifeline.inbox, _take_in, lifeline.inbox, readiness)
    _follow(lifeline, server)
    async with beside():
        await server.serve(sockets=[listener])


def _take_in(inbox: socket.socket, readiness: Readiness) -> None:
    with contextlib.suppress(BlockingIOError):
        # One byte more than is allowed tells a report that was cut from one that fits.
        readiness.hear(inbox.recv(REPORT_LIMIT + 1))


def _follow(lifeline: Lifeline, server: uvicorn.Server) -> None:
    """Obey the order to stop even if it came before the server listened for it, and end as orphan."""
    loop = asyncio.get_running_loop()

    def obey() -> None:
        if lifeline.is_orphaned:
            os._exit(ORPHANED)
        server.should_exit = True
        for descriptor in lifeline.descriptors:
            loop.remove_reader(descriptor)

    for descriptor in lifeline.descriptors:
        loop.add_reader(descriptor, obey)
