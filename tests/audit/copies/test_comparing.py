"""What a log no longer says is shown by what somebody else received, and nothing else is blamed."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from broker.audit.chain import Head, link
from broker.audit.copies import comparing, standing, whose
from broker.audit.copies.outcome import Comparison
from broker.audit.record import RECORD_DECODER
from broker.audit.seal.sealer import Sealer
from tests.audit.chains import NOW, record, write_chain
from tests.audit.copies.received import (
    LOG_ID,
    OTHER_ID,
    compared,
    kept,
    received,
    sentences,
)
from tests.audit.seal.sealed_logs import SealedLog
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of

pytestmark = pytest.mark.requirement("LOG-05")


def sealed_anew(log: SealedLog, keys: KeysInMemory) -> None:
    """All checkpoints as whoever holds the key makes them of what the files say now."""
    for name in ("checkpoints", "tree"):
        shutil.rmtree(log.directory / name)
    for path in log.directory.glob("*.head"):
        path.unlink()
    sealer = Sealer(log.directory, signer_of(keys), origin=ORIGIN, now=lambda: NOW + 5_000)
    assert sealer.step() is not None
    sealer.close()


def written_anew(log: SealedLog, writer: str, lines: Sequence[bytes]) -> None:
    """The chain of a writer as if it had been these records from the beginning."""
    records = [RECORD_DECODER.decode(line) for line in lines]
    for path in log.directory.glob(f"{writer}.*.jsonl"):
        path.unlink()
    data, _ = link(records, Head(), writer=writer)
    (log.directory / f"{writer}.000001.jsonl").write_bytes(data)


def wrongs(found: Comparison) -> Sequence[str]:
    return [one.wrong for one in found.faults]


def test_a_log_is_what_was_received_of_it(sound: SealedLog, tmp_path: Path) -> None:
    lines = received(sound)

    found = compared(sound, kept(tmp_path / "copy", lines), complete=True)

    assert found.is_whole
    assert (found.records, found.matching, found.lost) == (len(lines), len(lines), 0)
    assert [(one.writer, one.in_log == one.in_copy) for one in found.chains] == [
        ("grpc-0", True),
        ("http-0", True),
        ("keys", True),
    ]
    assert not found.remarks


def test_a_log_written_and_sealed_anew_by_whoever_holds_the_key_is_convicted(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log))
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))
    assert not log.verify().is_whole
    sealed_anew(log, keys)

    assert log.verify().is_whole
    found = compared(log, copy)
    name, line = log.place_of("http-0", 7)
    assert (found.changed, found.relinked, found.missing) == (1, 42, 0)
    assert wrongs(found) == ["changed", "relinked"]
    number = received(log).index(received(log, "http-0")[7]) + 1
    first = f"{copy}:{number}: http-0/7 is another record in the log, {name}:{line}"
    assert str(found.faults[0]) == first
    assert "http-0/8 came after another record" in found.faults[1].sentence


def test_records_that_were_taken_out_and_the_log_sealed_anew_are_missed(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    lines = received(log, "http-0")
    copy = kept(tmp_path / "copy", lines)
    written_anew(log, "http-0", [*lines[:7], *lines[9:]])
    sealed_anew(log, keys)

    assert log.verify().is_whole
    found = compared(log, copy)
    last = len(lines) - 1
    assert (found.matching, found.missing) == (7, 2)
    assert found.changed == len(lines) - 9
    assert sentences(found)[-1] == (
        f"http-0/{last} is not in the log, whose chain ends with {last - 2}"
    )


def test_a_change_that_does_not_fit_is_told_once_and_with_the_fault_of_its_chain(
    log: SealedLog, tmp_path: Path
) -> None:
    """What stands behind the misfit is found all the same."""
    copy = kept(tmp_path / "copy", received(log))
    name, line = log.place_of("http-0", 7)
    log.edit(
        name, lambda lines: lines.__setitem__(line - 1, lines[line - 1].replace(b"user", b"nemo"))
    )

    found = compared(log, copy)

    assert (found.changed, found.relinked, found.missing, found.lost) == (1, 0, 0, 0)
    assert wrongs(found) == ["changed", "changed"]
    assert found.faults[0].place is not None
    assert found.faults[0].place.file == log.directory / name
    assert sentences(found)[1] == f"http-0/7 is another record in the log, {name}:{line}"


def test_a_line_that_was_cut_out_is_missing_and_those_behind_it_are_not(
    log: SealedLog, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log))
    name, line = log.place_of("http-0", 7)
    log.edit(name, lambda lines: lines.pop(line - 1))

    found = compared(log, copy)

    assert (found.changed, found.missing, found.lost) == (0, 1, 0)
    assert found.chains[1].in_log == found.chains[1].in_copy == 49
    assert sentences(found)[-1] == "http-0/7 is not in the log"


def test_numbers_that_leap_take_no_memory(
    log: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_WIDEST_GAPS", 5)
    lines = received(log, "keys")
    copy = kept(tmp_path / "copy", lines)
    leaping = [
        msgspec.structs.replace(RECORD_DECODER.decode(lines[-1]), seq=at) for at in (9, 10**12)
    ]
    (log.directory / "keys.000001.jsonl").write_bytes(
        b"".join(msgspec.json.encode(one) + b"\n" for one in leaping)
        + b"".join(line + b"\n" for line in lines)
    )

    found = compared(log, copy)

    assert not found.is_whole
    assert found.chains[2].in_log == found.chains[2].in_copy == len(lines)


def test_records_at_the_end_and_a_whole_chain_that_are_gone_are_missing(
    log: SealedLog, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log))
    for path in log.directory.glob("keys.*"):
        path.unlink()
    log.edit(max(log.directory.glob("http-0.*.jsonl")).name, lambda lines: lines.pop())

    found = compared(log, copy)

    assert (found.missing, found.changed) == (4, 0)
    assert sentences(found)[0] == "http-0/49 is not in the log, whose chain ends with 48"
    assert sentences(found)[1] == "the log has no chain keys: 3 records of it in the copy"
    assert [(one.writer, one.in_log, one.missing) for one in found.chains][2] == ("keys", 0, 3)


def test_an_empty_directory_is_not_what_was_received(sound: SealedLog, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    found = compared(tmp_path / "empty", kept(tmp_path / "copy", received(sound)))

    assert found.missing == found.records
    assert sentences(found)[0].startswith("the log has no chain ")
    assert len(found.faults) == 3


def test_what_the_copy_lacks_is_told_and_is_a_fault_only_where_it_should_be_complete(
    sound: SealedLog, tmp_path: Path
) -> None:
    lines = received(sound, "http-0")
    copy = kept(tmp_path / "copy", [*lines[5:10], *lines[12:20], *lines[21:30]])

    found = compared(sound, copy)
    complete = compared(sound, copy, complete=True)

    name, line = sound.place_of("http-0", 10)
    assert found.is_whole
    assert (found.lost, complete.lost) == (3, 3)
    told = f"{sound.directory / name}:{line}: http-0/10 to 11 in the log, not in the copy"
    assert found.remarks[1] == told
    assert found.remarks[0] == "grpc-0: none of its 29 records is in the copy"
    assert found.remarks[2].endswith("http-0/20 in the log, not in the copy")
    assert complete.remarks == ["20 records of the log are newer than the copy"]
    assert not complete.is_whole
    assert [str(one) for one in complete.faults] == list(found.remarks)
    assert (found.chains[1].first, found.chains[1].last, found.chains[1].in_copy) == (5, 29, 22)


def test_records_that_come_again_and_in_another_order_are_no_fault(
    sound: SealedLog, tmp_path: Path
) -> None:
    lines = received(sound)
    copies = [kept(tmp_path / "a", reversed(lines)), kept(tmp_path / "b", lines[3:7])]

    found = compared(sound, *copies, complete=True)

    assert found.is_whole
    assert (found.matching, found.repeated) == (len(lines), 4)
    assert found.remarks == ["4 records came more than once, as they may"]


def test_a_record_beside_the_one_that_stands_for_it_now_still_convicts(
    log: SealedLog, tmp_path: Path
) -> None:
    """Whoever writes a log anew can have it delivered once more."""
    before = received(log)
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))

    found = compared(log, kept(tmp_path / "copy", [*before, *received(log)]), mixed=True)

    assert (found.changed, found.relinked) == (1, 42)
    assert found.matching + found.repeated == len(received(log)) + len(before) - 43


def test_a_record_that_somebody_wrote_in_other_bytes_says_the_same(
    log: SealedLog, tmp_path: Path
) -> None:
    """As collectors do that keep members and no lines."""
    lines = received(log, "http-0")
    rewritten = [
        json.dumps(
            {"@timestamp": 1, "tags": [], "jti": None, **json.loads(line)}, indent=None
        ).encode()
        for line in lines
    ]
    copy = kept(tmp_path / "copy", rewritten)

    found = compared(log, copy)
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))
    convicted = compared(log, copy)

    assert found.is_whole
    assert (found.matching, found.rewritten) == (0, len(lines))
    assert found.remarks[0].startswith(f"{len(lines)} records say the same in other bytes")
    assert (convicted.rewritten, convicted.changed) == (7, len(lines) - 7)


def other_log(directory: Path, log_id: str = OTHER_ID) -> list[bytes]:
    """The lines of another log, whose chain has a name that ours has too."""
    directory.mkdir(mode=0o700)
    if log_id:
        (directory / "log.id").write_text(f"{log_id}\n")
    write_chain(directory, writer="http-0", count=40)
    paths = sorted(directory.glob("*.jsonl"))
    return [line for path in paths for line in path.read_bytes().splitlines()]


def test_a_copy_of_another_log_is_told_by_the_name_of_that(
    sound: SealedLog, tmp_path: Path
) -> None:
    lines = other_log(tmp_path / "other")
    copy = kept(tmp_path / "copy", lines)

    for mixed in (False, True):
        found = compared(sound, copy, mixed=mixed)
        assert not found.is_whole
        assert (found.foreign, found.changed, found.missing) == (len(lines), 0, 0)
        assert found.other_logs == {OTHER_ID: len(lines)}
    assert sentences(found) == [f"no record of the copy is of this log, {LOG_ID}"]
    assert sentences(compared(sound, copy)) == [
        f"http-0/0 is of another log, {OTHER_ID}; this one is {LOG_ID}"
    ]
    assert compared(sound, copy).remarks == []


def test_two_logs_in_one_copy_are_told_apart_and_neither_hides_what_is_wrong(
    log: SealedLog, tmp_path: Path
) -> None:
    ours, theirs = received(log, "http-0"), other_log(tmp_path / "other")
    both = [line for pair in zip(ours, theirs, strict=False) for line in pair]
    copy = kept(tmp_path / "copy", both)
    count = len(both) // 2

    assert not compared(log, copy).is_whole
    mixed = compared(log, copy, mixed=True)
    log.forge("http-0", 7, lambda one: setattr(one, "subject", "somebody-else"))
    spoilt = compared(log, copy, mixed=True)

    assert mixed.is_whole
    assert (mixed.matching, mixed.foreign) == (count, count)
    assert mixed.remarks[0] == f"{count} records are of another log, {OTHER_ID}"
    assert (spoilt.changed, spoilt.relinked, spoilt.foreign) == (1, count - 8, count)


def test_a_log_that_was_given_another_name_cannot_disown_its_records(
    log: SealedLog, tmp_path: Path
) -> None:
    copy = kept(tmp_path / "copy", received(log))
    (log.directory / "log.id").write_text(f"{OTHER_ID}\n")
    log.forge("http-0", 0, lambda one: setattr(one, "detail", "x"))

    found = compared(log, copy, mixed=True)

    assert found.changed + found.relinked + found.foreign == len(received(log, "http-0"))
    assert not found.is_whole


def test_a_segment_that_says_it_is_of_another_log_is_of_the_log_that_it_follows(
    log: SealedLog, tmp_path: Path
) -> None:
    """Else records could be sent off with a name under which they are disowned later."""
    lines = received(log, "http-0")
    begins = next(at for at, line in enumerate(lines) if at and b'"chain.opened"' in line)
    records = [RECORD_DECODER.decode(line) for line in lines]
    records[begins].log_id = OTHER_ID
    sent = link(records, Head(), writer="http-0")[0].splitlines()

    found = compared(log, kept(tmp_path / "copy", sent), mixed=True)

    assert found.foreign == 0
    assert found.changed + found.relinked == len(lines) - begins


def test_of_a_log_whose_segments_have_no_name_nothing_is_taken_for_foreign(
    sound: SealedLog, tmp_path: Path
) -> None:
    lines = other_log(tmp_path / "other", log_id="")

    found = compared(sound, kept(tmp_path / "copy", lines), mixed=True)

    assert found.foreign == 0
    assert found.changed == found.records == len(lines)


@pytest.mark.parametrize("name", [b"", b"\x1b[2J", b"x" * 100])
def test_a_log_whose_name_is_none_is_compared_all_the_same(
    log: SealedLog, tmp_path: Path, name: bytes
) -> None:
    (log.directory / "log.id").write_bytes(name)

    found = compared(log, kept(tmp_path / "copy", received(log)))

    assert (found.is_whole, found.log_id) == (True, None)


def test_more_logs_and_chains_than_anybody_has_are_counted_and_not_remembered(
    sound: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whose, "MOST_LOGS", 3)
    monkeypatch.setattr(whose, "MOST_LINKS", 4)
    monkeypatch.setattr(comparing, "MOST_CHAINS", 3)
    opened = RECORD_DECODER.decode(received(sound, "keys")[0])
    many = []
    for number in range(20):
        head = link([msgspec.structs.replace(opened, log_id=f"{number:016x}")], Head(), writer="w")[
            0
        ]
        unknown = link([record(number)], Head(), writer=f"w{number}")[0]
        many += [head.rstrip(b"\n"), unknown.rstrip(b"\n")]

    found = compared(sound, kept(tmp_path / "copy", many))

    assert (found.foreign, found.missing) == (20, 20)
    assert found.other_logs == {f"{0:016x}": 1, f"{1:016x}": 1, f"{2:016x}": 1, "": 17}
    assert len(found.chains) == 3 + 3
    assert len(found.faults) == 3 + 3


def test_the_name_of_the_log_stands_where_each_segment_begins(sound: SealedLog) -> None:
    opened = [json.loads(line) for line in received(sound) if b'"chain.opened"' in line]

    assert len(opened) > 4
    assert {one["log_id"] for one in opened} == {LOG_ID}
