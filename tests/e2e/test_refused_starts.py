"""Starts that cannot succeed: what the operator is told, and that nothing was begun."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.running import run_broker
from tests.e2e.setting import POLICIES, Setting, new_setting

CONFIGURATION_IS_WRONG: Final = 3


def _misspelt(setting: Setting) -> None:
    setting.write({**setting.document, "resorces": []})


def _empty(setting: Setting) -> None:
    setting.file.write_bytes(b"")


def _half_written(setting: Setting) -> None:
    setting.write()
    text = setting.file.read_text()
    setting.file.write_text(text[: len(text) // 2])


def _missing(setting: Setting) -> None:
    setting.file.unlink(missing_ok=True)


def _marked(setting: Setting) -> None:
    setting.write()
    setting.file.write_bytes(b"\xef\xbb\xbf" + setting.file.read_bytes())


def _half_a_policy(setting: Setting) -> None:
    policies = setting.directory / "policies"
    shutil.copytree(POLICIES, policies)
    with (policies / "exchange.cedar").open("a") as file:
        file.write("permit (principal")
    setting.write({**setting.document, "policies": str(policies)})


def _a_policy_that_fails_its_table(setting: Setting) -> None:
    policies = setting.directory / "policies"
    shutil.copytree(POLICIES, policies)
    (policies / "guardrails.cedar").write_text('@id("never") forbid (principal, action, resource);')
    setting.write({**setting.document, "policies": str(policies)})


@pytest.mark.requirement("R-28")
@pytest.mark.requirement("POL-03")
@pytest.mark.parametrize(
    ("spoil", "place", "sentence"),
    [
        (_misspelt, "broker.yaml:", "did you mean 'resources'?"),
        (_empty, "broker.yaml:", "the file is empty"),
        (_half_written, "broker.yaml:", "is not YAML"),
        (_missing, "broker.yaml:", "cannot be read"),
        (_marked, "broker.yaml:", "byte order mark"),
        (_half_a_policy, "exchange.cedar:", "does not parse"),
        (_a_policy_that_fails_its_table, "decisions/", "fails"),
    ],
)
def test_a_broker_that_is_told_nonsense_says_where_and_starts_nothing(
    tmp_path: Path, spoil: Callable[[Setting], None], place: str, sentence: str
) -> None:
    setting = new_setting(tmp_path)
    spoil(setting)

    ended = run_broker("serve", "--config", str(setting.file))

    assert ended.returncode == CONFIGURATION_IS_WRONG
    assert place in ended.stderr.splitlines()[0]
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "worker_started" not in ended.stderr
    assert not ended.stdout
    assert not (tmp_path / "audit").exists()
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("name", ["http", "grpc", "admin"])
def test_a_port_that_is_taken_is_named_and_nothing_is_started(tmp_path: Path, name: str) -> None:
    setting = new_setting(tmp_path)
    setting.write()
    port = getattr(setting.ports, name)
    with socket.create_server(("127.0.0.1", port), reuse_port=name != "admin"):
        ended = run_broker("serve", "--config", str(setting.file))

    assert ended.returncode == 1
    assert f"listen.{name}: 127.0.0.1:{port}" in ended.stderr
    assert "taken" in ended.stderr or "in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "worker_started" not in ended.stderr
    assert not (tmp_path / "audit").exists()
