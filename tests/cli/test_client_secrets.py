import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from click.testing import Result

from broker.config import load_settings

Run = Callable[..., Result]


@pytest.mark.requirement("CAU-11")
def test_a_secret_has_256_bits_and_no_character_that_an_encoding_changes(run: Run) -> None:
    secret, line = run("client", "secret").stdout.splitlines()

    assert re.fullmatch(r"bks_[A-Za-z0-9_-]{43}", secret)
    assert line == f'- hash: "sha256:{hashlib.sha256(secret.encode()).hexdigest()}"'


def test_no_two_secrets_are_the_same(run: Run) -> None:
    assert run("client", "secret").stdout != run("client", "secret").stdout


def test_the_line_printed_is_accepted_in_the_settings(run: Run, tmp_path: Path) -> None:
    for arguments, stdin in (
        (["client", "secret"], ""),
        (["client", "secret", "--chosen"], "x" * 32),
    ):
        line = run(*arguments, stdin=stdin).stdout.splitlines()[-1]
        path = tmp_path / "broker.yaml"
        path.write_text(
            "issuer: http://127.0.0.1:1\nclients:\n  - id: agent\n    auth:\n"
            f"      method: client_secret_basic\n      secrets:\n        {line}\n"
        )

        assert load_settings(path, {}).clients[0].secrets


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_chosen_secret_is_hashed_slowly_and_not_printed(run: Run, ending: str) -> None:
    result = run(
        "client", "secret", "--chosen", "-o", "json", stdin="correct horse battery" + ending
    )

    stored = json.loads(result.stdout)["hash"]
    assert stored.startswith("$argon2id$")
    assert PasswordHasher().verify(stored, "correct horse battery")
    assert "correct horse" not in result.output


@pytest.mark.requirement("CAU-11")
@pytest.mark.parametrize("chosen", ["", "\n", "short", "x" * 1025])
def test_a_chosen_secret_that_is_too_short_or_too_long_is_refused(run: Run, chosen: str) -> None:
    result = run("client", "secret", "--chosen", stdin=chosen)

    assert result.exit_code == 2
    assert "hash" not in result.stdout
