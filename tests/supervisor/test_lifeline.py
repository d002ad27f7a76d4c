"""The ties between worker and supervisor, without a supervisor: orders, reports and their limits."""

from collections.abc import Iterator

import pytest

from broker.lifeline import REPORT_LIMIT, Anchor, CheckStatus, WorkerStatus
from broker.orders import Order

WELL = WorkerStatus(
    worker="grpc",
    pid=7,
    at=12.5,
    generation=3,
    checks=(CheckStatus("audit", "", 1.0), CheckStatus("keys", "signer_unavailable", 12.0)),
)


@pytest.fixture
def anchor() -> Iterator[Anchor]:
    anchor = Anchor()
    yield anchor
    anchor.close()


def test_a_report_arrives_as_it_was_sent(anchor: Anchor) -> None:
    lifeline = anchor.lifeline("grpc")

    assert lifeline.report(WELL)

    assert WorkerStatus.decode(lifeline.inbox.recv(REPORT_LIMIT)) == WELL


@pytest.mark.requirement("R-37")
def test_a_report_that_nobody_takes_is_dropped_without_waiting(anchor: Anchor) -> None:
    """The control process may be busy or being restarted; workers do not care."""
    lifeline = anchor.lifeline("grpc")

    sent = [lifeline.report(WELL) for _ in range(10_000)]

    assert not all(sent)
    lifeline.inbox.recv(REPORT_LIMIT)
    assert lifeline.report(WELL)


def test_a_report_that_is_too_large_is_not_sent(anchor: Anchor) -> None:
    large = WorkerStatus(
        "grpc", 7, 1.0, 0, tuple(CheckStatus("x" * 32, "y" * 63, 1.0) for _ in range(64))
    )

    assert not anchor.lifeline("grpc").report(large)


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"{}",
        b"[" * 4000,
        WELL.encode() + b"x",
        WELL.encode().replace(b"grpc", b"GRPC\\n"),
        WELL.encode().replace(b"grpc", b"g" * 40),
        WELL.encode().replace(b"signer_unavailable", b"eyJhbGciOiJFUzI1NiJ9.x.y"),
        WELL.encode().replace(b'"pid":7', b'"pid":"7"'),
        WELL.encode().replace(b"12.5", b"1e999"),
        WorkerStatus("grpc", 7, 1.0, 0, (CheckStatus("keys", "", 1.0),) * 17).encode(),
        WELL.encode() + b" " * REPORT_LIMIT,
        b"\xff\xfe",
    ],
    ids=range(12),
)
def test_anything_that_is_not_exactly_a_report_is_refused(report: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        WorkerStatus.decode(report)


def test_orders_reach_every_lifeline_at_once(anchor: Anchor) -> None:
    grpc, http = anchor.lifeline("grpc"), anchor.lifeline("http")
    assert (grpc.generation, grpc.draining) == (0, False)

    for _ in range(100):
        anchor.order_reload(Order())
    anchor.drain()

    assert grpc.generation == http.generation == anchor.generation == 100
    assert grpc.draining
    assert http.draining


def test_waiting_ends_when_the_supervisor_is_gone(anchor: Anchor) -> None:
    lifeline = anchor.lifeline("grpc")
    assert not lifeline.wait(0)
    assert not lifeline.is_orphaned

    anchor.let_go()

    assert lifeline.wait()
    assert lifeline.is_orphaned
