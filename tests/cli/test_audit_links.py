"""A link to the auditor's pages is made by whoever owns the broker's files, where there are pages."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from broker.web.review.links import Links

Run = Callable[..., Result]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "broker.yaml").write_text(
        "issuer: http://127.0.0.1:1\ndata_dir: .\naudit: {review: {}}\n"
    )
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state"


def test_a_link_is_printed_and_opens_the_pages(run: Run, state: Path) -> None:
    result = run("audit", "open")
    assert result.exit_code == 0, result.output
    found = re.fullmatch(r"http://127\.0\.0\.1:9443/audit/login/link/([\w-]{43})\n", result.stdout)
    assert found is not None
    assert "logs one browser in, once, within two minutes" in result.stderr
    assert "lasts 8h, or 30m without use" in result.stderr
    assert Links(state / "audit-links").spend(found[1])


def test_a_program_gets_the_link_as_json(run: Run, state: Path) -> None:
    told = json.loads(run("audit", "open", "-o", "json").stdout)
    assert told["expires_in"] == 120
    assert Links(state / "audit-links").spend(told["url"].rpartition("/")[2])


def test_where_there_are_no_pages_no_link_is_made(run: Run, state: Path, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text("issuer: http://127.0.0.1:1\ndata_dir: .\n")
    result = run("audit", "open")
    assert result.exit_code == 3
    assert "audit.review is not set" in result.stderr
    assert not (state / "audit-links").exists()


def test_a_directory_that_is_open_to_others_gets_no_link(run: Run, state: Path) -> None:
    (state / "audit-links").mkdir()
    (state / "audit-links").chmod(0o755)
    result = run("audit", "open")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0700" in result.stderr


def test_a_broker_that_never_ran_has_no_pages_to_open(run: Run, state: Path) -> None:
    state.rmdir()
    result = run("audit", "open")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No link was made" in result.stderr


def test_the_link_is_in_no_command_line_of_the_browser(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = Links(state / "audit-links")
    opened: list[Path] = []

    def browse(address: str) -> bool:
        page = Path(address.removeprefix("file://"))
        opened.append(page)
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        found = re.search(
            r"url=http://127\.0\.0\.1:9443/audit/login/link/([\w-]{43})\"", page.read_text()
        )
        assert found is not None
        assert found[1] not in address
        assert links.spend(found[1])
        return True

    monkeypatch.setattr("webbrowser.open", browse)
    result = run("audit", "open", "--browser")
    assert result.exit_code == 0, result.output
    assert len(opened) == 1
    assert not opened[0].exists()


def test_where_no_browser_can_be_opened_nothing_stays_behind(
    run: Run, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    result = run("audit", "open", "--browser")
    assert (result.exit_code, "open the link yourself" in result.stderr) == (1, True)
    assert not list((state / "audit-links").glob("*.html"))
