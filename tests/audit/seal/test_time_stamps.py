"""A time-stamping authority of OpenSSL's witnesses checkpoints; what does not verify is not kept."""

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.audit.seal.store import Kept
from broker.audit.seal.time_stamps import Authority, TimeStamper, TimeStampRefused, stamped_time
from broker.fetch.guarded import GuardedFetcher
from tests.audit.seal.authority import TimeStampAuthority
from tests.audit.seal.logs import Log


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimeStampAuthority]:
    made = TimeStampAuthority(tmp_path_factory.mktemp("authority") / "tsa")
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "audit")
    # The authority looks at the real clock.
    made.clock.now = time.time()
    yield made
    made.close()


def stamper_of(
    log: Log, authority: TimeStampAuthority, *, url: str = "", roots: Path | None = None
) -> TimeStamper:
    authority.answer = None
    told = Authority(url or authority.url, 3_600.0, roots or authority.roots)
    return TimeStamper(
        log.directory, GuardedFetcher(allow_loopback=True), told, now=lambda: log.clock.now
    )


def sealed(log: Log) -> Kept:
    log.write("a", 1)
    kept = log.sealer.step()
    assert kept is not None
    return kept


def stamps(log: Log) -> list[dict[str, str]]:
    path = log.directory / "checkpoints" / "time-stamps.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_checkpoint_is_stamped_and_what_is_kept_verifies_by_the_root_alone(
    log: Log, authority: TimeStampAuthority
) -> None:
    stamper = stamper_of(log, authority)
    kept = sealed(log)
    found = stamper.step(kept)
    assert found is not None
    assert found.digest == kept.checkpoint.digest
    (line,) = stamps(log)
    assert line["digest"] == kept.checkpoint.digest
    token = base64.b64decode(line["token"])
    at = stamped_time(token, kept.checkpoint.text.encode(), roots=authority.roots)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(TimeStampRefused):
        stamped_time(token, b"another text", roots=authority.roots)


def test_checkpoints_are_stamped_as_often_as_is_set_and_none_twice(
    log: Log, authority: TimeStampAuthority
) -> None:
    stamper = stamper_of(log, authority)
    first = sealed(log)
    assert stamper.step(first) is not None
    second = sealed(log)
    assert stamper.step(second) is None
    log.clock.now += 3_601
    assert stamper.step(first) is None
    assert stamper.step(second) is not None
    assert len(stamps(log)) == 2
    asked = authority.asked
    restarted = stamper_of(log, authority)
    log.clock.now = (log.directory / "checkpoints" / "time-stamps.jsonl").stat().st_mtime
    assert restarted.step(sealed(log)) is None
    assert authority.asked == asked


@pytest.mark.parametrize(
    "what", ["nothing", "rubbish", "another's", "not trusted", "too long", "away"]
)
def test_what_does_not_verify_is_told_and_not_kept_and_tried_again(
    log: Log, authority: TimeStampAuthority, tmp_path: Path, what: str
) -> None:
    stamper = stamper_of(log, authority)
    kept = sealed(log)
    if what == "another's":
        stamper.step(kept)
        (line,) = stamps(log)
        (log.directory / "checkpoints" / "time-stamps.jsonl").unlink()
        stamper = stamper_of(log, authority)
        authority.answer = base64.b64decode(line["token"])
    elif what == "not trusted":
        other = TimeStampAuthority(tmp_path / "other")
        other.close()
        stamper = stamper_of(log, authority, roots=other.roots)
    elif what == "away":
        stamper = stamper_of(log, authority, url="http://127.0.0.1:9/stamp")
    else:
        authority.answer = {"nothing": b"", "rubbish": b"\x30\x03\x02\x01\x00"}.get(
            what, b"x" * 70_000
        )
    with capture_logs() as told:
        for _ in range(2):
            assert stamper.step(kept) is None
            log.clock.now += 61
    assert [one["event"] for one in told] == ["audit_time_stamp_failed"]
    assert stamps(log) == []
    assert stamper.last is None
    if what in ("nothing", "rubbish", "too long"):
        authority.answer = None
        assert stamper.step(kept) is not None


def test_a_checkpoint_that_is_dated_ahead_of_the_authority_is_not_stamped(
    log: Log, authority: TimeStampAuthority
) -> None:
    """Whoever verifies it would find that the record was written anew."""
    stamper = stamper_of(log, authority)
    log.clock.now += 600
    with capture_logs() as told:
        assert stamper.step(sealed(log)) is None

    assert [one["event"] for one in told] == ["audit_time_stamp_failed"]
    assert "one of the two clocks is wrong" in told[0]["reason"]
    assert stamps(log) == []
    # What is sealed next is not dated before what was sealed last.
    log.clock.now -= 500
    stamper = stamper_of(log, authority)
    assert stamper.step(sealed(log)) is None


def test_a_clock_that_is_a_little_ahead_of_the_authority_is_let_pass(
    log: Log, authority: TimeStampAuthority
) -> None:
    stamper = stamper_of(log, authority)
    log.clock.now += 240
    assert stamper.step(sealed(log)) is not None
