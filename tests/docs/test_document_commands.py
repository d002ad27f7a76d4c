"""Every command in a document is run against a broker in development mode, or says why it is not."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from broker.jws import read_token
from docs.operations_tables import is_measured, measures
from tests.docs.markdown import DOCUMENTS, ROOT, Block, blocks, name
from tests.docs.shell import environment, run
from tests.e2e.patience import until

_USUAL_PORTS = (8080, 50051, 9464, 8081, 8082, 50052, 9465)
_LINKED = ("docs", "examples", "policies", "proto")
_START_SECONDS = 240
_CHANGING = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"[0-9]+m[0-9]{2}s left"), "<time> left"),
    # How far the control process has come with the keys by then is a matter of moments.
    (re.compile(r"[0-9]+ records in"), "<number> records in"),
)
_WITH_COMMANDS = [one for one in DOCUMENTS if any(block.is_run for block in blocks(one))]


@dataclass(frozen=True)
class Dev:
    """A broker in development mode: where it runs, what it told, and its ports by the usual ones."""

    folder: Path
    story: str
    ports: Mapping[int, int]

    def run(self, command: str) -> str:
        """What a command of a document prints; fails the test unless it succeeds."""
        for usual, port in self.ports.items():
            command = re.sub(rf"\b{usual}\b", str(port), command)
        return run(command, folder=self.folder)

    def told(self, text: str) -> list[str]:
        """Lines as a document shows them: with the usual ports, and without what changes."""
        for usual, port in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(usual), text)
        for pattern, shown in _CHANGING:
            text = pattern.sub(shown, text)
        return [line.strip() for line in text.splitlines()]


def _furnish(folder: Path) -> None:
    """Make a folder look like a checkout, with ``broker`` on its path whatever is installed."""
    for linked in _LINKED:
        (folder / linked).symlink_to(ROOT / linked)
    command = folder / "bin" / "broker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m broker "$@"\n')
    command.chmod(0o755)


@contextmanager
def _usual_ports_taken() -> Iterator[None]:
    """Keep the usual ports, so that a broker beside others is given ports of its own."""
    with ExitStack() as taken:
        for port in _USUAL_PORTS:
            one = taken.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
                one.listen()
            except OSError:
                continue
        yield


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A broker whose story has been told, and that now waits for commands."""
    folder = tmp_path_factory.mktemp("checkout")
    _furnish(folder)
    with _usual_ports_taken(), ExitStack() as ending:
        process = ending.enter_context(
            subprocess.Popen(
                ["broker", "dev", "--policies", "policies"],
                cwd=folder,
                env=environment(folder),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                executable=folder / "bin" / "broker",
            )
        )
        ending.callback(process.terminate)
        late = threading.Timer(_START_SECONDS, process.kill)
        late.start()
        ending.callback(late.cancel)
        story = _read_until_ready(process)
        late.cancel()
        yield Dev(folder, story, _ports(folder / ".broker-dev"))


def _read_until_ready(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ready."):
            return "".join(lines)
    pytest.fail("the broker did not become ready:\n" + "".join(lines))


def _ports(folder: Path) -> dict[int, int]:
    """The ports that the brokers took, by the usual ones."""
    main, wiki = (
        YAML(typ="safe", pure=True).load((place / "broker.yaml").read_text())
        for place in (folder, folder / "wiki")
    )
    faces = ("http", "grpc", "admin")
    addresses = (
        *(main["listen"][face] for face in faces),
        main["issuers"][0]["issuer"],
        *(wiki["listen"][face] for face in faces),
    )
    actual = [int(address.rpartition(":")[2]) for address in addresses]
    return dict(zip(_USUAL_PORTS, actual, strict=True))


@pytest.fixture(scope="module")
def outputs(dev: Dev) -> dict[Block, str]:
    """What the commands of the front page printed, each run once and in their order."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    return {block: dev.run(block.text) for block in blocks(ROOT / "README.md") if block.is_run}


def test_the_commands_of_the_front_page_succeed(outputs: dict[Block, str]) -> None:
    assert len(outputs) >= 4


@pytest.mark.parametrize(
    "document", [one for one in _WITH_COMMANDS if one.name != "README.md"], ids=name
)
def test_the_commands_of_a_page_succeed(
    dev: Dev, outputs: dict[Block, str], document: Path
) -> None:
    """They come after those of the front page, which leave something to look at."""
    assert outputs
    for block in blocks(document):
        if block.is_run:
            assert dev.run(block.text), block.place


def test_both_faces_of_the_front_page_issue_the_same_token(outputs: dict[Block, str]) -> None:
    http = json.loads(_output(outputs, "curl -s http://127.0.0.1:8080/token"))
    grpc = json.loads(_output(outputs, "buf curl"))["issuedToken"]

    assert _lasting(http["access_token"]) == _lasting(grpc["accessToken"])
    assert http["scope"].split() == grpc["scopes"]


@pytest.mark.parametrize(
    "block",
    [
        block
        for document in DOCUMENTS
        for block in blocks(document)
        if block.noted("from") == "story"
    ],
    ids=lambda block: block.place,
)
def test_what_a_page_says_the_story_tells_is_told(dev: Dev, block: Block) -> None:
    told = iter(dev.told(dev.story))

    for line in dev.told(block.text):
        assert line == "…" or line in told, line


def test_the_walkthrough_shows_a_record_and_a_token_as_they_are(
    dev: Dev, outputs: dict[Block, str]
) -> None:
    answer = json.loads(_output(outputs, "curl -s http://127.0.0.1:8080/token"))
    claims = read_token(answer["access_token"]).unverified_claims
    actual = {"claims": claims, "record": _record_of(dev.folder / ".broker-dev", claims["jti"])}

    for block in blocks(ROOT / "docs" / "walkthrough.md"):
        if kind := block.noted("members"):
            shown = json.loads(block.text)
            assert _shape(shown) == _shape(json.loads("\n".join(_usual(dev, actual[kind])))), kind


def test_the_metrics_page_shows_what_the_table_lists(dev: Dev, outputs: dict[Block, str]) -> None:
    assert outputs
    # A counter begins with its first event, and nothing in the story is reloaded or turned away.
    unmoved = {"broker_reloads_total", "broker_turned_away_total"}
    expected = {one.name for one in measures() if is_measured(one)} - unmoved

    def missing() -> set[str]:
        page = dev.run("curl -s http://127.0.0.1:9464/metrics")
        return expected - set(re.findall(r"^# HELP (\S+)", page, re.MULTILINE))

    # A worker tells what it has counted now and then.
    until(lambda: not missing(), seconds=30, what="everything is measured")


def _usual(dev: Dev, value: Mapping[str, Any]) -> list[str]:
    return dev.told(json.dumps(value))


def _record_of(folder: Path, jti: str) -> dict[str, Any]:
    for path in (folder / "audit").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record: dict[str, Any] = json.loads(line)
            if record.get("jti") == jti:
                return record
    pytest.fail(f"there is no record of {jti}")


def _output(outputs: Mapping[Block, str], command: str) -> str:
    return next(output for block, output in outputs.items() if block.text.startswith(command))


def _lasting(token: str) -> dict[str, Any]:
    """The claims that do not change from one token to the next."""
    claims = read_token(token).unverified_claims
    return {name: claims[name] for name in claims if name not in {"iat", "exp", "jti", "txn"}}


def _shape(value: Any) -> Any:
    """The members of a value all the way down, without what they say."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return type(value)
