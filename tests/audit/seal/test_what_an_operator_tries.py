"""What an operator, a power cut or a full disk does to the evidence is found, and nothing else is blamed."""

import base64
import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from broker.audit import checkpoints, durable, follow
from broker.audit.chain import Head, link
from broker.audit.disk import DiskChain
from broker.audit.durable import head_path, read_head
from broker.audit.merkle import ProofRefused
from broker.audit.notes import NoteKey, signed_note
from broker.audit.reader import Mode, verify_directory
from broker.audit.seal import chains
from broker.audit.seal.evidence import verify_log
from broker.audit.seal.keys import NamedSigner
from broker.audit.seal.proof import Proof
from broker.audit.seal.prover import Prover
from broker.audit.seal.receipts import Receipt
from broker.audit.seal.sealed import Anchor, Trust
from broker.audit.seal.sealer import Sealer
from broker.audit.seal.store import CheckpointStore
from broker.audit.segments import AuditLogRefused, regular
from broker.audit.telling.manifest import Manifest, ManifestRefused, opened
from tests.audit.chains import NOW, record
from tests.audit.seal.logs import Log
from tests.audit.seal.sealed_logs import Run, real_run
from tests.audit.seal.signers import ORIGIN, KeysInMemory, signer_of

OTHER = "broker.example/audit/fedcba9876543210"


def relabelled(note: str, key: NoteKey) -> str:
    """The same signature under the name of another log: nothing secret is needed for that."""
    text, _, signature = note.rpartition("\n\n")
    raw = base64.b64decode(signature.split()[-1])
    return f"{text}\n\n\u2014 {key.name} {base64.b64encode(key.id + raw[4:]).decode()}\n"


def test_a_log_does_not_pass_for_another_of_the_same_key(tmp_path: Path) -> None:
    keys = KeysInMemory()
    real_run(tmp_path, keys)
    wanted = NamedSigner(keys, origin=OTHER).keys()[0]
    proof = Prover(tmp_path).proof("http-0", 1)
    forged = Proof(proof.record, proof.index, proof.path, relabelled(proof.note, wanted))
    with pytest.raises(ProofRefused):
        forged.verify([wanted])
    path = tmp_path / "checkpoints/000001.jsonl"
    notes = [json.loads(line)["note"] for line in path.read_bytes().splitlines()]
    lines = [msgspec.json.encode({"note": relabelled(note, wanted)}) + b"\n" for note in notes]
    path.write_bytes(b"".join(lines))

    assert not verify_log(tmp_path, Trust(keys=[wanted])).is_whole
    assert not verify_log(tmp_path, Trust(keys=[wanted, signer_of(keys).keys()[0]])).is_whole


def test_an_export_does_not_pass_for_one_of_another_log() -> None:
    keys = KeysInMemory()
    ours, other = signer_of(keys).keys()[0], NamedSigner(keys, origin=OTHER).keys()[0]
    told = Manifest(
        origin=ORIGIN, format="ndjson", query="{}", count=0, first=None, last=None, file="x",
        size=0, sha256="0" * 64, checkpoint=None, unread={}, time="2026-11-22T00:00:00Z", by="me",
    )  # fmt: skip
    note = signed_note(told.text, ours, lambda data: keys.sign(data, version=1))
    assert opened(note, [ours]) == told
    with pytest.raises(ManifestRefused):
        opened(relabelled(note, other), [other])


def test_what_a_writer_told_before_a_power_cut_is_no_word_about_what_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is not synced: it may be of long ago, and who wrote it may never come again."""
    log = Log(tmp_path)
    log.sealer.step()
    on_disk = head_path(tmp_path, "a").read_bytes()
    log.write("a")
    log.sealer.step()
    log.write("a")
    log.chains["a"].close()
    head_path(tmp_path, "a").write_bytes(on_disk)
    monkeypatch.setattr(durable, "_boot", lambda: b"another")
    sealer = log.restart()
    kept = sealer.step()

    assert not sealer.faults
    assert kept is not None
    assert kept.checkpoint.size == verify_directory(tmp_path).records


def test_a_head_that_was_replaced_does_not_keep_a_chain_from_being_sealed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    path = head_path(tmp_path, "a")
    (tmp_path / "draft").write_bytes(path.read_bytes())
    (tmp_path / "draft").replace(path)
    log.write("a")
    kept = log.sealer.step()
    assert kept is not None
    assert kept.checkpoint.heads["a"].seq == log.chains["a"].next_number
    log.close()


def test_nothing_is_written_to_a_chain_that_cannot_tell_how_far_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was not synced, and is cut off again, would be sealed."""

    def full(*_: object) -> int:
        raise OSError(28, "full")

    chain = DiskChain(tmp_path, writer="a", now=lambda: NOW)
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="full"):
        chain.open("start")
    monkeypatch.undo()
    assert verify_directory(tmp_path).is_intact  # a lock alone is no chain that was lost
    chain.open("start")
    told = read_head(tmp_path, "a")
    assert told is not None
    assert told.seq == 1
    chain.close()


def test_an_empty_directory_is_not_the_log_of_a_key(tmp_path: Path) -> None:
    assert not verify_log(tmp_path, Trust(keys=signer_of(KeysInMemory()).keys())).is_whole


def test_a_receipt_is_for_the_record_of_its_token(tmp_path: Path) -> None:
    keys = KeysInMemory()
    chain = DiskChain(tmp_path, writer="a", now=lambda: NOW)
    chain.open("start")
    told = record(1)
    told.event_id, told.jti = "e", "another-token"
    chain.append([told, record(2)])
    chain.close()
    sealer = Sealer(tmp_path, signer_of(keys), origin=ORIGIN, now=lambda: NOW)
    sealer.step()
    log_id = ORIGIN.rpartition("/")[2]

    def seen(jti: str) -> bool | None:
        receipt = Receipt("e", log_id, "a", 0, NOW - 1e6, jti)
        return (
            verify_log(tmp_path, Trust(keys=signer_of(keys).keys(), receipts=[receipt]))
            .seen[0]
            .is_there
        )

    assert [seen("another-token"), seen(""), seen("this-token")] == [True, True, False]


def test_a_time_that_is_none_ends_no_verification(tmp_path: Path) -> None:
    chain = DiskChain(tmp_path, writer="a", now=lambda: NOW)
    chain.open("start")
    told = record(1)
    told.time = "soon"
    chain.append([told])
    receipt = Receipt("gone", "0" * 16, "a", 0, 1.0)
    assert verify_log(tmp_path, Trust(receipts=[receipt])).seen[0].is_there is None


def test_what_a_power_cut_left_in_the_list_is_cut_off(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.sealer.step()
    log.sealer.close()
    with (tmp_path / "checkpoints/000001.jsonl").open("ab") as file:
        file.write(b"\0" * 600 + b'"}\n')
    log.write("a")
    log.restart().step()
    assert verify_log(tmp_path, Trust(keys=signer_of(log.keys).keys())).is_whole


def test_a_torn_line_does_not_fill_a_file(tmp_path: Path) -> None:
    log = Log(tmp_path)
    kept = log.sealer.step()
    assert kept is not None
    store = CheckpointStore(tmp_path, file_bytes=kept.end.offset + 10)
    with (tmp_path / "checkpoints/000001.jsonl").open("ab") as file:
        file.write(b'{"note":"' + b"x" * 100)
    log.sealer._store = store
    log.write("a")
    log.sealer.step()
    assert len(list(CheckpointStore(tmp_path).all())) == 2


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("a.000001.jsonl")]
)
def test_what_is_no_file_is_no_segment_and_nobody_waits_for_it(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    log = Log(tmp_path)
    make(tmp_path / "aa.000001.jsonl")
    make(tmp_path / "a.000002.jsonl")
    log.write("a", 30)
    kept = log.sealer.step()
    log.close()

    assert kept is not None
    assert set(kept.checkpoint.heads) == {"a", "b"}
    assert not log.sealer.faults
    evidence = verify_log(tmp_path, Trust(keys=signer_of(log.keys).keys()))
    assert (evidence.is_whole, len(evidence.report.chains)) == (True, 2)
    assert evidence.report.chains[0].segments > 1


@pytest.mark.parametrize("name", ["a.head", "checkpoints/000001.jsonl", "tree/state.json"])
def test_nobody_waits_for_a_pipe_in_the_place_of_another_file(tmp_path: Path, name: str) -> None:
    log = Log(tmp_path)
    log.sealer.step()
    log.close()
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)

    with suppress(AuditLogRefused, OSError):
        log.restart().step()
    with suppress(AuditLogRefused, OSError):
        verify_log(tmp_path, Trust(keys=signer_of(log.keys).keys()))


def test_a_chain_that_cannot_be_read_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: str, flags: int) -> int:
        if "/aa." in path:
            raise OSError(errno.EACCES, "refused", path)
        return regular(path, flags)

    log = Log(tmp_path)
    (tmp_path / "aa.000001.jsonl").touch()
    monkeypatch.setattr(follow, "regular", refusing)
    kept = log.sealer.step()
    assert kept is not None
    assert set(kept.checkpoint.heads) == {"a", "b"}
    assert set(log.sealer.faults) == {"aa"}


def test_a_crash_within_a_line_and_one_within_the_first_of_the_next_segment_are_no_fault(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, KeysInMemory())
    run.begin("a")
    run.write("a", 2)
    run.crash("a", b'{"half a li')
    (tmp_path / "a.000002.jsonl").write_bytes(b'{"decision')

    def told() -> tuple[object, ...]:
        (chain,) = verify_directory(tmp_path).chains
        evidence = verify_log(tmp_path, Trust())
        assert evidence.report.chains == (chain,)
        return chain.fault, chain.records, chain.segments, chain.unended_bytes, chain.torn_bytes

    assert told() == (None, 3, 1, 21, 0)
    run.begin("a")
    assert told() == (None, 4, 2, 0, 11)
    run.seal()
    run.end()
    assert told()[0] is None
    assert not run.sealer.faults


def test_more_chains_than_a_checkpoint_takes_keep_none_of_the_first_from_being_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "MOST_CHAINS", 3)
    log = Log(tmp_path)
    for writer in ("aa", "c", "d"):
        (tmp_path / f"{writer}.000001.jsonl").write_bytes(
            link([record(1)], Head(), writer=writer)[0]
        )
    with capture_logs() as told:
        kept = log.sealer.step()
        log.write("a")
        log.clock.now += 120
        later = log.sealer.step()
    (tmp_path / "a0.000001.jsonl").write_bytes(link([record(1)], Head(), writer="a0")[0])
    log.write("b")
    last = log.sealer.step()

    assert kept is not None
    assert later is not None
    assert last is not None
    assert {*kept.checkpoint.heads, *later.checkpoint.heads} == {"a", "aa", "b"}
    assert set(last.checkpoint.heads) == {"a", "aa", "b"}
    assert set(log.sealer.faults) == {"a0", "c", "d"}
    assert [(one["event"], one["log_level"]) for one in told] == [
        ("audit_too_many_chains", "critical")
    ]
    assert told[0]["not_sealed"] == 2
    log.close()


def test_a_checkpoint_has_room_for_as_many_chains_as_a_note_is_long() -> None:
    short = [f"http-{number}" for number in range(512)]
    long = [f"{number:064d}" for number in range(512)]

    assert [checkpoints.has_room(short[:count], "x") for count in (511, 512)] == [True, False]
    assert checkpoints.has_room(long[:300], "x")
    assert not checkpoints.has_room(long[:511], "x")


@pytest.mark.parametrize("ahead", [1, 2])
def test_no_more_is_walked_ahead_of_the_tree_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    keys = KeysInMemory()
    real_run(tmp_path, keys)
    trust = Trust(keys=signer_of(keys).keys())
    alone = verify_log(tmp_path, trust)
    monkeypatch.setattr(chains, "WORTH_SHARING", 0)
    monkeypatch.setattr(chains, "_AHEAD", ahead)
    submit, under_way = ProcessPoolExecutor.submit, []

    def counted(pool: ProcessPoolExecutor, *work: object, **options: object) -> object:
        under_way.append(len(walked._shared))
        return submit(pool, *work, **options)  # type: ignore[arg-type]

    with chains.Chains(tmp_path, wants_leaves=True, processes=2) as walked:
        monkeypatch.setattr(ProcessPoolExecutor, "submit", counted)
        for chain in walked.values():
            assert chain.report() in alone.report.chains
    assert under_way
    assert max(under_way) < ahead
    assert verify_log(tmp_path, trust, processes=2) == alone


def test_records_that_are_left_out_of_checkpoints_are_told(tmp_path: Path) -> None:
    """One who keeps the sealer from a chain has its records under no checkpoint, however new that is."""
    log = Log(tmp_path)
    log.sealer.step()
    on_disk = head_path(tmp_path, "a").read_bytes()
    log.write("a")
    log.close()
    head_path(tmp_path, "a").write_bytes(on_disk)
    log.clock.now += 7_200
    log.restart().step()
    evidence = verify_log(tmp_path, Trust(keys=signer_of(log.keys).keys()))
    assert [one for one in evidence.remarks if one.startswith("a: 4 records came after")]


def test_a_checkpoint_that_is_brought_along_twice_is_not_one_that_was_found(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.sealer.step()
    log.write("a")
    newest = log.sealer.step()
    assert newest is not None
    log.close()
    anchor = Anchor(tmp_path / "kept", newest.checkpoint)
    trust = Trust(keys=signer_of(log.keys).keys(), anchors=[anchor, anchor])
    found = verify_log(tmp_path, trust)
    path = tmp_path / "checkpoints/000001.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    rolled_back = verify_log(tmp_path, trust)

    assert [one.sealed.anchors for one in (found, rolled_back) if one.sealed is not None] == [1, 0]
    assert rolled_back.mode is Mode.SEALED
