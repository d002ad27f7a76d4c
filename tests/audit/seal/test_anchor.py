"""The anchor moves on with the record, and never over anything that is not of it."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.audit.disk import DiskChain
from broker.audit.notes import signed_note
from broker.audit.seal.anchor import Anchor, AnchorConflict, anchored_note
from broker.audit.seal.store import CheckpointStore, Kept
from broker.errors import TemporarilyUnavailable
from tests.audit.chains import record
from tests.audit.seal.logs import Log
from tests.audit.seal.signers import DocumentInMemory, KeysInMemory, signer_of


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "audit")
    yield made
    made.close()


@pytest.fixture
def document() -> DocumentInMemory:
    return DocumentInMemory()


def sealed(log: Log) -> Kept:
    log.write("a", 1)
    kept = log.sealer.step()
    assert kept is not None
    return kept


def anchor_of(log: Log, document: DocumentInMemory) -> Anchor:
    return Anchor(document, CheckpointStore(log.directory), signer_of(log.keys))


def refused(anchor: Anchor, last: Kept) -> str:
    """The conflict, which is told at once, once, and overwrites nothing."""
    document = anchor._document
    before = document.read()
    with capture_logs() as told:
        for _ in range(2):
            with pytest.raises(AnchorConflict) as raised:
                anchor.step(last)
    assert [(one["event"], one["log_level"]) for one in told] == [
        ("audit_anchor_conflict", "critical")
    ]
    assert document.read() == before
    return str(raised.value)


def test_the_newest_checkpoint_is_anchored_by_whichever_process(
    log: Log, document: DocumentInMemory
) -> None:
    anchor = anchor_of(log, document)
    for _ in range(3):
        kept = sealed(log)
        anchor.step(kept)
        assert anchored_note(document) == kept.note
        assert anchor.anchored == kept.checkpoint
    anchor.step(kept)
    assert document.version == 3
    sealed(log)
    later = sealed(log)
    anchor_of(log, document).step(later)
    assert anchored_note(document) == later.note


def test_an_anchor_that_is_away_lags_and_catches_up(log: Log, document: DocumentInMemory) -> None:
    anchor = anchor_of(log, document)
    anchor.step(sealed(log))
    document.is_away = True
    with pytest.raises(TemporarilyUnavailable):
        anchor.step(sealed(log))
    document.is_away = False
    last = sealed(log)
    anchor.step(last)
    assert anchored_note(document) == last.note


@pytest.mark.requirement("LOG-05")
def test_a_record_that_was_rolled_back_conflicts_with_its_anchor(
    log: Log, document: DocumentInMemory, tmp_path: Path
) -> None:
    earlier = sealed(log)
    shutil.copytree(log.directory, tmp_path / "copy")
    anchor_of(log, document).step(sealed(log))
    copy = Anchor(document, CheckpointStore(tmp_path / "copy"), signer_of(log.keys))
    assert "tells of" in refused(copy, earlier)


def test_a_record_that_was_rewritten_conflicts_even_when_it_is_larger(
    log: Log, document: DocumentInMemory, tmp_path: Path
) -> None:
    sealed(log)
    shutil.copytree(log.directory, tmp_path / "copy")
    anchor_of(log, document).step(sealed(log))
    chain = DiskChain(tmp_path / "copy", writer="a", now=log.clock)
    chain.open("start")
    for number in range(9):
        chain.append([record(number)])
    chain.close()
    other = log.new_sealer(directory=tmp_path / "copy")
    last = other.step()
    other.close()
    assert last is not None
    copy = Anchor(document, CheckpointStore(tmp_path / "copy"), signer_of(log.keys))
    assert "none of this record's" in refused(copy, last)


@pytest.mark.parametrize("what", ["foreign key", "no note", "more members", "no checkpoint"])
def test_what_is_no_checkpoint_of_ours_is_left_where_it_is(
    log: Log, document: DocumentInMemory, what: str
) -> None:
    last = sealed(log)
    key = signer_of(log.keys).keys()[0]
    stranger = signer_of(KeysInMemory())
    strange = stranger.keys()[0]
    every: Mapping[str, Mapping[str, object]] = {
        "foreign key": {
            "note": signed_note(
                last.checkpoint.text, strange, lambda text: stranger.sign(text, key=strange)
            )
        },
        "no note": {"note": 7},
        "more members": {"note": last.note, "x": "y"},
        "no checkpoint": {"note": signed_note("hello\n", key, log.keys.keys[0].sign)},
    }
    document.write(every[what], over=0)
    refused(anchor_of(log, document), last)


def test_a_conflict_that_somebody_resolved_is_over(log: Log, document: DocumentInMemory) -> None:
    last = sealed(log)
    anchor = anchor_of(log, document)
    document.write({"note": "x"}, over=0)
    refused(anchor, last)
    document.members = {"note": last.note}
    anchor.step(last)
    assert anchor.anchored == last.checkpoint


def test_a_writer_who_comes_in_between_is_a_conflict(log: Log) -> None:
    class Raced(DocumentInMemory):
        """Somebody else writes just after each read."""

        def read(self) -> tuple[dict[str, object], int]:
            found = dict(self.members), self.version
            self.version += 1
            return found

    with pytest.raises(AnchorConflict, match="at this moment"):
        anchor_of(log, Raced()).step(sealed(log))
