"""The page about verifying a server shows what the kit prints, and programs that work."""

import re

import pytest

from broker.verify_server.options import add_options
from broker.verify_server.report import print_report
from tests.docs.markdown import ROOT, blocks, inline_code
from tests.verify_kit.test_real_servers import by_jwt_verifier, serving
from tests.verify_kit.test_verify_plugin import ONE_LINE, OWN_SERVER
from tests.verify_kit.trials import results_of

_PAGE = ROOT / "docs" / "verify-your-server.md"


def test_the_report_is_as_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "118")
    results = results_of(serving(by_jwt_verifier))
    capsys.readouterr()

    print_report(results)

    printed = iter([line.rstrip() for line in capsys.readouterr().out.splitlines()])
    shown = next(block for block in blocks(_PAGE) if block.language == "text")
    for line in shown.text.splitlines():
        assert line == "…" or line in printed, line


def test_the_line_and_the_fixture_are_those_that_are_tested() -> None:
    line, fixture = (block.text for block in blocks(_PAGE) if block.language == "python")

    assert line == ONE_LINE
    head = fixture.partition("    with ")[0].partition("import pytest\n")[2]
    assert head.strip() in OWN_SERVER


def test_every_option_on_the_page_exists() -> None:
    options = {"--json", "--broker-verify-url"}
    add_options(lambda name, **_settings: options.add(name))
    named = {found for code in inline_code(_PAGE) for found in re.findall(r"--[a-z-]+", code)}

    assert named <= options
    assert len(named) >= 6


def test_the_page_fits_on_a_screen_or_two() -> None:
    assert len(_PAGE.read_text(encoding="utf-8").splitlines()) <= 90
