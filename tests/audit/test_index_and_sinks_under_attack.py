"""What was found by attacking the index, the second sinks and the alerts."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.audit.alerts.alerts import Alerts
from broker.audit.alerts.terms import AlertTerms, RuleTerms
from broker.audit.follow import Line
from broker.audit.index import catching
from broker.audit.index.entries import IndexEntry
from broker.audit.index.filling import Filler
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.index.tail import Tail
from broker.audit.log import FileAuditLog
from broker.audit.query import Query, QueryRefused
from broker.audit.record import Record
from broker.audit.sinks.collector import Collector
from broker.audit.sinks.destination import Sink
from broker.audit.sinks.shipper import Route, Shipped
from broker.audit.telling.export import stream
from broker.audit.telling.formats import FORMATS
from broker.model import RequestContext
from tests.audit.index.lives import NOW, Life, ids, issue, presented
from tests.audit.sinks.collecting import CollectorServer, Handler, Memory, accept, closing
from tests.audit.unreadable import refuse_segments

DAY = 86_400


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path / "audit")
    life.directory.mkdir(mode=0o700)
    yield life
    life.close()


class _Stopped(Exception):
    """The index is half made."""


def half_rebuilt(life: Life, monkeypatch: pytest.MonkeyPatch) -> SqliteAuditReader:
    """Another reader of the same directory, that began to make the index anew."""
    monkeypatch.setattr(catching, "_BATCH", 100)
    other = SqliteAuditReader(life.directory)
    other.throw_away()

    def stop(_known: int, _total: int) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        other.catch_up(progress=stop)
    return other


def test_a_tail_tells_nothing_again_after_the_index_was_made_anew(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = Tail(life.tell(*map(issue, range(2000))), Query())
    other = half_rebuilt(life, monkeypatch)
    assert not tail.more()

    other.catch_up()
    assert not tail.more()

    life.tell(issue(3000))
    assert ids(tail.more()) == ["event-3000"]


def test_an_export_does_not_end_early_where_the_index_is_made_anew(life: Life) -> None:
    pieces = stream(life.tell(*map(issue, range(1500))), Query(), FORMATS["ndjson"])
    next(pieces)
    SqliteAuditReader(life.directory).throw_away()

    with pytest.raises(QueryRefused):
        list(pieces)


def test_an_index_that_is_not_whole_says_so(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = life.tell(*map(issue, range(2000)))
    assert not reader.extent().faults

    other = half_rebuilt(life, monkeypatch)
    assert "index" in reader.extent().faults

    other.catch_up()
    assert not reader.extent().faults


def test_refused_uses_of_a_token_hide_nothing_that_was_derived_from_it(life: Life) -> None:
    uses = [presented("token-1")]
    refused = [issue(100 + n, decision="deny", jti=None, inputs=uses) for n in range(150)]
    derived = [issue(2 + n, at=NOW + 1000 + n, inputs=uses) for n in range(5)]

    lineage = life.tell(issue(1), *refused, *derived).lineage("token-1")

    assert lineage.root is not None
    assert len(lineage.root.branches) == 5
    assert not lineage.is_cut


def test_large_records_are_entered_in_small_parts(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching, "_BATCH_BYTES", 1_000_000)
    life.write(*[issue(number, detail="x" * 200_000) for number in range(20)])
    sizes: list[int] = []
    real = Filler.enter

    def enter(self: Filler, lines: Sequence[tuple[Line, IndexEntry | None]]) -> None:
        sizes.append(len(lines))
        real(self, lines)

    monkeypatch.setattr(Filler, "enter", enter)
    life.reader.catch_up()

    assert len(sizes) >= 4
    assert max(sizes) <= 6


def test_a_segment_that_cannot_be_read_costs_no_index(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.tell(*map(issue, range(10)))
    with monkeypatch.context() as patch:
        refuse_segments(patch, "w1")
        faults = life.reader.catch_up().faults

    assert faults == {"w1": "the chain cannot be read: Permission denied"}
    assert life.reader.extent().faults == faults
    assert life.reader.extent().records == 11
    assert not life.tell(issue(10)).extent().faults
    assert life.reader.extent().records == 12


def test_one_unreadable_chain_keeps_no_other_out_of_the_index(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.write(issue(1), writer="a")
    life.write(issue(2), writer="b")
    with monkeypatch.context() as patch:
        refuse_segments(patch, "a")
        assert set(life.reader.catch_up().faults) == {"a"}
        assert ids(life.reader.find(Query(events=("token.issue",))).found) == ["event-2"]

    assert not life.reader.catch_up().faults
    assert len(life.reader.find(Query(events=("token.issue",))).found) == 2


def test_an_index_that_is_far_behind_keeps_nobody_from_ending(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching, "_BATCH", 100)
    life.write(*map(issue, range(2000)))
    life.reader.ask_to_end()

    assert life.reader.catch_up().records == 100
    assert "index" in life.reader.extent().faults
    assert SqliteAuditReader(life.directory).catch_up().records == 1901


def test_a_tail_that_began_at_a_line_of_another_version_tells_nothing_again(life: Life) -> None:
    life.write(*map(issue, range(20)))
    tail = Tail(life.tell(issue(20, event="later.than.this")), Query())
    SqliteAuditReader(life.directory).throw_away()
    life.reader.catch_up()

    assert not tail.more()


def denial(at: float, **facts: Any) -> Record:
    return issue(int(at), at=at, **{"decision": "deny", "reason": "policy_denied", **facts})


def test_a_record_from_the_future_silences_no_alert() -> None:
    counts: Counter[str] = Counter()
    alerts = Alerts(AlertTerms(), count=lambda rule: counts.update([rule]), now=lambda: NOW + 60.0)
    alerts.see(denial(NOW + 3600, client_id="x"))
    for number in range(1000):
        alerts.see(denial(NOW + number * 0.01, client_id="evil"))

    assert counts["denials"] == 1


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        ("denials", {"client_id": "evil"}),
        ("client_denials", {"client_id": "evil"}),
        ("replays", {"client_id": "evil", "reason": "replay"}),
    ],
)
def test_a_clock_that_was_ahead_and_is_set_back_silences_no_alert(
    rule: str, facts: dict[str, str]
) -> None:
    counts: Counter[str] = Counter()
    clock = NOW + 3600.0
    terms = {rule: RuleTerms(threshold=5)}
    alerts = Alerts(
        AlertTerms(rules=terms),
        count=lambda rule: counts.update([rule]),
        clock=lambda: 0.0,
        now=lambda: clock,
    )
    alerts.see(denial(NOW + 3600, **facts))
    clock = float(NOW)
    for _ in range(6):
        alerts.see(denial(NOW, **facts))

    assert counts[rule] == 1


def test_a_clock_that_is_trimmed_a_little_forgets_no_count() -> None:
    counts: Counter[str] = Counter()
    moments = iter([NOW + 1.0, NOW + 0.5] * 3)
    alerts = Alerts(
        AlertTerms(rules={"denials": RuleTerms(threshold=5)}),
        count=lambda rule: counts.update([rule]),
        clock=lambda: 0.0,
        now=lambda: next(moments),
    )
    for _ in range(6):
        alerts.see(denial(NOW, client_id="evil"))

    assert counts["denials"] == 1


def test_learning_ends_although_the_first_record_was_from_the_future() -> None:
    counts: Counter[str] = Counter()
    alerts = Alerts(
        AlertTerms(), count=lambda rule: counts.update([rule]), now=lambda: NOW + 3.0 * DAY
    )
    alerts.see(issue(1, at=NOW + 5 * 365 * DAY, client_id="a", resource="r"))
    alerts.see(issue(2, at=NOW, client_id="b", resource="r"))
    alerts.see(issue(3, at=NOW + 2 * DAY, client_id="c", resource="r"))

    assert counts["first_use"] == 1


def test_whoever_proves_nothing_silences_no_alert_of_a_client() -> None:
    alerts = Alerts(AlertTerms(rules={"denials": RuleTerms(is_on=False)}), now=lambda: NOW + 9.0)
    with structlog.testing.capture_logs() as told:
        for name in ("agent", *(f"bogus-{number}" for number in range(30))):
            for _ in range(31):
                alerts.see(denial(NOW + 1, unverified_client_id=name))
        for _ in range(31):
            alerts.see(denial(NOW + 2, client_id="agent"))

    assert any(one.get("client_id") == "agent" for one in told)


def test_whoever_proves_nothing_uses_up_no_replay_of_a_client() -> None:
    alerts = Alerts(AlertTerms(), now=lambda: NOW + 9.0)
    with structlog.testing.capture_logs() as told:
        alerts.see(denial(NOW, unverified_client_id="agent", reason="replay"))
        alerts.see(denial(NOW, client_id="agent", reason="replay"))

    replays = [one for one in told if one["rule"] == "replays"]
    assert [one.get("client_id") for one in replays] == [None, "agent"]


def test_one_unreadable_chain_keeps_no_other_from_being_shipped(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.write(issue(1), writer="a")
    life.write(issue(2), writer="b")
    refuse_segments(monkeypatch, "a")
    memory = Memory()
    route = Route(life.directory, Shipped(memory.sink()), timeout=5, patience=None)

    with pytest.raises(PermissionError):
        route.ship()

    assert len(memory.lines) == 2


def test_a_record_that_a_required_collector_will_not_have_closes_no_log(tmp_path: Path) -> None:
    def picky(handler: Handler) -> None:
        if b"poison" in handler.collector.body:
            handler.answer(400)
        else:
            accept(handler)

    server = CollectorServer()
    with closing(server):
        server.scripts += [picky] * 8
        sink = Sink("siem", Collector(server.url))
        log = FileAuditLog(
            tmp_path / "audit", writer="w1", now=time.time, required=[sink], write_timeout=30.0
        )
        try:
            with log.entry("token.issue", RequestContext("http", "r1")) as entry:
                entry.note(scopes_asked=("poison",))
            with log.entry("token.issue", RequestContext("http", "r2")):
                pass
        finally:
            log.close()

    assert b'"cut_bytes"' in server.lines[1]
    assert b'"r2"' in server.lines[2]
