"""Whoever changes, drops, moves, adds or cuts lines of the audit log is found out, and where."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from broker.audit.chain import MAX_LINE_BYTES, Head, link
from broker.audit.diagnosis import Fault, Wrong
from broker.audit.disk import DiskChain
from broker.audit.durable import DurableHead
from broker.audit.reader import UNDETECTED, Mode, verify_directory
from tests.audit.chains import NOW, contents, group, record, restore, write_chain

Segments = dict[str, bytes]
Lines = list[bytes]

FIRST, SECOND = "w1.000001.jsonl", "w1.000002.jsonl"

pytestmark = pytest.mark.requirement("LOG-05")
tampering = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    """The segments of a sound chain; there are enough to cut in the middle."""
    directory = tmp_path_factory.mktemp("sound")
    write_chain(directory)
    segments = contents(directory)
    assert len(segments) >= 4
    return segments


@pytest.fixture
def verify(tmp_path: Path) -> Callable[[Segments], Fault | None]:
    """Verify these segments: the first fault of the chain ``w1``, if it has one."""

    def first_fault(segments: Segments) -> Fault | None:
        report = verify_directory(restore(tmp_path / "audit", segments))
        assert report.is_intact == (report.chains[0].fault is None)
        return report.chains[0].fault

    return first_fault


Verify = Callable[[Segments], Fault | None]


def edited(segments: Segments, name: str, edit: Callable[[Lines], object]) -> Segments:
    """The same segments with the lines of one of them edited."""
    lines = segments[name].splitlines(keepends=True)
    edit(lines)
    return {**segments, name: b"".join(lines)}


def found(fault: Fault | None) -> tuple[str, int, Wrong] | None:
    return None if fault is None else (fault.place.file.name, fault.place.line, fault.wrong)


def test_a_sound_chain_is_intact_and_counted(sound: Segments, tmp_path: Path) -> None:
    report = verify_directory(restore(tmp_path, sound))

    (chain,) = report.chains
    assert report.is_intact
    assert chain.fault is None
    assert chain.is_closed
    assert (chain.writer, chain.segments, chain.torn_bytes) == ("w1", len(sound), 0)
    assert chain.records == sum(content.count(b"\n") for content in sound.values())
    assert report.records == chain.records
    assert chain.first_time == "2027-01-15T08:00:00.000000Z"
    assert chain.last_time > chain.first_time


def test_an_empty_directory_has_nothing_wrong(tmp_path: Path) -> None:
    report = verify_directory(tmp_path)

    assert report.is_intact
    assert (report.chains, report.records) == ((), 0)


@tampering
@given(data=st.data())
def test_a_change_of_any_byte_is_found(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    """Of the last line, which nothing remembers, only the form is; the next test but one."""
    name = data.draw(st.sampled_from(list(sound)))
    content = bytearray(sound[name])
    end = len(content) if name != list(sound)[-1] else content.rindex(b"\n", 0, -1)
    place = data.draw(st.integers(0, end - 1))
    value = data.draw(st.integers(0, 255))
    assume(content[place] != value)
    content[place] = value

    assert verify({**sound, name: bytes(content)}) is not None


@tampering
@given(data=st.data())
def test_a_changed_value_is_found_at_its_line(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(sound)))
    lines = sound[name].splitlines(keepends=True)
    last = len(lines) - (2 if name == list(sound)[-1] else 1)
    index = data.draw(st.integers(0, last))
    values = json.loads(lines[index])
    member = data.draw(st.sampled_from(sorted(values)))
    before = values[member]
    values[member] = before + 1 if isinstance(before, int) else f"{before}x"
    lines[index] = json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    fault = verify({**sound, name: b"".join(lines)})

    assert fault is not None
    assert fault.place.file.name == name
    assert fault.place.line == index + 1
    assert fault.wrong in {Wrong.CHANGED, Wrong.FOREIGN}
    assert f"{name}:{index + 1}: " in str(fault)


@tampering
@given(data=st.data())
def test_lines_that_are_dropped_are_found(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(sound)))
    lines = sound[name].splitlines(keepends=True)
    kept = len(lines) - (1 if name == list(sound)[-1] else 0)
    first = data.draw(st.integers(0, kept - 1))
    last = data.draw(st.integers(first, kept - 1))

    fault = verify({**sound, name: b"".join([*lines[:first], *lines[last + 1 :]])})

    assert fault is not None
    assert fault.wrong in {Wrong.MISSING, Wrong.TRUNCATED}
    assert "missing" in fault.sentence


@tampering
@given(data=st.data())
def test_lines_that_change_places_are_found_at_the_first(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(sound)))
    lines = sound[name].splitlines(keepends=True)
    one = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.integers(one + 1, len(lines) - 1))
    lines[one], lines[other] = lines[other], lines[one]

    fault = verify({**sound, name: b"".join(lines)})

    assert found(fault) == (name, one + 1, Wrong.REORDERED)


@tampering
@given(data=st.data())
def test_a_line_that_stands_again_is_found(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    everywhere = [line for content in sound.values() for line in content.splitlines(keepends=True)]
    name = data.draw(st.sampled_from(list(sound)))
    lines = sound[name].splitlines(keepends=True)
    place = data.draw(st.integers(1, len(lines)))
    line = data.draw(st.sampled_from(everywhere[: everywhere.index(lines[place - 1]) + 1]))
    lines.insert(place, line)

    assert found(verify({**sound, name: b"".join(lines)})) == (name, place + 1, Wrong.REPEATED)


@tampering
@given(data=st.data())
def test_a_segment_cut_anywhere_before_the_last_is_found(
    sound: Segments, verify: Verify, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(list(sound)[:-1]))
    length = data.draw(st.integers(0, len(sound[name]) - 1))

    fault = verify({**sound, name: sound[name][:length]})

    assert fault is not None
    assert fault.wrong in {Wrong.TRUNCATED, Wrong.TORN, Wrong.MISSING}


def test_a_segment_cut_within_a_line_is_torn_there(sound: Segments, verify: Verify) -> None:
    lines = sound[FIRST].splitlines(keepends=True)
    cut = b"".join([*lines[:3], lines[3][:-5]])

    assert found(verify({**sound, FIRST: cut})) == (FIRST, 4, Wrong.TORN)


def test_a_segment_cut_between_lines_is_blamed_on_its_last_line(
    sound: Segments, verify: Verify
) -> None:
    fault = verify(edited(sound, FIRST, lambda lines: lines.__delitem__(slice(-2, None))))

    count = sound[FIRST].count(b"\n")
    assert found(fault) == (FIRST, count - 2, Wrong.TRUNCATED)
    assert fault is not None
    assert f"the records with seq {count - 2} to {count - 1} are missing" in fault.sentence


def test_a_very_last_line_without_its_end_is_told_and_is_no_record(
    sound: Segments, tmp_path: Path
) -> None:
    """Its writer is at work or died at it; whether it was ever whole only a checkpoint could tell."""
    last = list(sound)[-1]
    count = sum(content.count(b"\n") for content in sound.values())

    for content in (sound[last][:-1], sound[last][:-30], sound[last][:-1] + b" "):
        (report,) = verify_directory(restore(tmp_path, {**sound, last: content})).chains
        assert (report.fault, report.records, report.is_closed) == (None, count - 1, False)
        assert report.unended_bytes == len(content) - content.rindex(b"\n") - 1


@pytest.mark.parametrize("position", [0, 1, -2])
def test_a_missing_segment_is_found(sound: Segments, verify: Verify, position: int) -> None:
    names = list(sound)
    fault = verify({name: sound[name] for name in names if name != names[position]})

    if position == 0:
        assert found(fault) == (SECOND, 1, Wrong.MISSING)
    else:
        before = names[position - 1]
        assert found(fault) == (before, sound[before].count(b"\n"), Wrong.TRUNCATED)


def test_a_chain_of_which_only_the_lock_is_left_is_found(sound: Segments, tmp_path: Path) -> None:
    restore(tmp_path, sound)
    for name in ("w1.lock", "w2.lock", "not.a.writer.lock"):
        (tmp_path / name).touch()
    for writer, seq in (("w2", 3), ("w3", 0)):
        (tmp_path / f"{writer}.lock").touch()
        DurableHead(tmp_path, writer=writer).tell(Head(seq, "a" * 64))

    report = verify_directory(tmp_path)

    assert not report.is_intact
    assert [(chain.writer, chain.fault is None) for chain in report.chains] == [
        ("w1", True),
        ("w2", False),
    ]
    assert found(report.chains[1].fault) == ("w2.lock", 1, Wrong.MISSING)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"a line of some other log\n",
        b"[" * 100_000 + b"\n",
        b'{"seq":1}\n',
        b'{"v":1,"event":"\xff","time":"","writer":"w1","seq":3,"prev":""}\n',
        b"x" * (MAX_LINE_BYTES + 10) + b"\n",
    ],
)
def test_a_line_that_is_no_record_is_found_where_it_was_put_in(
    sound: Segments, verify: Verify, line: bytes
) -> None:
    fault = verify(edited(sound, FIRST, lambda lines: lines.insert(3, line)))

    assert found(fault) == (FIRST, 4, Wrong.FOREIGN)


def test_a_record_of_another_chain_is_found(sound: Segments, verify: Verify) -> None:
    foreign, _ = link([record(1)], Head(), writer="w2")

    fault = verify(edited(sound, FIRST, lambda lines: lines.insert(3, foreign)))

    assert found(fault) == (FIRST, 4, Wrong.FOREIGN)


def test_a_whole_segment_of_another_chain_is_found(
    sound: Segments, verify: Verify, tmp_path: Path
) -> None:
    write_chain(tmp_path / "other", writer="w2")
    other = (tmp_path / "other" / "w2.000002.jsonl").read_bytes()

    assert found(verify({**sound, SECOND: other})) == (SECOND, 1, Wrong.FOREIGN)


def test_a_record_added_with_a_link_of_its_own_is_found_at_the_line_after(
    sound: Segments, verify: Verify
) -> None:
    """The forger knows how lines are linked, but cannot make the next line remember the new one."""
    lines = sound[FIRST].splitlines(keepends=True)
    third = json.loads(lines[3])
    forged, _ = link([record(99)], Head(third["seq"], third["prev"]), writer="w1")

    fault = verify(edited(sound, FIRST, lambda lines: lines.insert(3, forged)))

    assert fault is not None
    assert fault.place.file.name == FIRST
    assert fault.place.line in {4, 5}


def test_only_the_first_fault_is_told(sound: Segments, verify: Verify) -> None:
    twice = edited(sound, SECOND, lambda lines: lines.pop(2))
    twice = edited(twice, FIRST, lambda lines: lines.pop(2))

    assert found(verify(twice)) == (FIRST, 3, Wrong.MISSING)


def test_records_before_the_fault_are_counted(sound: Segments, tmp_path: Path) -> None:
    broken = edited(sound, FIRST, lambda lines: lines.pop(2))

    (chain,) = verify_directory(restore(tmp_path, broken)).chains

    assert chain.records == 2


def test_a_fault_in_one_chain_leaves_the_others_alone(sound: Segments, tmp_path: Path) -> None:
    write_chain(tmp_path, writer="w0")
    for name, content in edited(sound, FIRST, lambda lines: lines.pop(2)).items():
        (tmp_path / name).write_bytes(content)

    report = verify_directory(tmp_path)

    assert [chain.fault is None for chain in report.chains] == [True, False]


def test_the_last_line_is_held_to_the_form_it_is_written_in(
    sound: Segments, verify: Verify
) -> None:
    last = list(sound)[-1]
    count = sound[last].count(b"\n")

    def reformat(lines: Lines) -> None:
        lines[-1] = lines[-1].replace(b'":', b'": ')

    def extend(lines: Lines) -> None:
        lines[-1] = lines[-1].replace(b"{", b'{"a":1,', 1)

    for edit in (reformat, extend):
        assert found(verify(edited(sound, last, edit))) == (last, count, Wrong.CHANGED)


def test_what_only_a_checkpoint_could_show_is_not_shown(sound: Segments, verify: Verify) -> None:
    """Said openly: with nothing outside the chain that remembers its end, the end can be cut."""
    last = list(sound)[-1]

    def promote(lines: Lines) -> None:
        lines[-1] = lines[-1].replace(b'"cause":"stop"', b'"cause":"step"')

    assert verify(edited(sound, last, lambda lines: lines.pop())) is None
    assert verify(edited(sound, last, promote)) is None
    assert verify({name: sound[name] for name in sound if name != last}) is None
    assert len(UNDETECTED[Mode.CHAINS]) == 5


def test_lines_of_a_later_version_still_verify(verify: Verify) -> None:
    """The chain asks only for its own members, so that an old verifier reads a new log."""
    line = {
        "v": 2,
        "event": "token.dream",
        "time": "2027-01-15T08:00:00.000000Z",
        "writer": "w1",
        "seq": 0,
        "prev": "0" * 64,
        "dream": {"of": "sheep"},
    }

    assert verify({FIRST: json.dumps(line).encode() + b"\n"}) is None


def test_a_group_that_a_crash_cut_short_is_told_and_is_no_fault(tmp_path: Path) -> None:
    """What was written of it stays on record; no token of it was given away."""
    written, torn = tmp_path / "written", tmp_path / "torn"
    chain = DiskChain(written, writer="w1", now=lambda: NOW)
    chain.open("start")
    chain.append([record(1), *group("whole", 3), *group("cut", 4)])
    (first,) = contents(written).values()
    lines = first.splitlines(keepends=True)

    for kept, unfinished in [(5, ()), (6, ("cut",)), (8, ("cut",)), (9, ())]:
        half = lines[kept][:40] if kept < len(lines) else b""
        restore(torn, {FIRST: b"".join(lines[:kept]) + half})
        again = DiskChain(torn, writer="w1", now=lambda: NOW)
        again.open("start")
        again.append(group("after", 2))
        again.close()

        (report,) = verify_directory(torn).chains
        assert report.fault is None
        assert report.unfinished_groups == unfinished


def test_a_group_of_which_the_end_of_the_chain_lacks_some_is_told(tmp_path: Path) -> None:
    chain = DiskChain(tmp_path, writer="w1", now=lambda: NOW)
    chain.open("start")
    chain.append(group("cut", 3)[:2])

    (report,) = verify_directory(tmp_path).chains

    assert (report.fault, report.unfinished_groups) == (None, ("cut",))
