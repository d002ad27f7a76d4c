"""What the documents name exists, and their form is the one that was agreed on."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from broker.audit.record import Event
from broker.cli import main
from tests.docs.markdown import DOCUMENTS, ROOT, blocks, inline_code, links, name

_PATH = re.compile(r"(?:broker|bench|docs|examples|policies|proto|tests)/[\w./-]+")
_SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)+(?<!\.sqlite)")
_COMMAND = re.compile(r"broker(?: [a-z]+)+")
_LEFT = re.compile(r"(?:(?<![0-9&<])>|--to) ?([\w./-]+)")
_NOTES = ("not run", "needs", "from", "members", "file", "step")
_DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
_EVENTS = frozenset(get_args(Event))
_HEADINGS = ["## Context", "## Decision", "## Consequences", "## What we gave up"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in links(document):
        if "://" in target:
            assert target.startswith("https://"), target
        else:
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_what_commands_leave_in_a_checkout_is_not_taken_for_a_part_of_it() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    left = {
        file
        for document in DOCUMENTS
        for block in blocks(document)
        if block.is_run
        for file in _LEFT.findall(block.text)
    }

    assert "audit.pub" in left
    # An export has its manifest beside it.
    for file in [*left, "denials.ndjson.manifest"]:
        told = subprocess.run([git, "check-ignore", "--quiet", file], cwd=ROOT, check=False)
        assert told.returncode == 0, file


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_path_that_is_named_exists(document: Path) -> None:
    shown = {block.noted("file") for block in blocks(document)}
    missing = [
        code
        for code in inline_code(document)
        if _PATH.fullmatch(code) and code not in shown and not (ROOT / code).exists()
    ]

    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    known = set(_settings())
    sections = {setting.partition(".")[0] for setting in known if "." in setting}
    unknown = [
        code
        for code in inline_code(document)
        if _SETTING.fullmatch(code)
        and code.partition(".")[0] in sections
        and code not in known
        and code not in _EVENTS
        and not (ROOT / code).exists()
    ]

    assert not unknown


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_that_is_named_exists(document: Path) -> None:
    for code in inline_code(document):
        if found := _COMMAND.match(code):
            result = CliRunner().invoke(main, [*found[0].split()[1:], "--help"])
            assert result.exit_code == 0, code


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_block_is_code_that_something_reads(document: Path) -> None:
    """A command is run by a test, or a comment before it says why not."""
    for block in blocks(document):
        assert block.language in {"sh", "text", "json", "yaml", "python", "cedar"}, block.place
        if block.note:
            assert any(block.noted(kind) for kind in _NOTES), block.place
        if block.language == "text":
            assert block.noted("from"), block.place
        if block.language == "json":
            assert json.loads(block.text), block.place


@pytest.mark.parametrize("document", _DECISIONS, ids=name)
def test_a_decision_fits_on_a_screen_and_says_what_it_gives_up(document: Path) -> None:
    lines = document.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line.startswith("## ")] == _HEADINGS
    assert lines[0].startswith(f"# {int(document.name[:4])}. ")
    assert len(lines) <= 50


def test_every_decision_is_listed() -> None:
    listed = links(ROOT / "docs" / "adr" / "README.md")

    assert listed == [decision.name for decision in _DECISIONS]


def test_the_front_page_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_lines_are_short_enough_to_read(document: Path) -> None:
    long = [
        line
        for line in document.read_text(encoding="utf-8").splitlines()
        if len(line) > 120 and not line.startswith(("|", "<!--", "# yaml"))
    ]

    assert not long


def _settings() -> Iterator[str]:
    """Every section and setting of the reference page, by its path."""
    section = ""
    for line in (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"## `([^`]+)`", line):
            section = found[1]
            yield section
        elif found := re.match(r"\| `([^`]+)` \|", line):
            yield f"{section}.{found[1]}" if section else found[1]
