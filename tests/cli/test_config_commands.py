import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from broker.config.documents import json_schema

Run = Callable[..., Result]

HASH = "sha256:" + "5" * 64
ROOT = Path(__file__).parents[2]
NAMED = """\
policies: policies
resources:
  - resource: https://api.example/v2
    scopes: { read: {} }
"""
SOUND = f"""\
issuer: http://127.0.0.1:8080
clients:
  - id: agent
    auth: {{method: client_secret_basic, secrets: [{{hash: "{HASH}"}}]}}
"""


def test_sound_settings_are_printed_with_secrets_masked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(SOUND)

    result = run("config", "check")

    assert result.exit_code == 0, result.stderr
    shown = YAML(typ="safe", pure=True).load(result.stdout)
    assert shown["tokens"]["lifetime"] == "5m"
    assert shown["clients"][0]["auth"]["secrets"][0]["hash"] == "sha256:…"
    assert HASH not in result.output


def test_what_is_off_is_printed_as_the_file_would_say_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(SOUND)

    printed = run("config", "check").stdout.splitlines()

    assert {"  streams: null", "  review: null", "    timestamp_url: null"} < set(printed)
    assert "    timestamp_every: 1h" in printed


def test_the_environment_shows_in_what_is_printed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(SOUND)

    result = run("config", "check", "--output", "json", BROKER_TOKENS__LIFETIME="2m")

    assert json.loads(result.stdout)["settings"]["tokens"]["lifetime"] == "2m"
    assert json.loads(result.stdout)["problems"] == []


def test_wrong_settings_are_told_with_line_and_caret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(SOUND + "tokns: {}\nlog: {level: loud}\n")

    result = run("config", "check", "--config", "other.yaml")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "other.yaml:5:1: tokns: there is no such setting — did you mean 'tokens'?",
        "  tokns: {}",
        "  ^",
        "other.yaml:6:14: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "  log: {level: loud}",
        "               ^",
    ]


def test_wrong_settings_are_told_to_programs_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(SOUND + "tokns: {}\n")

    result = run("config", "check", "-o", "json")

    assert result.exit_code == 3
    assert json.loads(result.stdout)["problems"] == [
        {
            "file": "broker.yaml",
            "line": 5,
            "column": 1,
            "path": "tokns",
            "sentence": "there is no such setting",
            "suggestion": "tokens",
        }
    ]


def test_a_policy_that_misspells_a_name_is_remarked_on(run: Run, tmp_path: Path) -> None:
    """Nothing would be permitted by it, and nobody would know why."""
    shutil.copytree(
        ROOT / "policies", tmp_path / "policies", ignore=shutil.ignore_patterns("decisions")
    )
    (tmp_path / "policies" / "new.cedar").write_text(
        '@id("a") permit (principal == Client::"agnet", action == Action::"issue", resource);\n'
        '@id("b") permit (principal == Client::"agent", action == Action::"issue", resource in'
        ' Resource::"https://api.example/v3");\n'
        '@id("c") permit (principal == Client::"another", action == Action::"issue", resource);\n'
    )
    (tmp_path / "broker.yaml").write_text(SOUND + NAMED)

    result = run("config", "check")

    remarks = [line for line in result.stderr.splitlines() if "did you mean" in line]
    assert result.exit_code == 0, result.stderr
    assert [line.partition("new.cedar:")[2] for line in remarks] == [
        '1: Client::"agnet" is not registered; did you mean "agent"?',
        (
            '2: Resource::"https://api.example/v3" is not registered; '
            'did you mean "https://api.example/v2"?'
        ),
    ]


def test_policies_that_cannot_be_put_in_force_are_wrong_settings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "broken.cedar").write_text("permit (")
    (tmp_path / "broker.yaml").write_text(SOUND + "policies: policies\n")

    result = run("config", "check")

    assert result.exit_code == 3
    assert "policies/" in result.stderr


@pytest.mark.parametrize("content", [None, "", "issuer: ["])
def test_a_file_that_cannot_be_read_ends_in_one_clear_line(
    run: Run, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "broker.yaml").write_text(content)

    result = run("config", "check")

    assert result.exit_code == 3
    assert result.stderr.startswith("broker.yaml:")
    assert ("--config" in result.stderr) == (content is None)


@pytest.mark.parametrize("command", [("serve",), ("keys", "list"), ("keys", "rotate")])
def test_a_command_that_finds_no_settings_says_how_to_name_them(
    run: Run, command: tuple[str, ...]
) -> None:
    result = run(*command)

    assert result.exit_code == 3
    assert "Name the settings file with --config FILE or in BROKER_CONFIG" in result.stderr


def test_the_schema_is_printed_for_editors(run: Run) -> None:
    assert json.loads(run("config", "schema").stdout) == json_schema()
