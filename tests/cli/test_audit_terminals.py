"""What commands print about the record fits the terminal; what programs read does not depend on it."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli.page import tell
from broker.config.problems import Mark, Problem
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of
from tests.audit.telling import logs, records
from tests.cli.conftest import Run
from tests.cli.terminals import shown, without_colours

EVENTS = [
    "0b8f6e52-91c4-4d0c-a3f5-7d2e1c9a4b60",
    "5c2d9f17-3e8a-46b1-9f04-d8a7b6c5e4f3",
    "c7a1e0d4-6b3f-4f92-8e5d-2a9b8c7d6e5f",
]
TOKENS = ["7f1d6a30-22c9-4bb0-8d57-93e4f0a1b2c3", "e9b0c4d8-5a16-4e7f-a2c3-1b4d5e6f7a8b"]
PSEUDONYM = "~2026-11~AGwt3UQIX9EMF0GPGHO9nA"

pytestmark = pytest.mark.requirement("LOG-02")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with names as long as they are in earnest."""
    login, exchange = records.login(), records.exchange()
    refused = records.denied(event_id=EVENTS[2])
    login.event_id, exchange.event_id = EVENTS[:2]
    login.jti, exchange.jti = TOKENS
    for one in (exchange, refused):
        assert one.inputs
        one.inputs[0].jti = TOKENS[0]
    for one in (login, exchange, refused):
        one.subject = PSEUDONYM
    return logs.write(tmp_path_factory.mktemp("told") / "audit", login, exchange, refused)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


COMMANDS = {
    "query": (("query",), [*EVENTS, PSEUDONYM, "policy_forbidden", "mcp-tickets"]),
    "tail": (("tail",), [*EVENTS, PSEUDONYM]),
    "show": (("show", EVENTS[1]), [EVENTS[0], EVENTS[1], *TOKENS, "record 3 of 5 in chain http-0"]),
    "lineage": (("lineage", TOKENS[0]), [*EVENTS[:2], *TOKENS]),
}


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(("words", "whole"), COMMANDS.values(), ids=list(COMMANDS))
def test_no_line_is_wider_than_the_terminal_and_no_id_is_broken(
    told: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    whole: list[str],
    columns: int,
) -> None:
    lines = shown(monkeypatch, "audit", *words, str(told), columns=columns)

    assert max(map(len, lines)) <= columns, lines
    page = "\n".join(lines)
    for text in whole:
        assert text in page, page


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("verb", ["query", "tail"])
def test_colours_change_nothing_but_the_colour(
    told: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    plain = shown(monkeypatch, "audit", verb, str(told), columns=80)
    coloured = shown(monkeypatch, "audit", verb, str(told), columns=80, term="xterm-256color")

    assert "\x1b[" in "".join(coloured)
    assert without_colours(coloured) == plain


def test_a_terminal_with_room_has_one_line_for_each_record(
    run: Run, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = run("audit", "query", str(told)).stdout.splitlines()

    assert shown(monkeypatch, "audit", "query", str(told), columns=300) == piped
    assert len(piped) == 6


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS.values()], ids=list(COMMANDS))
def test_programs_read_the_same_whatever_the_terminal(
    run: Run, told: Path, words: tuple[str, ...]
) -> None:
    narrow = run("audit", *words, str(told), COLUMNS="40")

    assert narrow.exit_code == 0, narrow.output
    assert narrow.stdout == run("audit", *words, str(told), COLUMNS="200").stdout


@pytest.mark.usefixtures("run")
def test_a_verdict_fits_and_tells_what_it_leaves_out(
    sealed: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("audit", "verify", str(sealed.directory), "--key", sealed.key.text)

    lines = shown(monkeypatch, *command, columns=80)
    wide = shown(monkeypatch, *command, columns=160)

    assert max(map(len, lines)) <= 80, lines
    assert any(line.startswith("No room for: first.") for line in lines)
    assert not any(line.startswith("No room for") for line in wide)
    assert " ".join(" ".join(lines).split()).count(sealed.key.fingerprint) == 1


@pytest.mark.usefixtures("run")
def test_what_is_cut_shows_that_it_is(
    sealed: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sealed.copy(tmp_path / "audit")
    logs.write(log.directory, records.exchange(), writer="w" * 64)

    lines = shown(monkeypatch, "audit", "verify", str(log.directory), columns=80)

    (cut,) = [line for line in lines if line.startswith("www")]
    assert "w…" in cut
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("verb", ["query", "tail", "show", "lineage"])
def test_nothing_in_a_record_steers_a_real_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    hostile = [text for text in records.HOSTILE if not text.isprintable() and text != "\ud800"]
    poisoned = [records.poisoned(records.exchange(), text) for text in hostile]
    for number, one in enumerate(poisoned):
        one.event_id, one.jti = f"e{number}", f"t{number}"
    logs.write(tmp_path / "audit", *poisoned)

    for number in range(len(hostile)):
        named = {"show": [f"e{number}"], "lineage": [f"t{number}"]}.get(verb, [])
        lines = shown(monkeypatch, "audit", verb, *named, str(tmp_path / "audit"), columns=80)

        assert lines
        assert all(line.isprintable() for line in lines), lines
        if not named:
            return


def _reordered(lines: list[bytes]) -> None:
    lines[4], lines[5] = lines[5], lines[4]


DAMAGE: dict[str, Callable[[SealedLog], object]] = {
    "changed": lambda log: log.edit(
        "http-0.000001.jsonl", lambda lines: lines.insert(3, lines.pop(3).replace(b"T08", b"T09"))
    ),
    "missing": lambda log: log.edit("http-0.000001.jsonl", lambda lines: lines.pop(3)),
    "reordered": lambda log: log.edit("http-0.000001.jsonl", _reordered),
    "repeated": lambda log: log.edit(
        "http-0.000001.jsonl", lambda lines: lines.insert(5, lines[4])
    ),
    "truncated": lambda log: log.edit("http-0.000001.jsonl", lambda lines: lines.pop()),
    "rewritten": lambda log: log.forge("http-0", 2, lambda one: setattr(one, "subject", "x")),
}


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize("kind", list(DAMAGE))
def test_a_line_about_a_fault_begins_with_its_kind_and_its_place(
    run: Run, sealed: SealedLog, tmp_path: Path, kind: str
) -> None:
    log = sealed.copy(tmp_path / "audit")
    DAMAGE[kind](log)

    result = run("audit", "verify", str(log.directory), "--key", log.key.text)

    assert result.exit_code == 1
    told = result.stdout.splitlines()[1].split()
    assert told[0] == kind, result.stdout
    assert told[1].startswith(f"{log.directory}/"), result.stdout


@pytest.mark.usefixtures("run")
def test_a_comparison_fits(
    sealed: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(b"".join(map(Path.read_bytes, sealed.directory.glob("*.jsonl"))))

    monkeypatch.chdir(tmp_path)
    lines = shown(monkeypatch, "audit", "compare", str(sealed.directory), "copy", columns=50)

    assert max(map(len, lines)) <= 50, lines
    assert any(line.startswith("No room for: ") for line in lines)


class Terminal(io.StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_what_is_told_beside_the_output_fits_and_can_be_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    copied = "  broker audit show 0b8f6e52-91c4-4d0c-a3f5-7d2e1c9a4b60"

    monkeypatch.setattr("sys.stderr", screen := Terminal())
    tell(f"{'word ' * 20}end\n{copied}")
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    tell(f"{'word ' * 20}end")

    *wrapped, last = screen.getvalue().splitlines()
    assert max(map(len, wrapped)) <= 40
    assert last == copied
    assert pipe.getvalue() == f"{'word ' * 20}end\n"


@pytest.mark.parametrize("column", [1, 30, 88, 170])
def test_the_line_of_a_problem_fits_with_its_caret_under_its_place(column: int) -> None:
    text = "".join(chr(ord("a") + number % 26) for number in range(180))
    problem = Problem(Mark("broker.yaml", 1, column, text), "", "is wrong")

    _, excerpt, caret = problem.on_page(60).splitlines()

    assert max(len(excerpt), len(caret)) <= 60
    assert excerpt[caret.index("^")] == text[column - 1]


@pytest.mark.requirement("LOG-05")
def test_a_list_that_was_rolled_back_is_told_as_that(
    run: Run, sealed: SealedLog, tmp_path: Path
) -> None:
    log = sealed.copy(tmp_path / "audit")
    # What somebody else calls a file makes no chain of it.
    kept = tmp_path / "kept.000001.jsonl"
    kept.write_text(log.kept()[-1].note)
    log.edit("checkpoints/000001.jsonl", lambda lines: lines.pop())

    command = ("audit", "verify", str(log.directory), "--key", log.key.text)
    result = run(*command, "--anchor", str(kept))

    _, fault, *others = result.stdout.splitlines()
    assert fault.startswith(f"  rolled back  {kept}:1: ")
    assert not any(line.startswith("kept") for line in others)
