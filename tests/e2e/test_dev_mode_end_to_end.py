"""``broker dev`` as a newcomer runs it, and the commands that it prints, as it prints them."""

import json
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN
from tests.e2e.patience import until
from tests.e2e.running import PYTHON, Session, run, run_broker, start
from tests.harness import decode_claims

READY: Final = "Ready. Ctrl-C ends it."
STEPS: Final = (
    "1. Ann logs in.",
    "2. agent-desk turns it into a token for the MCP server mcp-tickets",
    "3. mcp-tickets may not pass that token on.",
    "4. And again over HTTP",
    "5. mcp-tickets needs two APIs at once.",
    "https://api.crm.example/v2 crm.contacts.read, 120 s",
    "https://api.calendar.example/v1 calendar.free.read, 120 s",
    "with https://ledger.example/v1 among them: refused, all three",
    "The target is unknown or not available to this request.",
    "6. mcp-tickets asks to change contacts as well.",
    "7. agent-nightly works for nobody in particular.",
    "8. The wiki has an authorization server of its own.",
    "9. There the assertion is redeemed, without asking Ann anything.",
    "10. Somebody has copied the assertion and redeems it again.",
    "11. agent-desk withdraws its token.",
    "active before, inactive now",
    "12. Every decision above is in the audit log.",
)
TREE: Final = (
    "person     ann",
    "MCP client agent-desk",
    "MCP server mcp-tickets",
    "resource   https://api.crm.example/v2",
    "crm.contacts.read",
)


def modes(directory: Path) -> dict[str, int]:
    """The permissions of everything in a directory, the directory itself included."""
    every = (directory, *directory.rglob("*"))
    return {str(path): stat.S_IMODE(path.stat().st_mode) for path in every}


def test_dev_mode_once_tells_the_whole_story_and_ends_well(tmp_path: Path) -> None:
    ended = run_broker("dev", "--once", directory=tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = " ".join(ended.stdout.split())
    for part in (*STEPS, *TREE):
        assert " ".join(part.split()) in told
    assert told.count("records in 4 chains, all intact") == 1
    assert told.count("records in 3 chains, all intact") == 1
    assert "insufficient_user_authentication" in told
    assert READY not in told
    for name, mode in modes(tmp_path / ".broker-dev").items():
        assert mode == (0o700 if Path(name).is_dir() else 0o600), name


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Session]:
    """Development mode, when it has told its story."""
    session = start([PYTHON, "-m", "broker", "dev"], directory=tmp_path, log=tmp_path / "output")
    try:
        until(lambda: READY in session.text, seconds=180, what="the story is told")
        yield session
    finally:
        session.close()


def printed_commands(text: str) -> str:
    """What stands between the invitation to try it and the last line: comments and commands."""
    return text.partition("Try it:\n")[2].partition(READY)[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_that_dev_mode_prints_work_in_one_shell_until_ctrl_c_ends_it(
    dev: Session, tmp_path: Path
) -> None:
    command = tmp_path / "bin" / "broker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{PYTHON}" -m broker "$@"\n')
    command.chmod(0o700)
    commands = f'PATH="$PATH:{command.parent}"\n{printed_commands(dev.text)}'

    ended = run(["sh", "-e", "-c", commands], directory=tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = json.loads(re.findall(r"\{.*?\}", ended.stdout)[0])
    assert answer["issued_token_type"] == TOKEN_TYPE_ACCESS_TOKEN
    claims = decode_claims(answer["access_token"])
    assert (claims["sub"], claims["act"]["sub"]) == ("ann", "mcp-tickets")
    assert claims["act"]["act"]["sub"] == "agent-desk"
    assert "MCP server mcp-tickets" in ended.stdout
    assert "whole, open" in ended.stdout

    dev.process.send_signal(signal.SIGINT)
    assert dev.end() == 0
    assert not dev.processes()
    assert "Stopped." in dev.text
