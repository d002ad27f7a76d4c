"""Every token tells which record it has, so that a token in the wild convicts a log without it."""

import json
import re
from typing import Any, Final

import pytest

from broker.audit.log_id import read_log_id
from tests.attacks.test_conformance_rows import good_requests
from tests.stage import SUBJECT, Stage
from tests.world import assertion_request

_RECEIPT: Final = re.compile(r"([0-9a-f-]{36})@([0-9a-f]{16})/([A-Za-z0-9_-]+)/([0-9]+)")


def issued(stage: Stage) -> list[dict[str, Any]]:
    """The claims of a token by each grant, and of an identity assertion."""
    requests = [*good_requests(stage).values(), assertion_request()]
    return [stage.grant(parameters).claims for parameters in requests]


@pytest.mark.requirement("R-23")
def test_a_token_names_its_record_its_chain_and_a_number_that_it_is_not_below(
    stage: Stage,
) -> None:
    tokens = issued(stage)
    for claims, record in zip(tokens, stage.broker.records()[-len(tokens) :], strict=True):
        found = _RECEIPT.fullmatch(claims["txn"])
        assert found is not None
        assert (found[1], found[3]) == (record["event_id"], record["writer"])
        assert found[2] == read_log_id(stage.broker.audit_directory)
        assert int(found[4]) <= record["seq"]
        assert record["jti"] == claims["jti"]


def test_what_others_say_of_their_records_is_not_passed_on(stage: Stage) -> None:
    first = stage.grant(SUBJECT.place(stage, SUBJECT.token(txn="evil"))).claims
    assert "evil" not in json.dumps(first)


def test_every_token_has_a_record_of_its_own(stage: Stage) -> None:
    assert len({claims["txn"].partition("@")[0] for claims in issued(stage)}) == 4
