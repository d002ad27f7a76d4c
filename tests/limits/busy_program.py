"""
A face over a core that takes its time for each request, and nothing else: so many at once, so long each.

What it can do in a second is known, therefore, and next to no processor is needed for it.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from broker.model import IssuedToken, RequestContext
from broker.rpc.boundary import CallLimits
from broker.rpc.server import build_server
from broker.web.app import OAuthApp
from broker.web.server import HttpListener, serve_http
from tests.web.face_fakes import ISSUED, ISSUER, FakeToken, fake_endpoints

PLACES = 4
SECONDS = 0.04
CAPACITY = PLACES / SECONDS


class SlowToken(FakeToken):
    """Issues the same token to everybody, slowly."""

    def issue(self, _context: RequestContext, read: Callable[[], Any]) -> IssuedToken:
        read()
        time.sleep(SECONDS)
        return ISSUED


def main(face: str, port: int) -> None:
    endpoints = fake_endpoints(SlowToken())
    if face == "http":
        serve_http(
            lambda: OAuthApp(endpoints, issuer=ISSUER, max_concurrent=PLACES),
            HttpListener("127.0.0.1", port),
        )
        return
    limits = CallLimits(threads=PLACES)
    server = build_server(endpoints, address=f"127.0.0.1:{port}", limits=limits)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    over.wait()
    server.stop(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
