"""What the compose file starts works together: tokens are signed in OpenBao and remembered in Valkey."""

import hashlib
import json
import re
import shlex
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import jwt
import pytest

from tests.deploy.chart import DEPLOY, ROOT
from tests.deploy.kubelet import modes
from tests.deploy.machine import Machine
from tests.docs.markdown import blocks

pytestmark = pytest.mark.openbao

_PAGE = ROOT / "docs" / "deployment.md"
_AS_CLIENT = "run --rm client "
_POLICY = re.compile(
    r"(?:acl/|policy write )(broker(?:-rotator)?)[\s\"][^<]*<<'?END'?\n(.*?)^END$",
    re.DOTALL | re.MULTILINE,
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """All services, each of which has begun."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    try:
        machine.set_up()
        machine.start_openbao()
        machine.start_valkey()
        machine.start_broker()
        yield machine
    finally:
        machine.close()


def commands() -> list[list[str]]:
    """What the page has a client do, as arguments of the broker's command."""
    lines = [
        line
        for block in blocks(_PAGE)
        if block.language == "sh"
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [shlex.split(line.partition(_AS_CLIENT)[2]) for line in lines if _AS_CLIENT in line]


def token(machine: Machine) -> str:
    """What the page has the client ask for, from the broker of this machine."""
    (command,) = [one for one in commands() if one[:2] == ["token", "get"]]
    command[command.index("--issuer") + 1] = machine.issuer
    done = machine.run(*command, "--output", "token")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_command_of_the_page_gets_a_token_that_openbao_signed(machine: Machine) -> None:
    made = token(machine)

    header, claims = jwt.get_unverified_header(made), _unverified(made)
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    assert claims["iss"] == machine.issuer
    assert claims["sub"] == "client:agent-nightly"
    assert claims["aud"] == "https://tickets.mcp.example/mcp"


def _unverified(made: str) -> Mapping[str, str]:
    claims: Mapping[str, str] = jwt.decode(made, options={"verify_signature": False})
    return claims


@pytest.mark.requirement("CFG-04")
def test_what_was_made_is_closed_to_others(machine: Machine) -> None:
    open_to_others = [
        name for name, mode in modes(machine.made) if mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]

    made_later = ("openbao-data/", "valkey-data/")
    assert [name for name in open_to_others if not name.startswith(made_later)] == []


def test_nobody_has_a_key_that_is_another_service_s(machine: Machine) -> None:
    keys = [
        file.read_bytes()
        for name in ("openbao", "valkey", "broker", "client")
        for file in (machine.made / name).iterdir()
        if file.suffix in {".key", ".pem"} and file.name != "ca.pem"
    ]

    assert len(keys) == len(set(keys)) == 5
    assert not any(b"PRIVATE KEY" in file.read_bytes() for file in machine.made.rglob("ca.pem"))


def test_setting_up_again_changes_nothing(machine: Machine) -> None:
    before = _digests(machine.made)

    machine.set_up()

    assert _digests(machine.made) == before


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for name in ("openbao", "valkey", "broker", "client")
        for file in sorted((folder / name).iterdir())
    }


def test_a_set_up_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.set_up()
    (machine.made / "client" / "ca.pem").unlink()
    before = _digests(machine.made)

    machine.set_up()

    after = _digests(machine.made)
    assert after.keys() == before.keys() | {"client/ca.pem"}
    assert all(after[name] != before[name] for name in before)


def test_after_a_restart_openbao_unseals_itself_and_has_the_same_keys(machine: Machine) -> None:
    before = jwt.get_unverified_header(token(machine))["kid"]

    assert machine.stop("openbao") == 0
    machine.start_openbao()
    machine.wait_until_ready()

    assert jwt.get_unverified_header(token(machine))["kid"] == before


def test_valkey_talks_to_nobody_without_the_password(machine: Machine) -> None:
    with socket.create_connection(("127.0.0.1", machine.valkey_port), timeout=5) as connection:
        connection.sendall(b"PING\r\n")

        assert connection.recv(64).startswith(b"-NOAUTH")


def test_the_broker_may_do_in_valkey_what_the_page_about_it_gives_it(machine: Machine) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = [one for one in text.splitlines() if "ACL SETUSER broker" in one]

    _, broker = (machine.made / "valkey" / "users.conf").read_text().splitlines()
    # The password stands before what it opens.
    assert broker.split()[4:] == shlex.split(line)[6:]


def test_the_broker_may_do_what_the_page_about_vault_gives_it_and_nothing_else() -> None:
    def policies(file: Path) -> dict[str, list[str]]:
        found = _POLICY.findall(file.read_text(encoding="utf-8"))
        return {name: [line.strip() for line in text.splitlines()] for name, text in found}

    told = policies(ROOT / "docs" / "vault.md")
    assert set(told) == {"broker", "broker-rotator"}
    assert policies(DEPLOY / "compose" / "openbao.hcl") == told


def test_the_broker_rotates_its_keys_by_its_own_second_login(machine: Machine) -> None:
    before = jwt.get_unverified_header(token(machine))["kid"]

    rotated = machine.run_inside("keys", "rotate", "--algorithm", "ES256", "--output", "json")

    assert rotated.returncode == 0, rotated.stderr
    keys = [one for one in json.loads(rotated.stdout)["keys"] if one["algorithm"] == "ES256"]
    assert {one["state"] for one in keys if one["kid"] == before} == {"active"}
    assert "pending" in {one["state"] for one in keys}
