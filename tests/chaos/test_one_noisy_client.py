"""One client in a loop, beside another who asks now and then: DOS-02, and what it costs that other."""

import base64
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from broker.oauth import GRANT_CLIENT_CREDENTIALS
from broker.v1 import token_service_pb2
from tests.chaos.reporting import Report
from tests.e2e.running import RunningBroker
from tests.e2e.setting import POLICIES, SERVER, Setting, new_setting
from tests.e2e.torrent import Stretch, Torrent, pour

SECONDS: Final = max(5.0, float(os.environ.get("CHAOS_MINUTES") or "10") * 60 * 0.02)
"""How long it is quiet, and how long it is noisy, of which there are two each for each face."""
ROUNDS: Final = 2
QUIET, NOISY = "agent-quiet", "agent-noisy"
SECRETS: Final = {name: "bks_" + name[-1] * 43 for name in (QUIET, NOISY)}
QUIET_RATE: Final = 20.0
QUOTA: Final = 20.0
FLOOD: Final = 10 * QUOTA
SCOPE: Final = "tickets:read"
PERMIT: Final = f"""
@id("own-{{name}}")
permit (
  principal == Client::"{{name}}", action == Action::"issue", resource == Scope::"{SERVER}#{SCOPE}"
);
"""


def setting_with_quotas(directory: Path) -> Setting:
    """A broker with two clients, of which one has a small quota."""
    setting = new_setting(directory)
    clients = [
        {
            "id": name,
            "auth": {"method": "client_secret_basic", "secrets": [{"hash": _stored(secret)}]},
            "grants": ["client_credentials"],
        }
        for name, secret in SECRETS.items()
    ]
    clients[1]["limit"] = {"rate": f"{QUOTA:.0f}/s", "burst": int(QUOTA)}
    policies = directory / "policies"
    shutil.copytree(POLICIES, policies)
    (policies / "own.cedar").write_text("".join(PERMIT.format(name=name) for name in SECRETS))
    return setting.with_document(
        clients=[*setting.document["clients"], *clients],
        limits={"per_source": None},
        policies=str(policies),
    )


def _stored(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def asking(face: str, setting: Setting, client_id: str, rate: float) -> Torrent:
    """Requests of a client, the same each time."""
    credential = f"{client_id}:{SECRETS[client_id]}".encode()
    authorization = "Basic " + base64.b64encode(credential).decode()
    if face == "grpc":
        message = token_service_pb2.IssueClientTokenRequest(resources=[SERVER], scopes=[SCOPE])
        head = f"/broker.v1.TokenService/IssueClientToken\n{authorization}"
        body = message.SerializeToString().decode("latin-1")
        return Torrent(face, setting.ports.grpc, head, body, [rate], SECONDS, 64)
    head = (
        f"POST /token HTTP/1.1\r\nHost: 127.0.0.1:{setting.ports.http}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nAuthorization: {authorization}\r\n"
    )
    body = f"grant_type={GRANT_CLIENT_CREDENTIALS}&resource={SERVER}&scope={SCOPE}"
    return Torrent(face, setting.ports.http, head, body, [rate], SECONDS, 64)


@contextmanager
def beside(torrent: Torrent) -> Iterator[list[Stretch]]:
    """Pour it meanwhile; the list has what became of it once the block is left."""
    found: list[Stretch] = []
    thread = threading.Thread(target=lambda: found.extend(pour(torrent)))
    thread.start()
    try:
        yield found
    finally:
        thread.join()


def waits(stretches: list[Stretch]) -> Stretch:
    """All of them as one."""
    every = [wait for one in stretches for wait in one.waits]
    return Stretch(QUIET_RATE, sum(one.seconds for one in stretches), every)


@pytest.mark.requirement("DOS-02")
@pytest.mark.parametrize("face", ["http", "grpc"])
def test_ten_times_its_quota_is_refused_to_a_client_and_costs_others_little(
    face: str, tmp_path: Path, report: Report
) -> None:
    broker = RunningBroker(setting_with_quotas(tmp_path))
    alone: list[Stretch] = []
    together: list[Stretch] = []
    noisy: list[Stretch] = []
    quiet = asking(face, broker.setting, QUIET, QUIET_RATE)
    flood = asking(face, broker.setting, NOISY, FLOOD)
    try:
        broker.wait_until_ready()
        pour(quiet)
        # By turns, since what else the machine does changes meanwhile.
        for _ in range(ROUNDS):
            alone += pour(quiet)
            with beside(flood) as meanwhile:
                together += pour(quiet)
            noisy += meanwhile
    finally:
        broker.close()

    before, after = waits(alone), waits(together)
    report.add(
        f"a noisy client, {face}",
        alone_p50_ms=round(before.wait(0.5) * 1000, 1),
        alone_p99_ms=round(before.wait(0.99) * 1000, 1),
        beside_p50_ms=round(after.wait(0.5) * 1000, 1),
        beside_p99_ms=round(after.wait(0.99) * 1000, 1),
        p99_ratio=round(after.wait(0.99) / before.wait(0.99), 2),
        noisy_granted_per_s=round(sum(one.goodput for one in noisy) / ROUNDS, 1),
        noisy_refused_per_s=round(sum(one.refused for one in noisy) / ROUNDS / SECONDS, 1),
    )

    assert sum(one.refused for one in together) == 0
    assert after.goodput >= 0.95 * before.goodput
    for one in noisy:
        assert len(one.waits) <= QUOTA * (SECONDS + 4) + QUOTA
        assert one.refused > len(one.waits)
