"""Requests of all kinds over both faces: each answer has exactly one record, and the record agrees."""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from broker.errors import Reason
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    API,
    DESK,
    TICKETS,
    TICKETS_SECRET,
    Setting,
    assertion,
    by_assertion,
    exchange,
    login,
    subject_token,
)
from tests.e2e.wires import Wire, decision_id, settled, wire
from tests.harness import Answer
from tests.idp import signer
from tests.world import Parameters

ROUNDS: Final = 5
MOMENTS: Final = 100
REASONS: Final = {reason.code for reason in Reason}


def _by_secret(secret: str) -> Callable[[Setting], Parameters]:
    credential = {"client_id": TICKETS, "client_secret": secret}
    return lambda setting: without_assertion(exchange(setting)) | credential


def without_assertion(parameters: Parameters) -> Parameters:
    return {name: one for name, one in parameters.items() if not name.startswith("client_")}


MIXTURE: Final[dict[str, Callable[[Setting], Parameters]]] = {
    "an exchange": exchange,
    "a login": login,
    "by secret": _by_secret(TICKETS_SECRET),
    "a wrong secret": _by_secret("bks_" + "wrong" * 9),
    "no client": lambda setting: without_assertion(exchange(setting)),
    "a forged assertion": lambda setting: (
        exchange(setting) | by_assertion(signer("mallory").sign({"iss": TICKETS, "sub": TICKETS}))
    ),
    "an expired assertion": lambda setting: (
        exchange(setting) | by_assertion(assertion(setting, exp=1_600_000_000))
    ),
    "an expired subject": lambda setting: (
        exchange(setting) | {"subject_token": subject_token(iat=1_600_000_000, exp=1_600_000_300)}
    ),
    "somebody else's subject": lambda setting: (
        exchange(setting) | {"subject_token": subject_token(aud="https://other.example/mcp")}
    ),
    "no subject": lambda setting: exchange(setting) | {"subject_token": ""},
    "rubbish": lambda setting: exchange(setting) | {"subject_token": "a.b.c"},
    "an unknown resource": lambda setting: (
        exchange(setting) | {"resource": "https://nowhere.example"}
    ),
    "two resources": lambda setting: exchange(setting) | {"resource": [API, "https://b.example"]},
    "an unknown scope": lambda setting: exchange(setting) | {"scope": "crm.everything"},
    "another client": lambda setting: exchange(setting) | by_assertion(assertion(setting, DESK)),
}


@pytest.mark.requirement("LOG-04")
@pytest.mark.requirement("P-A")
def test_every_answer_of_either_face_names_one_record_that_says_the_same(
    broker: RunningBroker,
) -> None:
    before = {record["event_id"] for record in broker.records()}
    answers: list[Answer] = []
    with wire("http", broker.setting) as http, wire("grpc", broker.setting) as grpc:
        for _ in range(ROUNDS):
            for ask in MIXTURE.values():
                answers += [face.exchange(ask(broker.setting)) for face in (http, grpc)]
    records = [record for record in broker.records() if record["event_id"] not in before]

    by_id = {record["event_id"]: record for record in records}
    assert Counter(map(decision_id, answers)) == Counter(one["event_id"] for one in records)
    for answer in answers:
        record = by_id[decision_id(answer)]
        assert record["decision"] == ("permit" if answer.is_granted else "deny")
        assert record.get("error", "") == answer.error
        assert record["face"] == answer.face
        assert answer.is_granted or record["reason"] in REASONS


@pytest.mark.requirement("LOG-04")
def test_both_faces_decide_alike_about_every_kind_of_request(broker: RunningBroker) -> None:
    with wire("http", broker.setting) as http, wire("grpc", broker.setting) as grpc:
        for kind, ask in MIXTURE.items():
            answers = [settled(face, partial(ask, broker.setting)) for face in (http, grpc)]
            assert len({(one.error, one.description) for one in answers}) == 1, (kind, answers)


@pytest.mark.requirement("P-A")
def test_the_record_of_an_answer_is_there_the_moment_the_answer_arrives(
    broker: RunningBroker, face: Wire
) -> None:
    files = broker.setting.audit_directory.glob(f"{face.name}-0.*.jsonl")
    newest = max(files, key=lambda path: path.name)
    with newest.open("rb") as records:
        records.seek(0, os.SEEK_END)
        for number in range(MOMENTS):
            ask = (exchange, _by_secret("bks_" + "wrong" * 9))[number % 2]
            answer = face.exchange(ask(broker.setting))

            assert decision_id(answer).encode() in records.read(), number
