"""Asking the record on the command line: filters, formats, hostile values, waiting."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from broker.audit.record import rfc3339
from tests.audit.index.lives import NOW, Life, issue, presented
from tests.e2e.patience import until

Run = Callable[..., Result]

HOSTILE = "=cmd()\x1b[2J\u202e<script>\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    life = Life(tmp_path_factory.mktemp("asked"))
    life.write(
        issue(
            1, subject="ann", client_id="desk", mcp_client="desk", grant_type="client_credentials"
        ),
        issue(2, subject="ben", mcp_server="https://a.example", inputs=[presented("token-1")]),
        issue(3, decision="deny", reason="policy_forbidden", jti=None, policy_ids=["never"]),
        issue(4, subject=HOSTILE, client_id=HOSTILE, resource=HOSTILE, chain_depth=2),
    )
    life.close()
    return life.directory


def found(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["event_id"] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (("--subject", "ann"), [1]),
        (("--subject", "ann", "--subject", "ben"), [2, 1]),
        (("--client", "desk"), [1]),
        (("--mcp-server", "https://a.example"), [2]),
        (("--resource", HOSTILE), [4]),
        (("--decision", "deny"), [3]),
        (("--reason", "policy_forbidden"), [3]),
        (("--policy", "never"), [3]),
        (("--token", "token-1"), [2, 1]),
        (("--event", "token.issue", "--limit", "2"), [4, 3]),
        (("--grant", "own"), [1]),
        (("--min-depth", "1"), [4]),
        (("--max-depth", "9"), [4]),
        (("--since", rfc3339(NOW + 3), "--until", rfc3339(NOW + 4)), [3]),
        (("--subject", "ann", "--decision", "deny"), []),
        (("--subject", "nobody"), []),
        (("--until", "90w"), []),
        (("--event", "token.issue", "--since", "9999999s"), [4, 3, 2, 1]),
    ],
)
def test_a_filter_says_which_records_are_wanted(
    run: Run, directory: Path, options: tuple[str, ...], numbers: list[int]
) -> None:
    result = run("audit", "query", str(directory), *options, "-o", "ndjson")
    assert found(result) == [f"event-{number}" for number in numbers]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time: write 2026-11-22T14:05:00Z"),
        (
            ("--reason", "polcy_forbiden"),
            "--reason: 'polcy_forbiden' is none; did you mean 'policy_forbidden'?",
        ),
        (("--reason", "x\x1b[2J"), "docs/errors.md has all."),
        (("--until", "2026-02-31"), "--until: '2026-02-31' is no time"),
        (("--since", "2026-01-02", "--until", "2026-01-01"), "--since: it is not before until"),
        (("--min-depth", "-1"), "--min-depth: '-1' is no number from 0 to 999"),
        (("--max-depth", "many"), "--max-depth: 'many' is no number from 0 to 999: write 2"),
        (("--decision", "maybe"), "maybe"),
        (("--event", "token.steal"), "token.steal"),
        (("--cursor", "x"), "--cursor: it was not given by an answer"),
        (("--limit", "0"), "0"),
        (("--token", "eyJhbGciOi.eyJzdWIi.c2ln"), "secret"),
        (("--subject", "x" * 2_000), "--subject: a value is empty or longer"),
        (("--mcp-server", "x" * 2_000), "--mcp-server: a value is empty or longer"),
        (tuple(word for n in range(40) for word in ("--client", str(n))), "--client: more than"),
    ],
)
def test_a_question_that_is_none_is_refused(
    run: Run, directory: Path, options: tuple[str, ...], told: str
) -> None:
    result = run("audit", "query", str(directory), *options, COLUMNS="400")
    assert result.exit_code == 2
    assert told in result.stderr
    assert not result.stdout


def test_whoever_read_the_record_has_a_column_and_a_filter_of_their_own(
    run: Run, tmp_path: Path
) -> None:
    life = Life(tmp_path / "audit")
    life.write(
        issue(1, subject="ann"),
        issue(2, event="audit.read", jti=None, auditor="root", people_asked=["ann"]),
    )
    life.close()

    table = run("audit", "query", str(life.directory), "--auditor", "root").stdout
    head, row = (line.split() for line in table.splitlines())
    everything = run("audit", "query", str(life.directory), "--limit", "2").stdout
    about = run("audit", "query", str(life.directory), "--subject", "ann", "-o", "ndjson")
    text = run("audit", "query", str(life.directory), "--auditor", "root", "-o", "csv").stdout

    assert head == ["time", "decision", "event", "auditor", "why", "id"]
    assert row[-5:] == ["audit.read", "root", "about", "ann", "event-2"]
    assert everything.split()[:5] == ["time", "decision", "event", "subject", "auditor"]
    assert found(about) == ["event-1"]
    assert next(csv.DictReader(io.StringIO(text)))["auditor"] == "root"
    nobody = run("audit", "query", str(life.directory), "--subject", "root", "-o", "ndjson")
    assert found(nobody) == []


def test_pages_go_on_where_the_last_one_ended(run: Run, directory: Path) -> None:
    first = json.loads(run("audit", "query", str(directory), "--limit", "2", "-o", "json").stdout)
    again = ("--cursor", first["next_cursor"], "--limit", "9")
    rest = json.loads(run("audit", "query", str(directory), *again, "-o", "json").stdout)
    told = [one["record"]["event_id"] for one in first["records"] + rest["records"]]
    assert [name for name in told if name.startswith("event-")] == [
        f"event-{number}" for number in (4, 3, 2, 1)
    ]
    assert len(told) == len(set(told)) == 6
    assert rest["next_cursor"] == ""
    told_to_people = run("audit", "query", str(directory), "--limit", "2")
    assert f"--cursor {first['next_cursor']}" in told_to_people.stderr


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("output", ["table", "json", "csv", "ndjson"])
@pytest.mark.parametrize("verb", ["query", "tail"])
def test_a_hostile_value_moves_no_cursor_and_starts_no_formula(
    run: Run, directory: Path, output: str, verb: str
) -> None:
    if verb == "tail" and output in {"json", "csv"}:
        pytest.skip("tail prints lines only")
    result = run("audit", verb, str(directory), "--min-depth", "2", "-o", output)
    assert result.exit_code == 0, result.output
    assert "event-4" in result.stdout
    assert not set(result.stdout) & {"\x1b", "\u202e", "\x00"}
    if output == "csv":
        (_, row) = csv.reader(io.StringIO(result.stdout))
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    else:
        assert len(result.stdout.splitlines()) == (
            2 if (verb, output) == ("query", "table") else 1
        ) or (output == "json")


def test_a_changed_record_is_named_and_the_answer_is_not_whole(run: Run, tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.tell(issue(1), issue(2))
    life.close()
    segment = tmp_path / "w1.000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"event-1", b"event-9"))
    result = run("audit", "query", str(tmp_path), "-o", "ndjson")
    assert result.exit_code == 1
    assert "event-9" not in result.stdout
    assert "w1.000001.jsonl" in result.stderr
    assert "not whole" in result.stderr


def test_an_index_made_by_others_is_not_used_on_request(run: Run, tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.tell(issue(1), issue(2))
    with life.reader._file.writing() as connection:
        connection.execute("DELETE FROM event WHERE place = 2")
    life.close()
    command = ("audit", "query", str(tmp_path), "--event", "token.issue", "-o", "ndjson")
    assert found(run(*command)) == ["event-2"]
    assert found(run(*command, "--rebuild")) == ["event-2", "event-1"]


def test_a_directory_that_is_none_is_refused(run: Run, tmp_path: Path) -> None:
    for verb in ("query", "tail"):
        assert run("audit", verb, str(tmp_path / "none")).exit_code == 2


def test_the_newest_records_are_printed_the_newest_last(run: Run, directory: Path) -> None:
    result = run(
        "audit", "tail", str(directory), "-n", "2", "--event", "token.issue", "-o", "ndjson"
    )
    assert found(result) == ["event-3", "event-4"]
    assert found(run("audit", "tail", str(directory), "-n", "0", "-o", "ndjson")) == []


def test_records_are_printed_as_they_come_until_it_is_enough(tmp_path: Path) -> None:
    life = Life(tmp_path / "audit")
    life.directory.mkdir(mode=0o700)
    life.write(issue(1), issue(2, decision="deny", reason="policy_forbidden", jti=None))
    command = [sys.executable, "-m", "broker", "audit", "tail", str(life.directory), "--follow"]
    output = tmp_path / "output"
    with output.open("wb") as file:
        following = subprocess.Popen(
            [*command, "--decision", "permit", "-o", "ndjson"],
            stdout=file,
            stderr=subprocess.PIPE,
            # Whoever runs the tests in the background has it ignored, and so would what they start.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no lock.
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    try:
        until(lambda: b"event-1" in output.read_bytes(), seconds=30, what="the newest")
        life.write(issue(3), issue(4, decision="deny", reason="policy_forbidden", jti=None))
        life.write(issue(5), writer="w2")
        until(lambda: b"event-5" in output.read_bytes(), seconds=30, what="what comes")
        following.send_signal(signal.SIGINT)
        _, error = following.communicate(timeout=60)
    finally:
        following.kill()
    assert following.returncode == 0
    assert error == b""
    told = [json.loads(line)["event_id"] for line in output.read_bytes().splitlines()]
    assert sorted(told) == ["event-1", "event-3", "event-5"]
    life.close()
