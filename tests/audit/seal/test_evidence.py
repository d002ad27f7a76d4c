"""Whatever is done to a log and its checkpoints is found with a public key, and where."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from broker.audit.diagnosis import Wrong
from broker.audit.notes import NoteKey
from broker.audit.reader import Mode, verify_directory
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.sealed import Trust
from broker.audit.segments import find_segments
from tests.audit.seal.sealed_logs import STAGES, Run, SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of

pytestmark = pytest.mark.requirement("LOG-05")

tampering = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def keys() -> KeysInMemory:
    return KeysInMemory()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, keys: KeysInMemory) -> SealedLog:
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    real_run(directory, keys)
    return SealedLog(directory, signer_of(keys).keys()[0])


@pytest.fixture
def log(sound: SealedLog, tmp_path: Path) -> SealedLog:
    """A copy to do something to."""
    return sound.copy(tmp_path / "audit")


def found(evidence: Evidence) -> list[tuple[str, int, Wrong]]:
    """The faults by their places."""
    assert evidence.is_whole == (not evidence.all_faults)
    return [(one.place.file.name, one.place.line, one.wrong) for one in evidence.all_faults]


def whole(evidence: Evidence) -> bool:
    return found(evidence) == []


def test_an_untouched_log_is_whole_and_tells_what_was_checked(sound: SealedLog) -> None:
    """One writer has crashed and come back, another has crashed and has not."""
    evidence = sound.verify()

    assert whole(evidence)
    sealed = evidence.sealed
    assert sealed is not None
    last = sound.kept()[-1].checkpoint
    assert (sealed.checkpoints, sealed.records, sealed.until) == (STAGES, last.size, last.time)
    assert sealed.unsealed == evidence.report.records - last.size > 0
    assert (sealed.origin, sealed.anchors) == (last.origin, 0)
    assert evidence.mode is Mode.SEALED
    assert [chain.writer for chain in evidence.report.chains] == ["grpc-0", "http-0", "keys"]
    assert [chain.is_closed for chain in evidence.report.chains] == [True, True, False]


def test_the_chains_are_found_as_the_walk_from_line_to_line_finds_them(sound: SealedLog) -> None:
    assert sound.verify().report == verify_directory(sound.directory)


def test_several_processes_find_what_one_finds(
    log: SealedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.seal.chains.WORTH_SHARING", 0)
    alone = log.verify()
    assert log.verify(processes=2) == alone
    log.edit("http-0.000002.jsonl", lambda lines: lines.pop(2))
    assert found(log.verify(processes=2)) == [("http-0.000002.jsonl", 3, Wrong.MISSING)]


def test_without_a_key_its_chains_are_verified_and_the_rest_is_said(sound: SealedLog) -> None:
    evidence = verify_log(sound.directory, Trust())

    assert whole(evidence)
    assert (evidence.mode, evidence.sealed) == (Mode.CHAINS, None)
    assert any("public key" in one for one in evidence.remarks)
    assert "a chain rewritten" in " ".join(evidence.undetected)


def test_a_log_can_be_verified_while_it_is_written_to(tmp_path: Path) -> None:
    """What it seals after it was looked at is not missed in what was read before."""
    run = Run(tmp_path, KeysInMemory())
    run.begin("http-0")
    log = SealedLog(tmp_path, signer_of(run.keys).keys()[0])
    for _ in range(3):
        run.write("http-0", 3)
        assert whole(log.verify()) is (run.sealer.last is not None)
        run.seal()
        assert whole(log.verify())
    run.end()


def test_a_copy_in_the_middle_of_a_line_of_each_file_is_whole(log: SealedLog) -> None:
    for segments in find_segments(log.directory).values():
        with list(segments.values())[-1].open("ab") as file:
            file.write(b'{"client_id":"ag')
    with log.checkpoints.open("ab") as file:
        file.write(b'{"note":"broker.example/au')

    evidence = log.verify()

    assert whole(evidence)
    assert len(evidence.remarks) == 3


def test_an_empty_directory_is_not_the_log_of_a_key(tmp_path: Path, sound: SealedLog) -> None:
    """A broker records its own start, so the log of a key is never empty."""
    assert [wrong for *_, wrong in found(SealedLog(tmp_path, sound.key).verify())] == [
        Wrong.MISSING
    ]


def test_a_key_that_signs_after_another_is_taken_with_it(tmp_path: Path) -> None:
    keys = KeysInMemory()
    run = Run(tmp_path, keys)
    run.begin("http-0")
    run.seal()
    keys.rotate()
    keys.first_signing = 2
    run.write("http-0", 2)
    run.seal()
    run.end()
    newest, oldest = signer_of(keys).keys()

    both = verify_log(tmp_path, Trust(keys=[newest, oldest]))
    assert whole(both)
    assert both.sealed is not None
    assert both.sealed.checkpoints == 2
    assert found(verify_log(tmp_path, Trust(keys=[oldest]))) == [("000001.jsonl", 2, Wrong.FOREIGN)]
    assert found(verify_log(tmp_path, Trust(keys=[newest]))) == [("000001.jsonl", 1, Wrong.FOREIGN)]


# What is done to the record.


@tampering
@given(data=st.data())
def test_a_change_of_any_byte_of_what_is_sealed_is_found(
    sound: SealedLog, log: SealedLog, data: st.DataObject
) -> None:
    """And of what came after: of the last line of a chain, which nothing remembers, only the form is."""
    writer = data.draw(st.sampled_from(["grpc-0", "http-0"]))
    names = [path.name for path in find_segments(sound.directory)[writer].values()]
    index = data.draw(st.integers(0, len(names) - 1))
    content = bytearray((sound.directory / names[index]).read_bytes())
    # What a crash has left of a line is none.
    end = content.rindex(b"\n") + 1
    if index == len(names) - 1:
        end = content.rindex(b"\n", 0, -1)
    place = data.draw(st.integers(0, end - 1))
    value = data.draw(st.integers(0, 255))
    assume(content[place] != value)
    content[place] = value
    (log.directory / names[index]).write_bytes(bytes(content))

    faults = found(log.verify())
    (log.directory / names[index]).write_bytes((sound.directory / names[index]).read_bytes())

    # An opening that no longer tells what the segment before it ends with leaves the fault there.
    assert faults[0][0] in names[max(index - 1, 0) : index + 1]


@pytest.mark.parametrize("writer", ["grpc-0", "http-0"])
@pytest.mark.parametrize("stage", [1, 3])
def test_a_chain_written_anew_from_a_changed_record_is_found_by_its_seal(
    log: SealedLog, writer: str, stage: int
) -> None:
    """The chain alone shows nothing; the checkpoint tells between which records it was changed."""
    before, after = log.heads(stage - 1).get(writer), log.heads(stage)[writer]
    first = 0 if before is None else before.seq
    place = log.place_of(writer, first)
    log.forge(writer, after.seq - 1, lambda one: setattr(one, "subject", "somebody-else"))

    assert verify_directory(log.directory).is_intact or writer == "keys"
    evidence = log.verify()

    assert found(evidence) == [(*place, Wrong.REWRITTEN)]
    assert evidence.sealed is not None
    assert evidence.sealed.checkpoints == stage
    assert log.kept()[stage].checkpoint.time in evidence.faults[0].sentence
    last = log.place_of(writer, after.seq - 1)
    assert place == last or f"to {last[0]}:{last[1]}" in evidence.faults[0].sentence


def test_a_valid_change_of_the_last_record_of_a_chain_is_held_by_its_seal(log: SealedLog) -> None:
    """No line remembers it."""
    seq = log.heads(3)["keys"].seq - 1
    log.forge("keys", seq, lambda one: setattr(one, "subject", "somebody-else"))
    assert verify_directory(log.directory).is_intact

    assert found(log.verify())[0][2] is Wrong.REWRITTEN


@pytest.mark.parametrize("cut", [1, 5, 12])
def test_records_cut_from_the_end_of_a_chain_are_missed(log: SealedLog, cut: int) -> None:
    sealed = log.heads(3)["http-0"].seq
    kept = sealed - cut
    for path in sorted(log.directory.glob("http-0.*.jsonl")):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:kept]))
        kept = max(kept - len(lines), 0)
        if path.stat().st_size == 0:
            path.unlink()
    assert verify_directory(log.directory).is_intact
    place = log.place_of("http-0", sealed - cut - 1)

    evidence = log.verify()

    assert found(evidence) == [(*place, Wrong.TRUNCATED)]
    lost = f"{sealed - cut} to {sealed - 1} were" if cut > 1 else f"{sealed - 1} was"
    assert f"with seq {lost} sealed until" in evidence.faults[0].sentence


def test_a_chain_that_is_gone_with_its_lock_is_missed(log: SealedLog) -> None:
    for path in log.directory.glob("http-0.*"):
        path.unlink()
    assert verify_directory(log.directory).is_intact

    evidence = log.verify()

    assert found(evidence) == [("http-0.000001.jsonl", 1, Wrong.MISSING)]
    assert "the whole chain is missing" in evidence.faults[0].sentence
    sealed = log.heads(3)["http-0"].seq
    assert f"{sealed} records of it were sealed until" in evidence.faults[0].sentence


@pytest.mark.parametrize("position", [0, 1, -1])
def test_a_segment_that_is_gone_is_missed(log: SealedLog, position: int) -> None:
    segments = list(find_segments(log.directory)["http-0"].values())
    assert len(segments) > 2
    before = segments[position - 1]
    lines = before.read_bytes().count(b"\n")
    segments[position].unlink()

    ((name, line, wrong),) = found(log.verify())

    if position:
        assert (name, line, wrong) == (before.name, lines, Wrong.TRUNCATED)
    else:
        assert (name, line, wrong) == (segments[1].name, 1, Wrong.MISSING)


DAMAGES: dict[str, tuple[Callable[[list[bytes]], object], int, Wrong]] = {
    "changed": (
        lambda lines: lines.__setitem__(3, lines[3].replace(b'"permit"', b'"denied"')),
        4,
        Wrong.CHANGED,
    ),
    "deleted": (lambda lines: lines.pop(3), 4, Wrong.MISSING),
    "reordered": (lambda lines: lines.insert(3, lines.pop(4)), 4, Wrong.REORDERED),
    "repeated": (lambda lines: lines.insert(4, lines[2]), 5, Wrong.REPEATED),
    "put in": (lambda lines: lines.insert(3, b"{}\n"), 4, Wrong.FOREIGN),
    "cut": (lambda lines: lines.__delitem__(slice(-2, None)), 0, Wrong.TRUNCATED),
}


@pytest.mark.parametrize("name", ["http-0.000001.jsonl", "http-0.000002.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_chain_shows_by_itself_is_told_once_and_by_its_line(
    log: SealedLog, name: str, damage: str
) -> None:
    edit, line, wrong = DAMAGES[damage]
    log.edit(name, edit)
    line = line or (log.directory / name).read_bytes().count(b"\n")

    assert found(log.verify()) == [(name, line, wrong)]


def test_each_chain_is_blamed_for_itself(log: SealedLog) -> None:
    log.forge("http-0", 3, lambda one: setattr(one, "subject", "somebody-else"))
    log.edit("grpc-0.000001.jsonl", lambda lines: lines.pop(3))

    assert found(log.verify()) == [
        ("grpc-0.000001.jsonl", 4, Wrong.MISSING),
        ("http-0.000001.jsonl", 1, Wrong.REWRITTEN),
    ]


# What is done to the checkpoints.


@tampering
@given(data=st.data())
def test_a_change_of_any_byte_of_a_checkpoint_is_found(
    sound: SealedLog, log: SealedLog, data: st.DataObject
) -> None:
    """But for the end of the last one, without which it was never written."""
    content = bytearray(sound.checkpoints.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))
    value = data.draw(st.integers(0, 255))
    assume(content[place] != value)
    line = bytes(content[:place]).count(b"\n") + 1
    content[place] = value
    log.checkpoints.write_bytes(bytes(content))

    ((name, told, wrong), *_) = found(log.verify())

    assert (name, told) == ("000001.jsonl", line)
    assert wrong in {Wrong.CHANGED, Wrong.FOREIGN}


LISTS: dict[str, tuple[Callable[[list[bytes]], object], int, Wrong]] = {
    "the first is gone": (lambda lines: lines.pop(0), 1, Wrong.MISSING),
    "one is gone": (lambda lines: lines.pop(1), 2, Wrong.MISSING),
    "two change places": (lambda lines: lines.insert(1, lines.pop(2)), 2, Wrong.REORDERED),
    "one stands again": (lambda lines: lines.insert(2, lines[1]), 3, Wrong.REPEATED),
    "one stands again later": (lambda lines: lines.append(lines[1]), 5, Wrong.REPEATED),
    "a line is none": (lambda lines: lines.insert(2, b"{}\n"), 3, Wrong.CHANGED),
    "a line is too long": (
        lambda lines: lines.insert(2, b"x" * 200_000 + b"\n"),
        3,
        Wrong.CHANGED,
    ),
}


@pytest.mark.parametrize("damage", LISTS)
def test_a_list_that_is_not_as_it_was_written_is_found(log: SealedLog, damage: str) -> None:
    edit, line, wrong = LISTS[damage]
    log.edit("checkpoints/000001.jsonl", edit)

    evidence = log.verify()

    assert found(evidence) == [("000001.jsonl", line, wrong)]
    assert evidence.sealed is not None
    assert evidence.sealed.checkpoints == line - 1


def test_a_list_that_is_gone_is_missed(log: SealedLog) -> None:
    shutil.rmtree(log.checkpoints.parent)

    assert found(log.verify()) == [("checkpoints", 1, Wrong.MISSING)]


def test_a_log_written_and_sealed_anew_by_another_key_is_another_log(
    log: SealedLog, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    real_run(other, KeysInMemory())

    assert found(SealedLog(other, log.key).verify()) == [("000001.jsonl", 1, Wrong.FOREIGN)]


def test_a_list_rolled_back_is_found_by_an_anchor_alone(log: SealedLog, tmp_path: Path) -> None:
    """Record and checkpoints put back together fit: nothing there remembers that there was more."""
    kept = log.kept()
    early, late = tmp_path / "early.note", tmp_path / "late.note"
    early.write_text(kept[1].note)
    late.write_text(kept[3].note)
    assert log.verify(early, late).sealed is not None
    assert whole(log.verify(early, late))
    assert log.verify(early).mode is Mode.ANCHORED
    log.edit("checkpoints/000001.jsonl", lambda lines: lines.__delitem__(slice(3, None)))

    assert whole(log.verify())
    assert whole(log.verify(early))
    evidence = log.verify(early, late)
    assert found(evidence) == [("late.note", 1, Wrong.ROLLED_BACK)]
    assert "rolled back behind it" in evidence.faults[0].sentence


def test_a_log_sealed_anew_by_its_own_key_is_found_by_an_anchor_alone(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    """The operator's own forgery: what was kept elsewhere in time convicts it."""
    anchor = tmp_path / "kept.note"
    anchor.write_text(log.kept()[1].note)
    forged = tmp_path / "forged"
    forged.mkdir(mode=0o700)
    real_run(forged, keys)
    again = SealedLog(forged, log.key)

    assert whole(again.verify())
    evidence = again.verify(anchor)

    assert found(evidence) == [("kept.note", 1, Wrong.ROLLED_BACK)]
    assert "not the one that it is from" in evidence.faults[0].sentence


def test_what_is_signed_and_cannot_be_is_found(
    log: SealedLog, keys: KeysInMemory, tmp_path: Path
) -> None:
    """Sealed by the right key: a smaller log, an earlier time, a tree of other records."""
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    real_run(other, keys)
    foreign = (other / "checkpoints" / "000001.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copytree(other / "checkpoints", log.checkpoints.parent, dirs_exist_ok=True)

    faults = found(log.verify())

    assert len(foreign) == STAGES
    assert {wrong for _, _, wrong in faults} == {Wrong.REWRITTEN}


def test_json_of_a_line_has_one_spelling(log: SealedLog) -> None:
    def spell(lines: list[bytes]) -> None:
        lines[1] = json.dumps(json.loads(lines[1])).encode() + b"\n"

    log.edit("checkpoints/000001.jsonl", spell)

    assert found(log.verify()) == [("000001.jsonl", 2, Wrong.CHANGED)]


def test_a_key_of_the_same_name_is_another_key(log: SealedLog) -> None:
    stranger = signer_of(KeysInMemory()).keys()[0]

    assert found(verify_log(log.directory, Trust(keys=[stranger]))) == [
        ("000001.jsonl", 1, Wrong.FOREIGN)
    ]
    assert isinstance(stranger, NoteKey)
