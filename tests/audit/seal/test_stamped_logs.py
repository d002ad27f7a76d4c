"""A time-stamp shows to whoever trusts who made it that a checkpoint was there; who removes it is found."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from broker.audit.diagnosis import Wrong
from broker.audit.reader import Mode
from broker.audit.seal import time_stamps
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.sealed import Trust
from broker.audit.seal.stamps import StampsUnread, StampVerifier
from broker.audit.seal.time_stamps import Authority, TimeStamper
from broker.fetch.guarded import GuardedFetcher
from tests.audit.seal.authority import TimeStampAuthority
from tests.audit.seal.sealed_logs import STAGES, SealedLog, real_run
from tests.audit.seal.signers import KeysInMemory, signer_of

pytestmark = pytest.mark.requirement("LOG-05")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimeStampAuthority]:
    made = TimeStampAuthority(tmp_path_factory.mktemp("authority") / "tsa")
    yield made
    made.close()


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory, authority: TimeStampAuthority) -> SealedLog:
    """A log whose last checkpoint is stamped, which was written long ago."""
    directory = tmp_path_factory.mktemp("sealed") / "audit"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys, began=1_700_000_000)
    log = SealedLog(directory, signer_of(keys).keys()[0])
    told = Authority(authority.url, 3_600.0, authority.roots)
    fetcher = GuardedFetcher(allow_loopback=True)
    assert TimeStamper(directory, fetcher, told, now=lambda: 1.8e9).step(log.kept()[-1])
    return log


@pytest.fixture
def log(stamped: SealedLog, tmp_path: Path) -> SealedLog:
    return stamped.copy(tmp_path / "audit")


def verified(log: SealedLog, roots: Path) -> Evidence:
    return verify_log(log.directory, Trust(keys=[log.key], stamps=StampVerifier(roots)))


def test_a_time_stamp_is_verified_by_the_root_of_who_made_it(
    log: SealedLog, authority: TimeStampAuthority
) -> None:
    evidence = verified(log, authority.roots)

    assert (evidence.is_whole, evidence.mode) == (True, Mode.ANCHORED)
    assert evidence.sealed is not None
    assert (evidence.sealed.stamps, evidence.sealed.checkpoints) == (1, STAGES)
    assert datetime.fromisoformat(evidence.sealed.stamped_until).year > 2023


def test_without_anybody_who_is_trusted_it_is_said_that_there_is_one(log: SealedLog) -> None:
    evidence = log.verify()

    assert (evidence.is_whole, evidence.mode) == (True, Mode.SEALED)
    assert any("time-stamps that were not looked at" in one for one in evidence.remarks)


def test_that_no_time_stamp_is_there_is_said_to_whoever_trusts_somebody_to_make_them(
    log: SealedLog, authority: TimeStampAuthority
) -> None:
    assert "no time-stamp was found" not in verified(log, authority.roots).remarks
    (log.checkpoints.parent / "time-stamps.jsonl").unlink()

    evidence = verified(log, authority.roots)

    assert (evidence.is_whole, evidence.mode) == (True, Mode.SEALED)
    assert "no time-stamp was found" in evidence.remarks


def test_a_list_that_was_rolled_back_behind_a_time_stamp_is_found(
    log: SealedLog, authority: TimeStampAuthority
) -> None:
    log.edit("checkpoints/000001.jsonl", lambda lines: lines.pop())

    (fault,) = verified(log, authority.roots).faults

    assert (fault.place.file.name, fault.wrong) == ("time-stamps.jsonl", Wrong.ROLLED_BACK)


def test_a_time_stamp_by_somebody_else_is_none(log: SealedLog, tmp_path: Path) -> None:
    other = TimeStampAuthority(tmp_path / "other")
    other.close()

    (fault,) = verified(log, other.roots).faults

    assert (fault.place.line, fault.wrong) == (1, Wrong.FOREIGN)


def test_a_time_stamp_of_another_checkpoint_is_none(
    log: SealedLog, authority: TimeStampAuthority
) -> None:
    digests = [kept.checkpoint.digest.encode() for kept in log.kept()]

    def move(lines: list[bytes]) -> None:
        lines[0] = lines[0].replace(digests[-1], digests[0])

    log.edit("checkpoints/time-stamps.jsonl", move)

    assert [one.wrong for one in verified(log, authority.roots).faults] == [Wrong.FOREIGN]


def test_a_line_that_is_no_time_stamp_is_found(
    log: SealedLog, authority: TimeStampAuthority
) -> None:
    log.edit("checkpoints/time-stamps.jsonl", lambda lines: lines.insert(0, b"{}\n"))

    assert [one.wrong for one in verified(log, authority.roots).faults] == [Wrong.CHANGED]


def test_a_checkpoint_that_was_dated_ahead_is_found(
    tmp_path: Path, authority: TimeStampAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells a time that had not come when it was stamped."""
    directory = tmp_path / "ahead"
    directory.mkdir(mode=0o700)
    keys = KeysInMemory()
    real_run(directory, keys, began=4_000_000_000)
    log = SealedLog(directory, signer_of(keys).keys()[0])
    told = Authority(authority.url, 3_600.0, authority.roots)
    fetcher = GuardedFetcher(allow_loopback=True)
    # A broker that looks at the clock does not keep such a one.
    monkeypatch.setattr(time_stamps, "LENIENCE_SECONDS", 4e9)
    assert TimeStamper(directory, fetcher, told, now=lambda: 1.8e9).step(log.kept()[-1])

    assert [one.wrong for one in verified(log, authority.roots).faults] == [Wrong.REWRITTEN]


@pytest.mark.parametrize("roots", ["", "no certificate"])
def test_roots_that_are_none_verify_nothing(tmp_path: Path, roots: str) -> None:
    file = tmp_path / "roots.pem"
    file.write_text(roots)

    with pytest.raises(StampsUnread):
        StampVerifier(file)
    with pytest.raises(StampsUnread):
        StampVerifier(tmp_path / "nowhere")
