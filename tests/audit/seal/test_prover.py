"""Every sealed record has a proof that stands alone, found by few reads; nothing else has one."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.audit.notes import NoteRefused
from broker.audit.record import RECORD_DECODER
from broker.audit.seal.integrity import NotSealed, Unproved
from broker.audit.seal.proof import Proof
from broker.audit.seal.prover import Prover
from broker.audit.seal.store import CheckpointStore
from broker.audit.segments import AuditLogRefused, find_segments
from tests.audit.seal.logs import Log, lines_of
from tests.audit.seal.signers import KeysInMemory, signer_of


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A record in several segments and checkpoints."""
    log = Log(tmp_path_factory.mktemp("proofs") / "audit")
    for number in range(6):
        log.write("a", 4)
        log.write("b", number % 3)
        log.sealer.step()
    log.write("b", 1)
    yield log
    log.close()


@pytest.fixture
def copy(sealed: Log, tmp_path: Path) -> Path:
    return shutil.copytree(sealed.directory, tmp_path / "copy")


def test_every_sealed_record_is_proved_to_whoever_has_the_key(sealed: Log) -> None:
    keys = signer_of(sealed.keys).keys()
    prover = Prover(sealed.directory, lambda: keys)
    last = sealed.checkpoints()[-1].checkpoint
    assert len(find_segments(sealed.directory)["a"]) > 1
    for writer, head in last.heads.items():
        for seq, line in enumerate(lines_of(sealed.directory, writer)[: head.seq]):
            proved = Proof.read(prover.prove(writer, seq)).verify(keys)
            assert proved.record == line
            assert (proved.link.writer, proved.link.seq) == (writer, seq)
            assert proved.checkpoint == last


def test_the_first_checkpoint_over_a_record_is_the_one_that_sealed_it(sealed: Log) -> None:
    prover = Prover(sealed.directory)
    listed = [one.checkpoint for one in sealed.checkpoints()]

    ends = [0, *(one.heads["a"].seq for one in listed)]
    for checkpoint, begin, end in zip(listed, ends, ends[1:], strict=False):
        assert prover.first_over("a", begin) == prover.first_over("a", end - 1) == checkpoint
    assert len(set(ends)) == len(ends) > 3
    with pytest.raises(NotSealed):
        prover.first_over("a", ends[-1])


def test_what_is_not_sealed_is_not_proved(sealed: Log) -> None:
    prover = Prover(sealed.directory)
    head = sealed.checkpoints()[-1].checkpoint.heads["b"]
    for writer, seq in (("b", head.seq), ("b", -1), ("nobody", 0), ("b", 10**17)):
        with pytest.raises(NotSealed):
            prover.prove(writer, seq)


def test_nothing_is_proved_where_nothing_was_sealed(tmp_path: Path) -> None:
    with pytest.raises(NotSealed):
        Prover(tmp_path).prove("a", 0)


def test_a_checkpoint_that_somebody_else_signed_proves_nothing(sealed: Log) -> None:
    stranger = signer_of(KeysInMemory()).keys()
    with pytest.raises(NoteRefused):
        Prover(sealed.directory, lambda: stranger).prove("a", 0)


@pytest.mark.parametrize("damage", ["lost", "a level lost", "changed", "cut"])
def test_a_tree_that_is_lost_or_damaged_is_made_again_from_the_record(
    sealed: Log, copy: Path, damage: str
) -> None:
    level = copy / "tree" / "01"
    if damage == "lost":
        shutil.rmtree(copy / "tree")
    elif damage == "a level lost":
        level.unlink()
    else:
        content = level.read_bytes()
        level.write_bytes(bytes(len(content)) if damage == "changed" else content[:40])
    keys = signer_of(sealed.keys).keys()
    Proof.read(Prover(copy).prove("a", 3)).verify(keys)
    assert level.read_bytes() == (sealed.directory / "tree" / "01").read_bytes()


def test_a_record_that_was_changed_after_it_was_sealed_is_not_proved(copy: Path) -> None:
    changed(copy / "a.000001.jsonl", 2)
    prover = Prover(copy)
    refused = "the path does not lead to the root that was signed"
    for _ in range(2):
        # Once the tree was made again, it is not made for each.
        place, sentence = unproved(prover, 1)
        assert place == "a.000001.jsonl:2"
        assert sentence == f"the record is not the one that was sealed: {refused}"


def test_a_record_whose_whole_segment_is_gone_is_not_proved(copy: Path) -> None:
    (copy / "a.000001.jsonl").unlink()
    with pytest.raises(AuditLogRefused, match="sealed and is gone") as refused:
        Prover(copy).prove("a", 1)
    assert not isinstance(refused.value, Unproved)


def changed(path: Path, number: int, *, to: bytes | None = None) -> None:
    """One line of a file is another; an empty one is none."""
    lines = path.read_bytes().splitlines(keepends=True)
    line = lines[number - 1]
    lines[number - 1] = line.replace(b'"permit"', b'"denied"') if to is None else to
    assert lines[number - 1] != line
    path.write_bytes(b"".join(lines))


def unproved(prover: Prover, seq: int) -> tuple[str, str]:
    """The place that keeps a record of ``a`` from being proved, and why."""
    with pytest.raises(Unproved) as refused:
        prover.prove("a", seq)
    found = refused.value
    assert str(found) == f"{found.place}: {found.sentence}"
    return found.place, found.sentence


def test_a_record_that_was_cut_out_is_missed_where_it_stood(copy: Path) -> None:
    changed(copy / "a.000001.jsonl", 3, to=b"")
    gone = "the record of a with seq 2 was sealed and is gone"
    assert unproved(Prover(copy), 2) == ("a.000001.jsonl:3", gone)


def test_records_that_were_cut_off_are_missed_behind_the_last_that_is_there(copy: Path) -> None:
    path = copy / "a.000001.jsonl"
    count = path.read_bytes().count(b"\n")
    changed(path, count, to=b"")
    gone = f"the record of a with seq {count - 1} was sealed and is gone"
    assert unproved(Prover(copy), count - 1) == (f"a.000001.jsonl:{count}", gone)


def test_a_line_that_is_no_record_is_named(copy: Path) -> None:
    changed(copy / "a.000001.jsonl", 3, to=b"{}\n")
    assert unproved(Prover(copy), 2) == ("a.000001.jsonl:3", "the line is no record")


def test_a_segment_that_does_not_begin_with_a_record_is_named_for_what_it_held(copy: Path) -> None:
    second = copy / "a.000002.jsonl"
    seq = RECORD_DECODER.decode(second.read_bytes().splitlines()[1]).seq
    changed(second, 1, to=b"{}\n")
    assert unproved(Prover(copy), seq) == ("a.000002.jsonl:1", "the line is no record")
    # What stands before it is proved as ever.
    Prover(copy).prove("a", 1)


def test_where_the_tree_is_lost_as_well_the_first_line_that_does_not_fit_is_named(
    copy: Path,
) -> None:
    shutil.rmtree(copy / "tree")
    changed(copy / "a.000001.jsonl", 2)
    place, sentence = unproved(Prover(copy), 3)
    assert place == "a.000001.jsonl:2"
    assert sentence == "the record was changed after it was written"


def test_where_nothing_tells_which_line_was_changed_none_is_blamed(copy: Path) -> None:
    last = CheckpointStore(copy).last()
    assert last is not None
    root, other = (base64.b64encode(one) for one in (last.checkpoint.root, bytes(32)))
    (path,) = CheckpointStore(copy).files().values()
    path.write_bytes(path.read_bytes().replace(root, other))
    with pytest.raises(AuditLogRefused, match="not the one that was sealed") as refused:
        Prover(copy).prove("a", 1)
    assert not isinstance(refused.value, Unproved)
