"""An auditor compares the record with what somebody else received, by a command."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.audit.copies.received import LOG_ID, kept, received
from tests.audit.seal.sealed_logs import SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of

Run = Callable[..., Result]

pytestmark = pytest.mark.requirement("LOG-05")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> SealedLog:
    directory = tmp_path_factory.mktemp("compared") / "audit"
    directory.mkdir(mode=0o700)
    (directory / "log.id").write_text(f"{LOG_ID}\n")
    keys = KeysInMemory()
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture
def log(sound: SealedLog, tmp_path: Path) -> SealedLog:
    return sound.copy(tmp_path / "audit")


def test_a_log_that_is_as_received_ends_with_0(run: Run, sound: SealedLog, tmp_path: Path) -> None:
    lines = received(sound)

    result = run("audit", "compare", str(sound.directory), str(kept(tmp_path / "copy", lines)))

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        f"✔ the log has what the copy has: {len(lines)} records, {len(lines)} as they are"
    )
    assert "✔ as received" in result.stdout
    assert "Undetectable by this:" in result.stdout
    assert max(map(len, result.stdout.replace(str(tmp_path), "").splitlines())) <= 88


def test_a_record_that_was_changed_is_told_with_its_places_and_ends_with_1(
    run: Run, log: SealedLog, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log, "http-0"))
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "\x1b[2Jsomebody"))

    result = run("audit", "compare", str(log.directory), str(copy))
    told = run("audit", "compare", str(log.directory), str(copy), "-o", "json")

    assert result.exit_code == told.exit_code == 1
    headline, first = result.stdout.splitlines()[:2]
    assert headline == "✖ the log and the copy differ: 1 changed, 42 relinked"
    assert first.strip() == (
        f"{copy}:8: http-0/7 is another record in the log, http-0.000001.jsonl:8"
    )
    assert "and the copy differ" in result.stderr
    found = json.loads(told.stdout)
    assert (found["is_intact"], found["log"], found["matching"]) == (False, LOG_ID, 7)
    assert [one["wrong"] for one in found["faults"]] == ["changed", "relinked"]
    assert found["faults"][0]["file"] == str(copy)
    assert found["faults"][0]["line"] == 8
    assert [(one["writer"], one["changed"], one["in_copy"]) for one in found["chains"]] == [
        ("grpc-0", 0, 0),
        ("http-0", 1, 50),
        ("keys", 0, 0),
    ]


def test_a_log_that_is_not_whole_by_itself_is_told_to_be_so(
    run: Run, log: SealedLog, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log, "keys"))
    name, line = log.place_of("http-0", 7)
    log.edit(name, lambda lines: lines.pop(line - 1))

    result = run("audit", "compare", str(log.directory), str(copy))

    assert result.exit_code == 1
    headline, fault = result.stdout.splitlines()[:2]
    assert headline.startswith("✖ the log is not whole, and has what the copy has: 3 records")
    assert f"{name}:{line}: " in fault
    assert "✖ not whole" in result.stdout


def test_a_copy_may_come_by_standard_input_and_in_parts(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    lines = [line.decode() for line in received(sound)]
    first = kept(tmp_path / "copy", [line.encode() for line in lines[:30]])

    result = run(
        *("audit", "compare", str(sound.directory), str(first), "-", "--complete", "-o", "json"),
        stdin="\n".join(lines[30:]),
    )

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["matching"] == len(lines)


def test_what_a_copy_lacks_is_a_fault_where_it_should_be_complete(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    lines = received(sound, "http-0")
    copy = kept(tmp_path / "copy", [*lines[:5], *lines[9:]])

    lossy = run("audit", "compare", str(sound.directory), str(copy))
    complete = run("audit", "compare", str(sound.directory), str(copy), "--complete")

    assert (lossy.exit_code, complete.exit_code) == (0, 1)
    assert "http-0/5 to 8 in the log, not in the copy" in lossy.stdout
    assert complete.stdout.startswith("✖ the log and the copy differ: 4 lost")
    assert "? not in the copy" in lossy.stdout


def test_what_a_copy_holds_moves_no_cursor(run: Run, sound: SealedLog, tmp_path: Path) -> None:
    hostile = [
        b"\x1b]0;owned\x07\x1b[2J \x9b31m \xe2\x80\xae",
        b'{"writer":"\\u001b[2J","seq":0,"prev":"x"}',
        b'{"writer":"w","seq":0,"prev":"\\u001b[2J","log_id":"\\u001b[2J"}',
        *received(sound, "keys"),
    ]
    copy = kept(tmp_path / "a\x1b[31mcopy\n", hostile)

    for output in ("table", "json"):
        result = run("audit", "compare", str(sound.directory), str(copy), "-o", output)
        assert result.exit_code == 1
        assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(result.output)
    told = json.loads(result.stdout)
    assert (told["lines_unread"], told["missing"], told["matching"]) == (2, 1, 3)


@pytest.mark.parametrize("content", [b"", b"nothing of ours\n", b"\x00" * 100])
def test_a_copy_without_a_record_ends_with_2(
    run: Run, sound: SealedLog, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "copy").write_bytes(content)

    result = run("audit", "compare", str(sound.directory), str(tmp_path / "copy"))

    assert result.exit_code == 2
    assert "There is no record in what was brought along" in result.stderr


def test_a_copy_that_is_compressed_has_to_be_unpacked_first(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    packed = tmp_path / "copy.gz"
    packed.write_bytes(gzip.compress(b"\n".join(received(sound))))

    result = run("audit", "compare", str(sound.directory), str(packed))

    assert result.exit_code == 2
    assert "unpack it first" in result.stderr


def test_a_copy_or_a_directory_that_is_not_there_ends_with_2(
    run: Run, sound: SealedLog, tmp_path: Path
) -> None:
    there = str(kept(tmp_path / "copy", received(sound)))

    assert run("audit", "compare", str(sound.directory)).exit_code == 2
    assert run("audit", "compare", str(sound.directory), str(tmp_path / "no")).exit_code == 2
    assert run("audit", "compare", str(sound.directory), str(sound.directory)).exit_code == 2
    assert run("audit", "compare", str(tmp_path / "no"), there).exit_code == 2
    assert run("audit", "compare", there, there).exit_code == 2
