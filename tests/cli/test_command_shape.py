"""The command as a whole: help, exit codes, and what stays unloaded."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

VERBS = [
    ("dev",),
    ("serve",),
    ("health",),
    ("run",),
    ("revoke",),
    ("config", "check"),
    ("config", "schema"),
    ("client", "secret"),
    ("client", "key"),
    ("token", "get"),
    ("token", "exchange"),
    ("token", "inspect"),
    ("token", "introspect"),
    ("token", "revoke"),
    ("keys", "list"),
    ("keys", "plan"),
    ("keys", "rotate"),
    ("keys", "revoke"),
    ("audit", "verify"),
    ("audit", "compare"),
    ("audit", "query"),
    ("audit", "tail"),
    ("policy", "check"),
    ("policy", "test"),
    ("policy", "explain"),
]


def program(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "broker", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself(run: Run, verb: tuple[str, ...]) -> None:
    result = run(*verb, "--help")

    assert result.exit_code == 0
    assert "Usage: broker " + " ".join(verb) in result.output


def test_help_names_the_verbs_and_the_exit_codes(run: Run) -> None:
    result = run("--help")

    assert "Start the broker." in result.output
    assert "the configuration is wrong" in " ".join(result.output.split())


def test_help_loads_nothing_that_it_does_not_need() -> None:
    probe = (
        "import sys\n"
        "from broker.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'pydantic', 'grpc', 'cedarpy', 'cryptography', 'urllib3', 'granian', 'hvac'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.stdout.endswith("loaded:\n"), done.stderr


def test_serving_loads_no_grpc_before_the_first_fork() -> None:
    """Its threads would not survive the fork."""
    probe = "import sys, broker.cli.serve; print('loaded:', 'grpc' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=240, check=False
    )

    assert done.stdout == "loaded: False\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["config", "schema"], 0),
        (["token", "inspect", "@missing", "--unverified"], 2),
        (["tokn"], 2),
        (["config", "chekq"], 2),
        (["client", "secret", "--nonsense"], 2),
        (["config", "check"], 3),
        (["serve", "--config", "missing.yaml"], 3),
        (["health", "--admin", "http://127.0.0.1:1"], 1),
    ],
)
def test_the_exit_code_says_how_it_went(arguments: list[str], code: int, tmp_path: Path) -> None:
    done = program(*arguments, cwd=tmp_path)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
