import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from broker.audit.log import FileAuditLog
from broker.model import RequestContext
from tests.world import NOW

Run = Callable[..., Result]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A directory with one closed chain of three requests."""
    directory = tmp_path / "audit"
    log = FileAuditLog(directory, writer="http-0", now=lambda: NOW, write_timeout=30.0)
    for number in range(3):
        with log.entry("token.issue", RequestContext("http", f"request-{number}")):
            pass
    log.close()
    return directory


def test_a_whole_record_is_verified(run: Run, records: Path) -> None:
    result = run("audit", "verify", str(records))

    assert result.exit_code == 0, result.output
    verdict, _, heading, line, *_ = result.stdout.splitlines()
    assert verdict.startswith("✔ whole as far as its chains show: 5 records")
    assert heading.split() == ["writer", "segments", "records", "first", "last", "state"]
    assert line.startswith("http-0")
    assert line.endswith("✔ whole, closed")
    assert "Undetectable by this" in result.stdout


def test_the_directory_of_the_settings_is_verified_by_default(
    run: Run, records: Path, tmp_path: Path
) -> None:
    records.chmod(0o700)
    (tmp_path / "broker.yaml").write_text("issuer: http://127.0.0.1:1\ndata_dir: .\n")

    result = run("audit", "verify", "-o", "json")

    report = json.loads(result.stdout)
    assert report["is_intact"]
    assert report["chains"][0]["writer"] == "http-0"


def test_a_changed_record_is_named_by_file_and_line(run: Run, records: Path) -> None:
    (segment,) = records.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"request-1", b"request-7"))

    result = run("audit", "verify", str(records))

    assert result.exit_code == 1
    assert f"{segment}:" in result.stdout
    assert "✖" in result.stdout
    assert "not whole" in result.stderr
    as_json = json.loads(run("audit", "verify", str(records), "-o", "json").stdout)
    assert not as_json["is_intact"]
    assert as_json["chains"][0]["fault"]["wrong"] == "changed"


def test_a_directory_that_is_not_there_is_a_mistake_of_the_command_line(run: Run) -> None:
    assert run("audit", "verify", "nowhere").exit_code == 2


def test_a_group_that_was_cut_short_is_named_and_is_no_fault(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "torn"
    log = FileAuditLog(directory, writer="grpc-0", now=lambda: NOW, write_timeout=30.0)
    with log.entry("token.issue", RequestContext("grpc", "request-9")) as entry:
        for _ in range(3):
            with entry.part():
                pass
    log.close()
    (segment,) = directory.glob("*.jsonl")
    opening_and_two = segment.read_bytes().splitlines(keepends=True)[:3]
    segment.write_bytes(b"".join(opening_and_two))

    result = run("audit", "verify", str(directory))
    report = json.loads(run("audit", "verify", str(directory), "-o", "json").stdout)

    assert result.exit_code == 0, result.output
    sentence = "the group request-9 was cut short; none of its tokens left the broker."
    assert sentence in " ".join(result.stdout.split())
    assert report["chains"][0]["unfinished_groups"] == ["request-9"]
