"""``python -m bench.client``: what the client library costs: its import, and a token that is remembered."""

import asyncio
import base64
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from broker.client import Broker, Secret, SyncBroker

ROUNDS: Final = 9
CALLS: Final = 20_000
BOUND: Final = 20.0
"""What a remembered token may cost at most, in microseconds."""

API: Final = "https://api.crm.example/v2"
SCOPES: Final = ("crm.contacts.read",)
SECRET: Final = Secret("mcp-tickets", "secret")
PROGRAMS: Final = {
    "python itself": "pass",
    "asyncio": "import asyncio",
    "broker.client": "import broker.client",
    "broker.client, with its HTTP client": "import broker.client._http",
    "broker.client, with gRPC": "import broker.client._grpc",
}


class _Granting(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Grant a token."""
        self.rfile.read(int(self.headers["Content-Length"]))
        granted = {"access_token": "t" * 900, "token_type": "Bearer", "expires_in": 300}
        body = json.dumps(granted).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def _granting() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Granting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def subject_token() -> str:
    """A token of the usual size, with an expiry to be minded."""
    payload = json.dumps({"exp": int(time.time()) + 600, "more": "x" * 600}).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.{'s' * 86}"


async def _async_round(broker: Broker, token: str) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        await broker.token_for(token, resource=API, scopes=SCOPES)
    return (time.perf_counter() - begun) / CALLS * 1e6


def _sync_round(broker: SyncBroker, token: str) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        broker.token_for(token, resource=API, scopes=SCOPES)
    return (time.perf_counter() - begun) / CALLS * 1e6


async def _async_costs(issuer: str, token: str) -> list[float]:
    async with Broker(issuer, SECRET) as broker:
        await broker.token_for(token, resource=API, scopes=SCOPES)
        return [await _async_round(broker, token) for _ in range(ROUNDS)]


def _sync_costs(issuer: str, token: str) -> list[float]:
    with SyncBroker(issuer, SECRET) as broker:
        broker.token_for(token, resource=API, scopes=SCOPES)
        return [_sync_round(broker, token) for _ in range(ROUNDS)]


def _import_costs(program: str) -> list[float]:
    costs = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        costs.append((time.perf_counter() - begun) * 1e3)
    return costs


def main() -> None:
    """Measure and print medians, with the least in brackets; a machine at work elsewhere adds to both."""
    with _granting() as issuer:
        token = subject_token()
        costs = {
            "Broker": asyncio.run(_async_costs(issuer, token)),
            "SyncBroker": _sync_costs(issuer, token),
        }
    for name, rounds in costs.items():
        print(
            f"{name}.token_for, remembered: {statistics.median(rounds):.1f} us ({min(rounds):.1f})"
        )
        assert min(rounds) < BOUND, name
    for name, program in PROGRAMS.items():
        rounds = _import_costs(program)
        print(f"start with {name}: {statistics.median(rounds):.0f} ms ({min(rounds):.0f})")


if __name__ == "__main__":
    main()
