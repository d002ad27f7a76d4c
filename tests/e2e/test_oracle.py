"""The oracle of crashes itself: it says so when any side disagrees."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from broker.client_auth.assertion import ONE_TIME_KIND
from broker.model import OneTimeId
from broker.state.entries import spent_key
from tests.e2e.load import Call
from tests.e2e.oracle import Evidence, Findings
from tests.e2e.setting import Setting, exchange, idp_key, new_setting
from tests.harness import Answer, decode_claims

CALLS: Final = 3


def issued_to(setting: Setting, number: int) -> Call:
    """A call that got a token."""
    token = idp_key().sign({"jti": f"issued-{number}"})
    answer = Answer("http", "200", "", "", token, {}, {}, "")
    return Call("http", exchange(setting), time.monotonic(), 0.01, answer)


def key_of(call: Call) -> bytes:
    claims = decode_claims(str(call.parameters["client_assertion"]))
    return spent_key(OneTimeId(ONE_TIME_KIND, claims["iss"], claims["jti"], claims["exp"]))


def record_of(call: Call) -> dict[str, object]:
    subject = decode_claims(str(call.parameters["subject_token"]))["jti"]
    return {"jti": decode_claims(call.token)["jti"], "inputs": [{"jti": subject}]}


def digest_of(call: Call) -> bytes:
    return hashlib.sha256(call.token.rpartition(".")[0].encode()).digest()


@pytest.fixture
def sound(tmp_path: Path) -> Evidence:
    """All sides agree; the last token never reached its caller."""
    calls = [issued_to(new_setting(tmp_path), number) for number in range(CALLS)]
    lost = replace(calls[-1], answer=None)
    return Evidence(
        calls=[*calls[:-1], lost],
        issued=[record_of(call) for call in calls],
        spent={key_of(call) for call in calls},
        signed=[digest_of(call) for call in calls],
    )


def test_what_agrees_is_counted(sound: Evidence) -> None:
    assert sound.judge() == Findings(
        received=CALLS - 1, issued=CALLS, unreceived=1, unanswered=1, signed=CALLS
    )


BREACHES: Final[dict[str, tuple[Callable[[Evidence], Evidence], str]]] = {
    "a token without a record": (
        lambda one: replace(one, issued=one.issued[1:]),
        "without a record",
    ),
    "a token handed out twice": (
        lambda one: replace(one, calls=[*one.calls, one.calls[0]]),
        "handed out twice",
    ),
    "a token on record twice": (
        lambda one: replace(one, issued=[*one.issued, one.issued[0]]),
        "on record twice",
    ),
    "an assertion that led to two": (
        lambda one: replace(one, issued=[*one.issued, one.issued[0] | {"jti": "another"}]),
        "led to two tokens",
    ),
    "an assertion that is not spent": (
        lambda one: replace(one, spent=set(list(one.spent)[1:])),
        "is not spent",
    ),
    "a token that Vault did not sign": (
        lambda one: replace(one, signed=one.signed[1:] if one.signed else None),
        "did not sign",
    ),
    "an input signed twice": (
        lambda one: replace(one, signed=[*(one.signed or ()), *(one.signed or ())[:1]]),
        "signed twice",
    ),
    "a record without a signature": (
        lambda one: replace(one, signed=(one.signed or ())[:-1]),
        "more records than signatures",
    ),
}


@pytest.mark.parametrize(("breach", "sentence"), BREACHES.values(), ids=BREACHES)
def test_a_side_that_disagrees_is_named(
    sound: Evidence, breach: Callable[[Evidence], Evidence], sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence):
        breach(sound).judge()
