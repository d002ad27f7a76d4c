from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from tests.cli.conftest import WebServer

Run = Callable[..., Result]


def test_a_ready_broker_is_told_by_the_exit_code(run: Run, web: WebServer, tmp_path: Path) -> None:
    """The address comes from the settings, as for a probe inside the container."""
    web.answer("/readyz?verbose=", b"[+]keys ok\nreadyz check passed\n")
    admin = web.url.removeprefix("http://")
    (tmp_path / "broker.yaml").write_text(
        f"issuer: http://127.0.0.1:1\nlisten: {{admin: '{admin}'}}\n"
    )

    result = run("health")

    assert result.exit_code == 0
    assert result.stdout == "[+]keys ok\nreadyz check passed\n"


def test_a_broker_that_is_not_ready_says_why(run: Run, web: WebServer) -> None:
    web.answer("/readyz?verbose=", b"[-]audit failed\x1b[2J\n", status=503)

    result = run("health", "--admin", web.url)

    assert result.exit_code == 1
    assert "[-]audit failed\\u001b[2J" in result.stdout
    assert "not ready (status 503)" in result.stderr


def test_a_broker_that_is_not_there_is_not_healthy(run: Run) -> None:
    result = run("health", "--admin", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert "127.0.0.1:1 does not answer" in result.stderr
