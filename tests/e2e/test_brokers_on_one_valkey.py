"""Two brokers, as on two machines, with one issuer, one key and one Valkey."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any, Final

import pytest

from tests.e2e.asserting import DESK_AT_WIKI, redeem
from tests.e2e.patience import holds, until
from tests.e2e.running import RunningBroker, run_broker
from tests.e2e.setting import (
    TICKETS,
    assertion,
    by_assertion,
    exchange,
    login,
    new_setting,
)
from tests.e2e.twins import FRUGAL, Pair, running_pair, valkey_state
from tests.e2e.wires import UNABLE, decision_id, settled, wire
from tests.fault_proxy import Fault
from tests.harness import Answer
from tests.valkey import running
from tests.world import Parameters

FACES: Final = ("http", "grpc")
ACROSS: Final = [(first, second) for first in FACES for second in FACES]
AT_ONCE: Final = 64
PARTIES: Final = 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("pair")) as one:
        yield one


def is_unready(broker: RunningBroker) -> bool:
    return not broker.is_ready()


def says(broker: RunningBroker, why: str) -> bool:
    return why in broker.findings()


def reason_of(broker: RunningBroker, answer: Answer) -> str:
    """Why it was refused, as the record says that the answer names."""
    name = decision_id(answer)
    (record,) = [one for one in broker.records() if one["event_id"] == name]
    return str(record["reason"])


@pytest.mark.requirement("DOS-02")
def test_a_client_has_one_quota_at_both_brokers(pair: Pair) -> None:
    def ask(broker: RunningBroker, face: str, client: str) -> Answer:
        with wire(face, broker.setting) as connected:
            proof = by_assertion(assertion(pair.setting, client))
            return connected.exchange(exchange(pair.setting) | proof)

    for client in FRUGAL:
        before = turns_apart(pair)
        answers = [
            ask(broker, face, client) for _ in range(4) for broker in pair.both for face in FACES
        ]
        # While the store does not answer at once, each process keeps quotas by itself.
        was_together = before == turns_apart(pair) and before[0] == before[1]
        if was_together and not {one.status for one in answers} & {"503", "UNAVAILABLE"}:
            break

    # Whose token it is, it may not be exchanged by this client; but it proved who it is.
    assert [one.error for one in answers[:10]] == ["invalid_request"] * 10
    assert {one.status for one in answers[10:]} == {"429", "RESOURCE_EXHAUSTED"}


def turns_apart(pair: Pair) -> tuple[int, int]:
    """How often a process began to keep quotas by itself, and to share them again."""
    apart, again = (
        sum(len(broker.events(event)) for broker in pair.both)
        for event in ("limits_kept_apart", "limits_shared_again")
    )
    return apart, again


@pytest.mark.requirement("RPL-02", "P-B")
@pytest.mark.parametrize(("first", "second"), ACROSS)
def test_a_client_assertion_spent_at_one_is_refused_at_the_other(
    pair: Pair, first: str, second: str
) -> None:
    with wire(first, pair.first.setting) as one, wire(second, pair.second.setting) as other:
        used: list[Parameters] = []

        def fresh() -> Parameters:
            used.append(by_assertion(assertion(pair.setting)))
            return exchange(pair.setting) | used[-1]

        assert settled(one, fresh).is_granted
        again = settled(other, lambda: exchange(pair.setting) | used[-1])

        assert again.error == "invalid_client"
        assert reason_of(pair.second, again) == "replay"
        assert settled(other, lambda: exchange(pair.setting)).is_granted


@pytest.mark.requirement("RPL-02", "JAG-13", "IDJAG-R-07")
@pytest.mark.parametrize(("first", "second"), ACROSS)
def test_an_identity_assertion_redeemed_at_one_is_refused_at_the_other(
    pair: Pair, first: str, second: str
) -> None:
    with wire(first, pair.first.setting) as one, wire(second, pair.second.setting) as other:
        used: list[Parameters] = []

        def fresh() -> Parameters:
            used.append(redeem(pair.setting))
            return used[-1]

        assert settled(one, fresh).is_granted

        def again_by_another() -> Parameters:
            return used[-1] | by_assertion(assertion(pair.setting, DESK_AT_WIKI))

        again = settled(other, again_by_another)

        assert again.error == "invalid_grant"
        assert reason_of(pair.second, again) == "replay"


@pytest.mark.requirement("RPL-02", "P-B")
def test_of_sixty_four_uses_at_once_at_both_brokers_one_gets_a_token(pair: Pair) -> None:
    # Whoever was the first may have to be told that the store is slow.
    answers = until(partial(raced_for, pair), seconds=120, what="one gets a token")

    assert sum(answer.is_granted for answer in answers) == 1
    refused = [answer for answer in answers if not answer.is_granted]
    assert {answer.error for answer in refused} - {UNABLE} <= {"invalid_client"}


def raced_for(pair: Pair) -> list[Answer]:
    """The answers to an assertion that all use at once; none when all were turned away."""
    parameters = exchange(pair.setting)
    gate = Barrier(PARTIES)

    with ExitStack() as stack, ThreadPoolExecutor(PARTIES) as pool:
        wires = [
            stack.enter_context(wire(face, broker.setting))
            for _ in range(PARTIES // 4)
            for broker in pair.both
            for face in FACES
        ]

        def use(number: int) -> Answer:
            gate.wait(timeout=120)
            return wires[number % PARTIES].exchange(parameters)

        answers = list(pool.map(use, range(AT_ONCE)))
    # Only who was told that the store is busy may have been the first; without one nobody is excused.
    is_spoilt = not any(one.is_granted for one in answers) and UNABLE in {
        one.error for one in answers
    }
    return [] if is_spoilt else answers


def run_at(broker: RunningBroker, *arguments: str) -> Any:
    """Run a command of ours against a broker as the tickets server."""
    secret = broker.setting.directory.parent / "secret"
    where = ("--grpc", f"127.0.0.1:{broker.setting.ports.grpc}")
    return run_broker(*arguments, *where, "--client", TICKETS, "--secret-file", str(secret))


def counts(broker: RunningBroker, token: str) -> bool:
    found = run_at(broker, "token", "introspect", file_of(broker, token), "-o", "json")
    return bool(json.loads(found.stdout)["active"])


def file_of(broker: RunningBroker, token: str) -> str:
    place = broker.setting.directory / hashlib.sha256(token.encode()).hexdigest()
    place.write_text(token)
    return f"@{place}"


@pytest.mark.requirement("RPL-07", "REV-02")
def test_a_token_revoked_at_one_is_refused_at_the_other_at_once(pair: Pair) -> None:
    with wire("http", pair.first.setting) as one:
        first = settled(one, lambda: login(pair.setting)).token
        token = settled(one, lambda: exchange(pair.setting) | {"subject_token": first}).token
    assert counts(pair.second, token)

    done = run_at(pair.first, "token", "revoke", file_of(pair.first, token))

    assert done.returncode == 0, done.stderr
    assert not counts(pair.second, token)
    for face in FACES:
        with wire(face, pair.second.setting) as other:
            again = settled(other, lambda: exchange(pair.setting) | {"subject_token": token})
            assert again.error == "invalid_request"


@pytest.mark.requirement("R-12", "R-38")
def test_a_flush_under_both_brokers_lets_nothing_work_twice(pair: Pair) -> None:
    with wire("http", pair.first.setting) as one, wire("grpc", pair.second.setting) as other:
        used: list[Parameters] = []

        def fresh() -> Parameters:
            used.append(by_assertion(assertion(pair.setting)))
            return exchange(pair.setting) | used[-1]

        token = settled(one, fresh).token
        assert run_at(pair.first, "token", "revoke", file_of(pair.first, token)).returncode == 0
        alive = settled(other, lambda: exchange(pair.setting)).token

        pair.valkey.ask("FLUSHALL")

        again = other.exchange(exchange(pair.setting) | used[-1])
        assert again.error in {UNABLE, "invalid_client"}
        for broker in pair.both:
            until(partial(is_unready, broker), seconds=30, what="it is not ready")
        pair.wait_until_ready()
        assert other.exchange(exchange(pair.setting) | used[-1]).error == UNABLE
        assert settled(other, fresh).is_granted
        for broker in pair.both:
            assert not counts(broker, token), "it was given back"
            assert counts(broker, alive), "and nothing else was withdrawn"


@pytest.mark.requirement("R-10", "R-38")
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.BLACKHOLE, Fault.LOST_ANSWERS])
def test_a_broker_that_is_cut_off_from_the_store_serves_nobody_while_the_other_serves(
    pair: Pair, fault: Fault
) -> None:
    with ExitStack() as stack:
        ours = [stack.enter_context(wire(face, pair.first.setting)) for face in FACES]
        theirs = [stack.enter_context(wire(face, pair.second.setting)) for face in FACES]
        pair.line.fault = fault
        pair.line.end_connections()
        try:
            for one in theirs:
                assert one.exchange(exchange(pair.setting)).error == UNABLE
            until(partial(is_unready, pair.second), seconds=30, what="it is not ready")
            for one in ours:
                assert settled(one, lambda: exchange(pair.setting)).is_granted
            assert holds(pair.first.is_ready, pause=0.5)
        finally:
            pair.line.mend()
            pair.line.end_connections()

        until(pair.second.is_ready, seconds=30, what="it is ready again")
        for one in theirs:
            assert settled(one, lambda: exchange(pair.setting)).is_granted


@pytest.mark.requirement("R-09", "R-38")
def test_without_the_store_nobody_is_served_and_with_it_everybody_is(pair: Pair) -> None:
    pair.valkey.freeze()
    try:
        for broker in pair.both:
            for face in FACES:
                with wire(face, broker.setting) as one:
                    assert one.exchange(exchange(pair.setting)).error == UNABLE
            until(partial(is_unready, broker), seconds=30, what="it is not ready")
            until(partial(says, broker, "replay_store_unavailable"), seconds=30, what="it says why")
    finally:
        pair.valkey.thaw()

    for broker in pair.both:
        until(broker.is_ready, seconds=30, what="it is ready again")
        for face in FACES:
            with wire(face, broker.setting) as one:
                assert settled(one, lambda: exchange(pair.setting)).is_granted


@pytest.mark.requirement("RPL-04")
def test_a_broker_does_not_start_on_a_valkey_that_forgets_on_purpose(tmp_path: Path) -> None:
    with running(tmp_path / "valkey", "--maxmemory-policy", "allkeys-lru") as server:
        setting = new_setting(tmp_path, state=valkey_state(server.port, tmp_path))
        broker = RunningBroker(setting)
        try:
            assert broker.session.end() == 1
        finally:
            broker.close()

    assert "maxmemory-policy is allkeys-lru; it must be noeviction" in broker.session.text
    assert "Traceback" not in broker.session.text
    assert broker.events("worker_started") == []
