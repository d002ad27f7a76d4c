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


def test_a_broker_that_waits_for_something_lives_all_the_same(run: Run, web: WebServer) -> None:
    """Nothing that it waits for comes back because it is started again."""
    web.answer("/livez", b"ok\n")
    web.answer("/readyz?verbose=", b"[-]keys failed: signer_unavailable\n", status=503)

    assert run("health", "--live", "--admin", web.url).stdout == "ok\n"
    assert run("health", "--admin", web.url).exit_code == 1


def test_what_does_not_answer_as_a_broker_does_not_live(run: Run, web: WebServer) -> None:
    web.answer("/livez", b"", status=500)

    result = run("health", "--live", "--admin", web.url)

    assert result.exit_code == 1
    assert "not alive (status 500)" in result.stderr


def test_a_broker_that_is_not_there_is_not_healthy(run: Run) -> None:
    result = run("health", "--admin", "http://127.0.0.1:1")

    assert result.exit_code == 1
    assert "127.0.0.1:1 does not answer" in result.stderr
