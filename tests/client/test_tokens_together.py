"""Several tokens of one subject token, all or none, in the hand of a program."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from broker.client import (
    BadAnswer,
    Broker,
    BrokerError,
    Refused,
    Secret,
    SyncBroker,
    Target,
    Token,
    Unavailable,
)
from broker.client.cache import TokenCache
from broker.v1 import token_service_pb2
from tests.client.conftest import Holding
from tests.client.hands import Hand, hand
from tests.client.scripted_grpc import (
    Failure,
    ScriptedGrpc,
    failure,
    issued_together,
    scripted_grpc,
)
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import API, READ, TICKETS, TICKETS_SECRET, subject_token
from tests.harness import decode_claims

ISSUER = "http://127.0.0.1:9"
SECRET = Secret("c", "s")
OVER_GRPC = ["grpc-async", "grpc-sync"]
ONE, TWO, THREE = (Target(f"https://api-{number}.test/v1", ["read"]) for number in (1, 2, 3))


@pytest.fixture
def scripted() -> Iterator[ScriptedGrpc]:
    with scripted_grpc() as server:
        yield server


@pytest.fixture(params=OVER_GRPC)
def holder(request: pytest.FixtureRequest, scripted: ScriptedGrpc) -> Iterator[Hand]:
    """The library over gRPC, in front of a broker that answers as it is told."""
    held = hand(request.param, ISSUER, SECRET, grpc=f"127.0.0.1:{scripted.port}")
    yield held
    held.close()


def together(hand: Hand, *targets: Target, subject: str = "subject") -> tuple[Token, ...]:
    tokens: tuple[Token, ...] = hand.do(lambda broker: broker.tokens_for(subject, targets))
    return tokens


def alone(hand: Hand, target: Target, subject: str = "subject") -> Token:
    token: Token = hand.do(
        lambda broker: broker.token_for(subject, resource=target.resource, scopes=target.scopes)
    )
    return token


def failed(hand: Hand, *targets: Target) -> BrokerError:
    with pytest.raises(BrokerError) as raised:
        together(hand, *targets)
    return raised.value


def refused_at(number: int) -> Failure:
    facts = {"error": "invalid_target", "decision_id": "d-1"}
    code = grpc.StatusCode.PERMISSION_DENIED
    return failure(code, facts, at_fault=f"targets[{number}]")


def names(message: Any) -> list[str]:
    return [target.resource for target in message.targets]


@pytest.mark.parametrize("way", OVER_GRPC)
def test_a_real_broker_gives_all_of_them_and_remembers_each(
    holding: Holding, running_broker: RunningBroker
) -> None:
    hand, subject = holding(Secret(TICKETS, TICKETS_SECRET)), subject_token()

    (token,) = together(hand, Target(API, [READ]), subject=subject)

    assert decode_claims(token.access_token)["aud"] == API
    assert token.resource == API
    assert token.scopes == {READ}
    assert alone(hand, Target(API, [READ]), subject) == token
    jti = decode_claims(token.access_token)["jti"]
    (record,) = (one for one in running_broker.records() if one.get("jti") == jti)
    assert record["group_size"] == 1


@pytest.mark.parametrize("way", OVER_GRPC)
def test_a_real_broker_says_which_one_it_refuses(holding: Holding) -> None:
    hand = holding(Secret(TICKETS, TICKETS_SECRET))
    targets = [Target(API, [READ]), Target("https://nowhere.example")]

    with pytest.raises(Refused) as raised:
        hand.do(lambda broker: broker.exchange_all(subject_token(), targets))

    assert (raised.value.code, raised.value.target) == ("invalid_target", 1)


@pytest.mark.parametrize("way", ["http-async", "http-sync"])
@pytest.mark.parametrize("method", ["tokens_for", "exchange_all"])
def test_over_http_nothing_pretends_to_be_all_or_none(way: str, method: str) -> None:
    held = hand(way, ISSUER, SECRET)

    with pytest.raises(BadAnswer, match="use gRPC, or ask for them one by one"):
        held.do(lambda broker: getattr(broker, method)("subject", [ONE, TWO]))

    held.close()


def test_only_what_is_missing_is_asked_for(holder: Hand, scripted: ScriptedGrpc) -> None:
    first = together(holder, ONE, TWO)
    second = together(holder, THREE, TWO, ONE)

    assert [token.resource for token in second] == [THREE.resource, TWO.resource, ONE.resource]
    assert second[1:] == first[::-1]
    assert [names(message) for message in scripted.asked] == [
        [ONE.resource, TWO.resource],
        [THREE.resource],
    ]
    assert list(scripted.asked[0].targets[0].scopes) == ["read"]
    assert alone(holder, THREE) == second[0]
    assert together(holder, ONE, THREE) == (second[2], second[0])
    assert len(scripted.asked) == 2


def test_nothing_is_remembered_of_a_batch_but_the_refusal_of_the_one(
    holder: Hand, scripted: ScriptedGrpc
) -> None:
    """The one alone would have been refused the same way; of the others nothing is known."""
    together(holder, TWO)
    scripted.script.append(refused_at(1))

    first = failed(holder, ONE, TWO, THREE)
    again = failed(holder, TWO, THREE)
    with pytest.raises(Refused) as single:
        alone(holder, THREE)

    assert (first.code, getattr(first, "target", None), first.decision_id) == (
        "invalid_target",
        2,
        "d-1",
    )
    assert getattr(again, "target", None) == 1
    assert single.value.target is None
    assert len(scripted.asked) == 2
    assert together(holder, ONE)[0].resource == ONE.resource
    assert len(scripted.asked) == 3


@pytest.mark.parametrize("way", OVER_GRPC)
def test_a_real_broker_refuses_a_repeated_resource_and_gives_it_alone_at_once(
    holding: Holding,
) -> None:
    hand, subject = holding(Secret(TICKETS, TICKETS_SECRET)), subject_token()

    with pytest.raises(Refused) as raised:
        together(hand, Target(API, [READ]), Target(API), subject=subject)

    assert (raised.value.code, raised.value.target) == ("invalid_request", 1)
    assert alone(hand, Target(API), subject).resource == API


def test_a_refusal_of_the_whole_is_nobodys_in_particular(
    holder: Hand, scripted: ScriptedGrpc
) -> None:
    whole = failure(grpc.StatusCode.INVALID_ARGUMENT, {"error": "invalid_request"})
    scripted.script.append(whole)

    assert getattr(failed(holder, ONE, TWO), "target", 0) is None
    assert len(together(holder, ONE, TWO)) == 2


@pytest.mark.parametrize("field", ["targets[7]", "targets[x]", "targets", "targets[99999]"])
def test_a_place_that_is_none_of_the_targets_does_no_harm(
    holder: Hand, scripted: ScriptedGrpc, field: str
) -> None:
    facts = {"error": "invalid_target"}
    scripted.script.append(failure(grpc.StatusCode.PERMISSION_DENIED, facts, at_fault=field))

    assert failed(holder, ONE, TWO).code == "invalid_target"


def answer_of(*targets: Target) -> Any:
    message = token_service_pb2.ExchangeTokensRequest()
    for target in targets:
        message.targets.add(resource=target.resource)
    return issued_together(message)


BAD_ANSWERS = {
    "none": answer_of(),
    "one less": answer_of(ONE),
    "one more": answer_of(ONE, TWO, THREE),
    "in another order": answer_of(TWO, ONE),
    "for something else": answer_of(ONE, THREE),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_answer_that_is_not_what_was_asked_for_is_none(
    holder: Hand, scripted: ScriptedGrpc, answer: Any
) -> None:
    scripted.script.append(answer)

    assert isinstance(failed(holder, ONE, TWO), BadAnswer)
    # Nothing of it is kept.
    together(holder, ONE, TWO)
    assert names(scripted.asked[-1]) == [ONE.resource, TWO.resource]


def test_the_subject_token_never_comes_back_in_place_of_one(
    holder: Hand, scripted: ScriptedGrpc
) -> None:
    answer = answer_of(ONE, TWO)
    answer.issued_tokens[1].access_token = "subject"
    scripted.script.append(answer)

    assert isinstance(failed(holder, ONE, TWO), BadAnswer)


def test_what_may_pass_is_tried_again_as_a_whole(holder: Hand, scripted: ScriptedGrpc) -> None:
    away = failure(grpc.StatusCode.UNAVAILABLE, {"error": "temporarily_unavailable"}, retry_after=0)
    scripted.script.append(away)

    assert len(together(holder, ONE, TWO)) == 2
    assert [names(message) for message in scripted.asked] == [[ONE.resource, TWO.resource]] * 2


def test_nothing_wanted_is_nothing_asked(holder: Hand, scripted: ScriptedGrpc) -> None:
    assert together(holder) == ()
    assert scripted.asked == []


def test_eleven_tasks_that_want_the_same_ask_once(scripted: ScriptedGrpc) -> None:
    async def run() -> None:
        target = f"127.0.0.1:{scripted.port}"
        async with Broker(ISSUER, SECRET, grpc=target) as broker:
            wanted = (broker.tokens_for("subject", [ONE, TWO]) for _ in range(11))
            assert len(set(await asyncio.gather(*wanted))) == 1

    asyncio.run(run())

    assert len(scripted.asked) == 1


def test_threads_that_want_the_same_ask_once(scripted: ScriptedGrpc) -> None:
    scripted.gate = threading.Event()
    found: list[tuple[Token, ...]] = []
    with SyncBroker(ISSUER, SECRET, grpc=f"127.0.0.1:{scripted.port}") as broker:
        threads = [
            threading.Thread(target=lambda: found.append(broker.tokens_for("subject", [ONE, TWO])))
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        until(lambda: len(scripted.asked) == 1, seconds=30, what="the broker was asked")
        scripted.gate.set()
        for thread in threads:
            thread.join(60)

    assert len(found) == 5
    assert len(scripted.asked) == 1


def test_what_is_due_is_refreshed_by_itself_and_nobody_waits(scripted: ScriptedGrpc) -> None:
    moment = 0.0
    cache = TokenCache(lambda: 1_800_000_000 + moment, monotonic=lambda: moment, jitter=lambda: 0.5)
    with SyncBroker(ISSUER, SECRET, grpc=f"127.0.0.1:{scripted.port}", cache=cache) as broker:
        first = broker.tokens_for("subject", [ONE, TWO])
        moment = 290.0
        assert broker.tokens_for("subject", [ONE, TWO]) == first
        until(lambda: len(scripted.asked) == 3, seconds=30, what="both are refreshed")


def test_a_broker_that_is_closed_gives_nothing(scripted: ScriptedGrpc) -> None:
    broker = SyncBroker(ISSUER, SECRET, grpc=f"127.0.0.1:{scripted.port}")
    broker.close()

    with pytest.raises(Unavailable):
        broker.tokens_for("subject", [ONE])
