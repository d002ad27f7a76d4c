"""A whole broker under five times what it can do: DOS-03, in its long form."""

import base64
import hashlib
from pathlib import Path
from typing import Final

import pytest

from broker.oauth import GRANT_CLIENT_CREDENTIALS
from broker.v1 import token_service_pb2
from tests.chaos.reporting import budget
from tests.e2e.running import RunningBroker
from tests.e2e.setting import SERVER, Setting, new_setting
from tests.e2e.torrent import Stretch, Torrent, pour

SHARE: Final = 8
LEAST_SECONDS: Final = 3.0
MOST_LOADS: Final = 8
"""For each face."""

LOADS: Final = (100, 200, 400, 800, 1600, 3200)
KEEPS_UP: Final = 0.9
CLIENT: Final = "agent-nightly"
SECRET: Final = "bks_" + "c" * 43
SCOPE: Final = "tickets:read"


def setting_without_limits(directory: Path) -> Setting:
    """A broker that takes whatever it can, and a client that costs its callers nothing."""
    setting = new_setting(directory)
    stored = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()
    client = {
        "id": CLIENT,
        "auth": {"method": "client_secret_basic", "secrets": [{"hash": stored}]},
        "grants": ["client_credentials"],
    }
    return setting.with_document(
        clients=[*setting.document["clients"], client],
        limits={"per_client": None, "per_source": None},
    )


def torrent(face: str, setting: Setting, *rates: float, connections: int) -> Torrent:
    """Requests of that client, the same each time."""
    authorization = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    if face == "grpc":
        message = token_service_pb2.IssueClientTokenRequest(resources=[SERVER], scopes=[SCOPE])
        head = f"/broker.v1.TokenService/IssueClientToken\n{authorization}"
        body = message.SerializeToString().decode("latin-1")
        return Torrent(face, setting.ports.grpc, head, body, rates, seconds(), connections)
    head = (
        f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{setting.ports.http}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nAuthorization: {authorization}\r\n"
    )
    body = f"grant_type={GRANT_CLIENT_CREDENTIALS}&resource={SERVER}&scope={SCOPE}"
    return Torrent(face, setting.ports.http, head, body, rates, seconds(), connections)


def seconds() -> float:
    """How long each load lasts."""
    return max(LEAST_SECONDS, budget() / MOST_LOADS)


def tell(face: str, connections: int, stretch: Stretch) -> None:
    print(  # noqa: T201 - the figures are what such a run is for.
        f"{face}, {connections} at once: {stretch.rate:.0f}/s asked for, {stretch.goodput:.0f}/s"
        f" granted, {stretch.refused} turned away, {stretch.unsent} not sent,"
        f" p50 {stretch.wait(0.5) * 1000:.0f} ms, p99 {stretch.wait(0.99) * 1000:.0f} ms",
        flush=True,
    )


@pytest.mark.requirement("DOS-03")
@pytest.mark.parametrize("connections", [128, 512])
@pytest.mark.parametrize("face", ["http", "grpc"])
def test_goodput_survives_five_times_the_load(face: str, connections: int, tmp_path: Path) -> None:
    broker = RunningBroker(setting_without_limits(tmp_path))
    try:
        broker.wait_until_ready()
        capacity = 0.0
        for load in LOADS:
            (stretch,) = pour(torrent(face, broker.setting, load, connections=connections))
            tell(face, connections, stretch)
            capacity = max(capacity, stretch.goodput)
            if stretch.goodput < KEEPS_UP * load:
                break
        (flood,) = pour(torrent(face, broker.setting, 5 * capacity, connections=connections))
        tell(face, connections, flood)
        (after,) = pour(torrent(face, broker.setting, capacity / 2, connections=connections))
        tell(face, connections, after)
    finally:
        broker.close()

    # From very many connections, being turned away costs what the face has left: see ADR 26.
    assert flood.goodput >= (0.8 if connections == 128 else 0.4) * capacity
    assert flood.wait(0.99) < 5
    assert flood.broken == 0
    assert after.goodput >= 0.4 * capacity, "it is as it was before"
