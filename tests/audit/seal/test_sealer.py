"""The sealer: one signed tree over all chains, which goes on after whatever happened to its process."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.audit.chain import GENESIS
from broker.audit.diagnosis import Wrong
from broker.audit.merkle import root_by_inclusion, root_of
from broker.audit.notes import open_note
from broker.audit.seal.resume import SealingRefused
from broker.audit.seal.sealer import IDLE_SECONDS, Sealer
from broker.audit.seal.store import CheckpointsDamaged, CheckpointStore
from broker.audit.seal.tree import TreeStore
from broker.audit.segments import WriterBusy, find_segments
from broker.errors import TemporarilyUnavailable
from tests.audit.chains import NOW, write_chain
from tests.audit.seal.logs import Clock, Log, leaves_by_definition, lines_of
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "audit")
    yield made
    made.close()


def assert_all_sealed(log: Log) -> None:
    """Every checkpoint is signed, follows the one before, and has the root of the lines until there."""
    kept = log.checkpoints()
    checkpoints = [one.checkpoint for one in kept]
    previous = GENESIS
    keys = signer_of(log.keys).keys()
    for number, one in enumerate(kept, start=1):
        assert open_note(one.note, keys) == one.checkpoint.text
        assert one.checkpoint.previous == previous
        assert one.checkpoint.root == root_of(
            leaves_by_definition(log.directory, checkpoints[:number])
        )
        previous = one.checkpoint.digest
    last = checkpoints[-1]
    for writer in log.chains:
        assert last.heads[writer].seq == len(lines_of(log.directory, writer))


def test_what_is_new_in_all_chains_is_sealed_under_one_signed_root(log: Log) -> None:
    log.write("a")
    log.write("b", 5)
    kept = log.sealer.step()
    assert kept is not None
    assert kept.checkpoint.size == 10
    log.write("b", 40)
    log.sealer.step()
    log.write("a")
    log.sealer.step()
    assert len(log.checkpoints()) == 3
    assert_all_sealed(log)
    assert not log.sealer.faults


def test_nothing_new_is_sealed_once_an_hour(log: Log) -> None:
    assert log.sealer.step() is not None
    assert log.sealer.step() is None
    log.clock.now += IDLE_SECONDS
    assert log.sealer.step() is not None
    assert log.sealer.step() is None
    first, second = log.checkpoints()
    assert first.checkpoint.root == second.checkpoint.root
    assert first.checkpoint.time < second.checkpoint.time


def test_a_record_without_a_line_is_not_sealed(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "audit", signer_of(KeysInMemory()), origin=ORIGIN, now=Clock())
    assert sealer.step() is None
    sealer.close()


def test_much_that_is_new_is_sealed_in_pieces(log: Log) -> None:
    log.write("a", 20)
    log.sealer = log.new_sealer(most_lines=4)
    log.sealer.step()
    assert len(log.checkpoints()) > 4
    assert_all_sealed(log)


def test_a_new_process_goes_on_where_the_last_one_was(log: Log) -> None:
    log.write("a", 20)
    log.sealer.step()
    log.restart()
    with capture_logs() as told:
        log.write("b")
        log.sealer.step()
    assert told == []
    assert_all_sealed(log)


@pytest.mark.parametrize("damage", ["lost", "empty", "flipped", "older"])
def test_a_memory_that_is_lost_damaged_or_old_is_derived_anew(log: Log, damage: str) -> None:
    log.write("a", 20)
    log.sealer.step()
    state = log.directory / "tree" / "state.json"
    older = state.read_bytes()
    log.write("b", 20)
    log.sealer.step()
    if damage == "lost":
        shutil.rmtree(state.parent)
    else:
        flipped = state.read_bytes().replace(b'"offset":', b'"offset":1', 1)
        state.write_bytes({"empty": b"", "flipped": flipped, "older": older}[damage])
    log.restart()
    log.write("a")
    log.sealer.step()
    assert_all_sealed(log)
    assert not log.sealer.faults
    checkpoint = log.checkpoints()[-1].checkpoint
    tree = TreeStore(log.directory)
    assert tree.frontier(checkpoint.size).root() == checkpoint.root


def test_a_tree_on_disk_proves_every_leaf(log: Log) -> None:
    for _ in range(5):
        log.write("a", 3)
        log.write("b", 2)
        log.sealer.step()
    checkpoints = [one.checkpoint for one in log.checkpoints()]
    leaves = leaves_by_definition(log.directory, checkpoints)
    tree = TreeStore(log.directory)
    for checkpoint in checkpoints:
        for index in range(checkpoint.size):
            path = tree.inclusion_proof(index, checkpoint.size)
            root = root_by_inclusion(leaves[index], index=index, size=checkpoint.size, path=path)
            assert root == checkpoint.root
        for index in (-1, checkpoint.size):
            with pytest.raises(IndexError):
                tree.inclusion_proof(index, checkpoint.size)


def test_a_second_sealer_waits_until_the_first_is_gone(log: Log) -> None:
    log.sealer.step()
    second = log.new_sealer()
    with pytest.raises(WriterBusy):
        second.step()
    log.sealer.close()
    log.write("a")
    assert second.step() is not None
    second.close()
    assert_all_sealed(log)


def test_while_the_key_is_away_nothing_is_sealed_and_then_everything(log: Log) -> None:
    log.sealer.step()
    log.write("a")
    log.keys.is_away = True
    with pytest.raises(TemporarilyUnavailable):
        log.sealer.step()
    log.write("b")
    log.keys.is_away = False
    log.sealer.step()
    assert_all_sealed(log)


def test_a_key_with_a_new_version_goes_on_with_the_one_that_auditors_hold(log: Log) -> None:
    log.sealer.step()
    first = signer_of(log.keys).keys()
    log.keys.rotate()
    log.write("a")
    log.sealer.step()
    log.write("a")
    log.restart().step()
    for kept in log.checkpoints():
        open_note(kept.note, first)


def test_a_version_that_signs_no_more_is_followed_by_the_newest_and_that_is_told(log: Log) -> None:
    log.sealer.step()
    log.keys.rotate()
    log.keys.first_signing = 2
    log.write("a")
    with capture_logs() as told:
        log.sealer.step()
    assert [one["event"] for one in told] == ["audit_key_changed"]
    new, old = signer_of(log.keys).keys()
    first, second = log.checkpoints()
    open_note(first.note, [old])
    open_note(second.note, [new])


def test_a_checkpoint_that_none_of_our_keys_signed_is_not_gone_on_from(log: Log) -> None:
    log.sealer.step()
    log.keys = KeysInMemory()
    with pytest.raises(SealingRefused, match="none of our keys"):
        log.restart().step()


def test_the_checkpoints_of_another_record_are_not_gone_on_from(log: Log) -> None:
    log.sealer.step()
    log.sealer.close()
    other = Sealer(
        log.directory, signer_of(log.keys), origin="other.example/audit/1", now=log.clock
    )
    with pytest.raises(SealingRefused, match="are those of"):
        other.step()
    other.close()


def cut_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def change_last_line(path: Path) -> None:
    *lines, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, last.replace(b"permit", b"denied")]))


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (cut_last_line, Wrong.TRUNCATED),
        (change_last_line, Wrong.CHANGED),
        (Path.unlink, Wrong.MISSING),
    ],
)
@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_a_chain_that_lost_what_was_sealed_is_told_and_the_others_go_on(
    log: Log, damage: Callable[[Path], None], wrong: Wrong, memory: str
) -> None:
    log.write("a", 3)
    log.write("b", 3)
    log.sealer.step()
    sealed = log.checkpoints()[-1].checkpoint
    log.sealer.close()
    newest = list(find_segments(log.directory)["a"].values())[-1]
    before = newest.read_bytes()
    damage(newest)
    if memory == "lost":
        (log.directory / "tree" / "state.json").unlink()
    log.write("b", 3)
    with capture_logs() as told:
        log.restart().step()
    (broken,) = [one for one in told if one["event"] == "audit_chain_broken"]
    assert broken["writer"] == "a"
    assert broken["log_level"] == "critical"
    if memory == "kept":
        assert log.sealer.faults["a"].wrong is wrong
    last = log.checkpoints()[-1].checkpoint
    assert last.heads["a"] == sealed.heads["a"]
    assert last.heads["b"].seq == sealed.heads["b"].seq + 3
    # Somebody puts back what it was, and a minute later it is sealed again.
    newest.write_bytes(before)
    log.clock.now += 61
    if memory == "lost":
        # What was read by then is not read again but by a new process.
        log.restart()
    log.sealer.step()
    assert not log.sealer.faults


def test_a_record_that_no_longer_leads_to_what_was_sealed_is_refused(log: Log) -> None:
    log.write("a", 3)
    log.sealer.step()
    change_last_line(list(find_segments(log.directory)["a"].values())[-1])
    shutil.rmtree(log.directory / "tree")
    with pytest.raises(SealingRefused, match="does not lead to what was sealed"):
        log.restart().step()


def test_damaged_checkpoints_are_refused_by_name(log: Log) -> None:
    log.sealer.step()
    log.write("a")
    log.sealer.step()
    path = log.directory / "checkpoints" / "000001.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    (log.directory / "tree" / "state.json").unlink()
    for damaged in (second, first + first, first[:-9] + b"\n" + second, b"\n" + first + second):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointsDamaged, match=r"000001\.jsonl"):
            log.restart().step()


@pytest.mark.requirement("LOG-05")
def test_checkpoints_that_were_rolled_back_are_told_at_once(log: Log) -> None:
    log.sealer.step()
    path = log.directory / "checkpoints" / "000001.jsonl"
    first = path.read_bytes()
    log.write("a")
    log.sealer.step()
    for left in (first, b""):
        path.write_bytes(left)
        state = (log.directory / "tree" / "state.json").read_bytes()
        with capture_logs() as told:
            log.restart().step()
        assert "audit_checkpoints_missing" in [one["event"] for one in told]
        (log.directory / "tree" / "state.json").write_bytes(state)


def test_a_chain_of_more_files_is_read_as_one(tmp_path: Path) -> None:
    write_chain(tmp_path / "audit")
    clock = Clock()
    sealer = Sealer(
        tmp_path / "audit", signer_of(KeysInMemory()), origin=ORIGIN, now=clock, most_lines=3
    )
    sealer._store = CheckpointStore(tmp_path / "audit", file_bytes=1_000)
    sealer.step()
    sealer.close()
    store = CheckpointStore(tmp_path / "audit")
    kept = list(store.all())
    assert len(store.files()) > 3
    assert kept[-1] == store.last()
    store.files()[2].unlink()
    with pytest.raises(CheckpointsDamaged, match=r"000002\.jsonl"):
        list(store.all())


def test_a_clock_that_is_behind_the_last_checkpoint_is_told_once(log: Log) -> None:
    log.sealer.step()
    with capture_logs() as told:
        for behind in (-59, -3_600, -3_601, -3_602, 10, -3_600):
            log.clock.now = NOW + behind
            log.write("a", 1)
            log.sealer.step()

    assert [(one["event"], one["log_level"]) for one in told] == [
        ("audit_clock_behind", "critical")
    ] * 2
    assert told[0]["seconds"] == 3_600
