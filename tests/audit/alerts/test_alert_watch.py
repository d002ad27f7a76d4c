"""The record is followed for alerts, across restarts and damage."""

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.rule import Status
from broker.audit.alerts.terms import AlertTerms
from broker.audit.alerts.watch import AlertWatch
from broker.audit.disk import DiskChain
from broker.audit.record import Record
from broker.errors import TemporarilyUnavailable
from tests.audit.alerts.telling import DAY, NOW, denied, issued
from tests.audit.unreadable import refuse_segments
from tests.e2e.patience import until

Told = list[MutableMapping[str, Any]]


@contextmanager
def watching(directory: Path, **facts: Any) -> Iterator[Told]:
    """A watch that looks often, and what it tells."""
    with structlog.testing.capture_logs() as told:
        watch = AlertWatch(
            directory,
            Alerts(AlertTerms()),
            status=lambda: Status(NOW, **facts),
            interval=0.02,
        )
        watch.begin()
        watch.check()
        try:
            yield told
        finally:
            watch.close(within=60)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[DiskChain]:
    chain = DiskChain(tmp_path / "audit", writer="w1", now=lambda: NOW)
    chain.open("start")
    yield chain
    chain.close()


def seen(told: Told, rule: str) -> list[Any]:
    return [one.get("client_id") or one.get("chain") for one in told if one.get("rule") == rule]


def old(*clients: str) -> list[Record]:
    return [issued(NOW - 3 * DAY, client_id=client) for client in clients]


def test_what_comes_is_told_and_what_was_there_is_learnt(tmp_path: Path, chain: DiskChain) -> None:
    chain.append([*old("a", "b"), denied(NOW - DAY, reason="replay", client_id="past")])
    with watching(tmp_path / "audit", backlogs={"http": 10**6}) as told:
        until(lambda: told, seconds=30, what="what was there is read")
        chain.append([issued(client_id="a"), issued(client_id="new"), denied(reason="replay")])
        until(lambda: "new" in seen(told, "first_use"), seconds=30, what="the new one is told")
        until(lambda: seen(told, "replays"), seconds=30, what="the replay is told")

    assert "a" not in seen(told, "first_use")
    assert "past" not in seen(told, "replays")


def test_after_a_restart_it_goes_on_and_knows_what_it_knew(
    tmp_path: Path, chain: DiskChain
) -> None:
    chain.append(old("a", "b"))
    with watching(tmp_path / "audit"):
        pass
    chain.append([issued(client_id="b"), issued(client_id="while it was away")])

    with watching(tmp_path / "audit") as told:
        until(lambda: seen(told, "first_use"), seconds=30, what="the new one is told")
    assert seen(told, "first_use") == ["while it was away"]

    with watching(tmp_path / "audit") as told:
        pass
    assert seen(told, "first_use") == []
    assert (tmp_path / "audit" / "alerts.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b'{"places":{},"rules":{"depth":[1]}}']
)
def test_a_memory_that_is_damaged_is_learnt_anew(
    tmp_path: Path, chain: DiskChain, content: bytes
) -> None:
    chain.append(old("a"))
    (tmp_path / "audit" / "alerts.json").write_bytes(content)

    with watching(tmp_path / "audit") as told:
        pass

    assert [one["event"] for one in told] == ["audit_alerts_memory_lost"]
    assert b'"w1"' in (tmp_path / "audit" / "alerts.json").read_bytes()


@pytest.mark.requirement("LOG-05")
def test_a_changed_record_is_told_and_what_comes_after_is_still_looked_at(
    tmp_path: Path, chain: DiskChain
) -> None:
    chain.append(old("a", "b", "c"))
    segment = tmp_path / "audit" / "w1.000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"client_id":"b"', b'"client_id":"x"'))

    with watching(tmp_path / "audit") as told:
        until(lambda: seen(told, "damage"), seconds=30, what="the damage is told")
        chain._leave_segment()
        chain.open("recovery")
        chain.append([denied(reason="replay")])
        until(lambda: seen(told, "replays"), seconds=30, what="what comes after is looked at")

    assert seen(told, "damage") == ["w1"]


def test_one_unreadable_chain_is_told_and_the_others_are_looked_at(
    tmp_path: Path, chain: DiskChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = DiskChain(tmp_path / "audit", writer="w2", now=lambda: NOW)
    other.open("start")
    other.append(old("a"))
    chain.append(old("a"))
    with monkeypatch.context() as patch:
        refuse_segments(patch, "w1")
        with watching(tmp_path / "audit") as told:
            until(lambda: seen(told, "damage"), seconds=30, what="the chain is told")
            other.append([denied(reason="replay", client_id="other")])
            until(lambda: seen(told, "replays"), seconds=30, what="the other one is looked at")
    other.close()

    assert [one["wrong"] for one in told if one.get("rule") == "damage"] == [
        "it cannot be read: Permission denied"
    ]
    assert seen(told, "damage") == ["w1"]


def test_what_was_unreadable_at_first_is_learnt_once_it_can_be_read(
    tmp_path: Path, chain: DiskChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.append([denied(NOW - DAY, reason="replay", client_id="past")])
    refused = refuse_segments(monkeypatch, "w1", times=2)
    with watching(tmp_path / "audit") as told:
        until(lambda: refused() == 2, seconds=30, what="it is refused")

    assert seen(told, "damage") == ["w1"]
    assert seen(told, "replays") == []


def test_what_others_know_is_told_too(tmp_path: Path, chain: DiskChain) -> None:
    chain.append(old("a"))
    with watching(
        tmp_path / "audit", damaged={"anchor": "rolled back"}, backlogs={"http": 10**6}
    ) as told:
        until(lambda: len(told) == 2, seconds=30, what="both are told")

    assert {one["rule"] for one in told} == {"damage", "backlog"}


def test_a_watch_that_has_ended_says_so(tmp_path: Path) -> None:
    watch = AlertWatch(tmp_path, Alerts(AlertTerms()))

    with pytest.raises(TemporarilyUnavailable):
        watch.check()

    watch.close()


def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with watching(tmp_path / "none") as told:
        pass

    assert told == []


def test_a_fault_of_ours_does_not_end_the_looking(tmp_path: Path, chain: DiskChain) -> None:
    chain.append(old("a"))
    attempts = []

    def status() -> Status:
        attempts.append(1)
        if len(attempts) < 3:
            raise ZeroDivisionError
        return Status(NOW)

    with structlog.testing.capture_logs() as told:
        watch = AlertWatch(tmp_path / "audit", Alerts(AlertTerms()), status=status, interval=0.01)
        watch.begin()
        until(lambda: len(attempts) > 3, seconds=30, what="it goes on")
        watch.close(within=60)

    assert [one["event"] for one in told] == ["audit_alerts_failed"] * 2


@pytest.mark.parametrize("name", ["alerts.json", "alerts.new"])
def test_a_pipe_in_the_place_of_the_memory_is_waited_for_by_nobody(
    tmp_path: Path, chain: DiskChain, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("broker.audit.alerts.watch._KEEP_INTERVAL", 0)
    os.mkfifo(tmp_path / "audit" / name)
    with watching(tmp_path / "audit", damaged={"seal of w1": "changed"}) as told:
        until(lambda: seen(told, "damage"), seconds=30, what="what is damaged is told")
        chain.append([denied(reason="replay")])
        until(lambda: seen(told, "replays"), seconds=30, what="the replay is told")


def test_a_memory_in_no_encoding_keeps_nobody_from_looking(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "alerts.json").write_bytes(b'{"places":{},"rules":{"\xff":[]}}')
    with watching(tmp_path / "audit", damaged={"seal of w1": "changed"}) as told:
        until(lambda: seen(told, "damage"), seconds=30, what="what is damaged is told")
