"""The OAuth face on its real server, started as a process of its own by the tests beside it."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from broker.endpoints import Endpoints
from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.model import IssuedToken, Quota, RequestContext, TlsFiles, TokenRequest
from broker.web.app import OAuthApp
from broker.web.peers import Peers
from broker.web.server import HttpListener, serve_http
from tests.web.face_fakes import (
    CANARY,
    ISSUED,
    ISSUER,
    FakeDiscovery,
    FakeExplain,
    FakeInquiries,
)

PROXY = "127.0.0.77"
"""The one address here whose word about callers is taken."""
QUOTAS = Limits(LocalAllowances(), LimitTerms(per_source=Quota(rate=1 / 3600, burst=1)))


class TellingToken:
    """Answers with what it was asked, where the resource would stand."""

    def issue(self, context: RequestContext, read: Callable[[], TokenRequest]) -> IssuedToken:
        request = read()
        if request.subject_token == "wait":
            # Until a byte arrives from the test.
            tell("waiting")
            os.read(0, 1)
        if request.subject_token == "charge":
            QUOTAS.charge(context.source)
        if request.subject_token == "fail":
            raise ValueError(CANARY)
        facts = {
            "pid": os.getpid(),
            "peer": context.peer,
            "authorization": request.credential.unverified_authorization,
            "proofs": request.proofs,
            "present": sorted(request.present),
            "scopes": request.scopes,
        }
        return replace(ISSUED, resource=json.dumps(facts))


def tell(event: str) -> None:
    os.write(1, f"{event}\n".encode())


def app() -> OAuthApp:
    endpoints = Endpoints(
        token=cast("Any", TellingToken()),
        introspection=cast("Any", FakeInquiries()),
        revocation=cast("Any", FakeInquiries()),
        withdrawal=cast("Any", FakeInquiries()),
        discovery=cast("Any", FakeDiscovery()),
        explain=cast("Any", FakeExplain()),
        limits=QUOTAS,
    )
    peers = Peers([PROXY], header="CallerAddress")
    return OAuthApp(endpoints, issuer=ISSUER, peers=peers)


def main(port: int, directory: str, most: int, seconds: int) -> None:
    tls = None
    if directory:
        folder = Path(directory)
        authority = folder / "client-ca.pem"
        tls = TlsFiles(
            folder / "cert.pem", folder / "key.pem", authority if authority.exists() else None
        )
    listener = HttpListener(
        "127.0.0.1",
        port,
        tls=tls,
        header_timeout=timedelta(seconds=seconds),
        body_timeout=timedelta(seconds=seconds),
    )
    if most:
        # So that nothing but the crowd is what ends connections.
        long = timedelta(seconds=60)
        listener = replace(listener, max_connections=most, header_timeout=long, body_timeout=long)
    serve_http(app, listener, on_exit=lambda: tell("exited"))
    tell("stopped")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
