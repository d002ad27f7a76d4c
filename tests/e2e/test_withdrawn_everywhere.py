"""Tokens withdrawn by the command line, as clients and operators do it: dead in every process, for good."""

import hashlib
import json
import os
import signal
import subprocess
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import grpc
import pytest
import urllib3

from broker.v1 import token_service_pb2, token_service_pb2_grpc
from tests.e2e.conftest import Starting
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker, run_broker
from tests.e2e.setting import (
    DESK,
    SERVER,
    TICKETS,
    TICKETS_SECRET,
    Setting,
    exchange,
    login,
    new_setting,
)
from tests.e2e.wires import TIMEOUT, settled, wire

OPERATOR: Final = "operator"
OPERATOR_SECRET: Final = "bks_" + "ops" * 15
FACES: Final = ("http", "grpc")


@dataclass(frozen=True)
class Hands:
    """Whoever holds the secrets of the clients and works at a command line."""

    broker: RunningBroker
    directory: Path

    @property
    def setting(self) -> Setting:
        return self.broker.setting

    def run(
        self, *arguments: str, client: str = TICKETS, face: str = "grpc"
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours as a client, against one face."""
        where = {
            "http": ("--issuer", self.setting.issuer),
            "grpc": ("--grpc", f"127.0.0.1:{self.setting.ports.grpc}"),
        }
        secret = ("--secret-file", str(self.directory / f"{client}.secret"))
        return run_broker(*arguments, *where[face], "--client", client, *secret)

    def counts(self, token: str, face: str) -> bool:
        """Whether a face says that the token is active, as our command tells it."""
        found = self.run("token", "introspect", self.file(token), "-o", "json", face=face)
        active = json.loads(found.stdout)["active"]
        assert found.returncode == (0 if active else 1), found.stderr
        return bool(active)

    def is_active(self, token: str, face: str) -> bool:
        """The same, asked without a command."""
        if face == "http":
            url = f"{self.setting.issuer}/introspect"
            form = {"token": token, "client_id": TICKETS, "client_secret": TICKETS_SECRET}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = urllib3.request("POST", url, body=urlencode(form), headers=headers)
            assert answer.status == 200, answer.data
            return bool(answer.json()["active"])
        basic = b64encode(f"{TICKETS}:{TICKETS_SECRET}".encode()).decode()
        with grpc.insecure_channel(f"127.0.0.1:{self.setting.ports.grpc}") as channel:
            found = token_service_pb2_grpc.TokenServiceStub(channel).IntrospectToken(
                token_service_pb2.IntrospectTokenRequest(token=token),
                metadata=(("authorization", f"Basic {basic}"),),
                timeout=TIMEOUT,
            )
        return bool(found.active)

    def file(self, token: str) -> str:
        """The token as an argument."""
        place = self.directory / hashlib.sha256(token.encode()).hexdigest()
        place.write_text(token)
        return f"@{place}"

    def chain(self) -> tuple[str, str]:
        """Ann's token for the tickets server, and what the server exchanged it for."""
        with wire("http", self.setting) as http, wire("grpc", self.setting) as grpc:
            first = settled(http, lambda: login(self.setting)).token
            second = settled(grpc, lambda: exchange(self.setting) | {"subject_token": first})
        return first, second.token


@pytest.fixture
def hands(starting: Starting, tmp_path: Path) -> Hands:
    setting = new_setting(tmp_path)
    sha256 = hashlib.sha256(OPERATOR_SECRET.encode()).hexdigest()
    operator: dict[str, Any] = {
        "id": OPERATOR,
        "auth": {"method": "client_secret_basic", "secrets": [{"hash": f"sha256:{sha256}"}]},
        "grants": [],
        "administer": True,
    }
    clients = [*setting.document["clients"], operator]
    for client, secret in ((TICKETS, TICKETS_SECRET), (OPERATOR, OPERATOR_SECRET)):
        (tmp_path / f"{client}.secret").write_text(secret)
    return Hands(starting(setting.with_document(clients=clients)), tmp_path)


@pytest.mark.requirement("RPL-06", "RPL-07", "REV-02", "P-B")
def test_a_withdrawn_token_is_dead_on_both_faces_and_after_every_process_was_killed(
    hands: Hands,
) -> None:
    _, token = hands.chain()
    assert [hands.counts(token, face) for face in FACES] == [True, True]

    done = hands.run("token", "revoke", hands.file(token), face="http")
    assert done.returncode == 0, done.stderr
    assert [hands.counts(token, face) for face in FACES] == [False, False]

    for worker in ("grpc-0", "http-0"):
        kill(hands.broker, worker)
    hands.broker.wait_until_ready()
    assert [hands.counts(token, face) for face in FACES] == [False, False]


def kill(broker: RunningBroker, worker: str) -> None:
    """Kill the process that answers, and wait until another has taken its place."""
    killed = broker.serving_process(worker)
    os.kill(killed, signal.SIGKILL)

    def is_back() -> bool:
        return broker.serving_process(worker) not in (0, killed)

    until(is_back, seconds=60, what="the worker is back")


@pytest.mark.requirement("REV-06", "RPL-07", "RPL-08")
@pytest.mark.parametrize(
    "party", [("--subject", "ann"), ("--client-id", DESK), ("--mcp-server", SERVER)], ids=str
)
def test_what_an_operator_withdraws_is_dead_in_every_process_when_the_command_ends(
    hands: Hands, party: tuple[str, str]
) -> None:
    first, second = hands.chain()
    assert hands.run("revoke", *party, client=TICKETS).returncode == 1, "it is no administrator"
    assert [hands.is_active(first, face) for face in FACES] == [True, True]

    done = hands.run("revoke", *party, "--since", "10m", client=OPERATOR)
    assert done.returncode == 0, done.stderr

    for token in (first, second):
        assert [hands.is_active(token, face) for face in FACES] == [False, False]
    for face in FACES:
        with wire(face, hands.setting) as one:
            again = settled(one, lambda: exchange(hands.setting) | {"subject_token": first})
            assert again.error == "invalid_request"
    records = hands.broker.records("token.withdraw")
    assert [one["decision"] for one in records] == ["deny", "permit"]
    # A person is in the record under a pseudonym.
    assert (records[-1]["party"] == party[1]) is (party[0] != "--subject")
    assert hands.broker.verify_audit().returncode == 0
