"""The key ring and the guarded fetch together, against real servers on this machine."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.fetch import GuardedFetcher
from broker.issuers import IssuerKeyRing, RefreshSchedule
from broker.model import KeySource
from tests.e2e.patience import is_swift
from tests.fetch.servers import Script, Server, answer
from tests.idp import Signer, signer

Serve = Callable[[Script], Server]
A1 = signer("a1")
A2 = signer("a2")
CALLERS = 8
SOME = 500
COOL_DOWN = 0.3
RECOVERY = 1.0
JWKS = json.dumps(A1.jwks).encode()


@pytest.fixture
def ring(ca_file: Path) -> Iterator[IssuerKeyRing]:
    fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file, deadline=30.0)
    ring = IssuerKeyRing(fetcher, refreshers=1)
    yield ring
    ring.close()


def fault_of(ring: IssuerKeyRing, source: KeySource) -> str:
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        ring.key(source, "a1", "ES256")
    assert unavailable.value.reason is Reason.KEY_SOURCE_UNAVAILABLE
    return unavailable.value.detail


@pytest.mark.requirement("IDJAG-R-27")
def test_keys_are_fetched_over_https_once_and_verify(serve: Serve, ring: IssuerKeyRing) -> None:
    server = serve(answer(JWKS, media_type="application/jwk-set+json"))
    source = KeySource(jwks_uri=server.https("/jwks"))

    for _ in range(3):
        assert ring.key(source, "a1", "ES256").verify(b"input", A1.signature(b"input"))

    assert server.connections == 1


@pytest.mark.requirement("R-20")
def test_a_new_key_under_load_is_found_by_the_first_token_and_fetched_once(
    serve: Serve, ca_file: Path
) -> None:
    def seconds_until_it_counts() -> float:
        published = [A1.jwk]

        def script(connection: socket.socket) -> None:
            answer(json.dumps({"keys": published}).encode())(connection)

        server = serve(script)
        fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file, deadline=30.0)
        ring = IssuerKeyRing(fetcher, schedule=RefreshSchedule(cool_down=COOL_DOWN, attempt=30.0))
        crowd = Crowd(ring, KeySource(jwks_uri=server.https("/jwks")))
        with closing(ring), crowd.at_work():
            reach(lambda: sum(crowd.verified) > SOME)
            time.sleep(COOL_DOWN)
            published.append(A2.jwk)
            crowd.signer = A2
            began, before = time.monotonic(), sum(crowd.verified)
            # By itself the ring would look again after a minute.
            reach(lambda: sum(crowd.verified) > before + SOME)
            took = time.monotonic() - began
        assert server.connections == 2
        return took

    assert is_swift(seconds_until_it_counts, seconds=RECOVERY)


@dataclass
class Crowd:
    """Callers who verify without a pause, whatever is signed at present, and are never refused."""

    ring: IssuerKeyRing
    source: KeySource
    signer: Signer = A1
    verified: list[int] = field(default_factory=lambda: [0] * CALLERS)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While this lasts; raises what any of them met with."""
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(self._call, number) for number in range(CALLERS)]
            try:
                yield
            finally:
                self._over.set()
            for caller in callers:
                caller.result(60)

    def _call(self, number: int) -> None:
        while not self._over.is_set():
            own = self.signer
            key = self.ring.key(self.source, own.kid, "ES256")
            assert key.verify(b"input", own.signature(b"input"))
            self.verified[number] += 1


def reach(condition: Callable[[], bool]) -> None:
    """Return once it holds."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_keys_are_discovered_over_https(serve: Serve, ring: IssuerKeyRing) -> None:
    def script(connection: socket.socket) -> None:
        issuer = server.https("/realm")
        if server.requests[-1].startswith(b"GET /jwks "):
            return answer(JWKS)(connection)
        document = {"issuer": issuer, "jwks_uri": server.https("/jwks")}
        return answer(json.dumps(document).encode())(connection)

    server = serve(script)
    source = KeySource(discovery=server.https("/realm"))

    assert ring.key(source, "a1", "ES256").verify(b"input", A1.signature(b"input"))
    assert [request.split()[1] for request in server.requests] == [
        b"/realm/.well-known/openid-configuration",
        b"/jwks",
    ]


@pytest.mark.requirement("KEY-11")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_keys_is_not_followed(
    serve: Serve, ring: IssuerKeyRing, status: int
) -> None:
    elsewhere = serve(answer(JWKS))
    server = serve(answer(JWKS, f"Location: {elsewhere.https('/jwks')}", status=f"{status} Moved"))

    assert fault_of(ring, KeySource(jwks_uri=server.https())) == "fetch_redirect"
    assert elsewhere.connections == 0


@pytest.mark.requirement("KEY-06")
def test_a_set_of_ten_megabytes_is_left_after_the_limit(serve: Serve, ring: IssuerKeyRing) -> None:
    server = serve(answer(b'{"keys":[' + b" " * 10_000_000 + b"]}"))

    assert fault_of(ring, KeySource(jwks_uri=server.https())) == "fetch_too_large"


@pytest.mark.requirement("NET-14")
def test_a_server_that_stalls_ends_the_attempt_in_time(serve: Serve, ca_file: Path) -> None:
    over = threading.Event()

    def stall(_connection: socket.socket) -> None:
        over.wait(60)

    server = serve(stall)
    fetcher = GuardedFetcher(allow_loopback=True, ca_file=ca_file, deadline=0.2)
    ring = IssuerKeyRing(fetcher, refreshers=0)

    assert fault_of(ring, KeySource(jwks_uri=server.https())) == "fetch_timeout"
    over.set()


@pytest.mark.requirement("KEY-10")
def test_a_key_source_at_an_internal_address_is_blocked(ring: IssuerKeyRing) -> None:
    assert fault_of(ring, KeySource(jwks_uri="https://169.254.169.254/jwks")) == "fetch_blocked"
    assert fault_of(ring, KeySource(discovery="https://10.0.0.1")) == "fetch_blocked"
