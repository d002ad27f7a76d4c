"""What the library raises can be told, kept, and sent to another process."""

import copy
import pickle
import traceback

import pytest

from broker.client import (
    BadAnswer,
    BrokerError,
    CredentialUnusable,
    NoSubjectToken,
    Refused,
    StepUp,
    StepUpRequired,
    Unavailable,
    WrongOrigin,
)
from broker.client.failures import anew

FAILURES = [
    Refused("invalid_target", "No.", decision_id="decision-1"),
    StepUpRequired("code", "No.", decision_id="decision-1", step_up=StepUp("phr", 60)),
    Unavailable("Away.", retry_after=7, decision_id="decision-1"),
    BadAnswer("No broker."),
    CredentialUnusable("No key."),
    WrongOrigin("Elsewhere."),
    NoSubjectToken(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
def test_a_copy_says_the_same(failure: BrokerError) -> None:
    for copied in (copy.copy(failure), pickle.loads(pickle.dumps(failure)), anew(failure)):  # noqa: S301 - it is ours.
        assert type(copied) is type(failure)
        assert vars(copied) == vars(failure)
        assert str(copied) == str(failure)


def test_a_failure_for_somebody_else_does_not_tell_the_way_of_the_first() -> None:
    with pytest.raises(Refused) as caught:
        raise FAILURES[0]

    assert traceback.extract_tb(caught.value.__traceback__)
    assert anew(caught.value).__traceback__ is None


def test_what_is_no_failure_of_ours_is_left_as_it_is() -> None:
    other = ValueError("other")

    assert anew(other) is other


def test_a_failure_reads_as_one_line() -> None:
    assert str(FAILURES[0]) == "invalid_target: No. (decision decision-1)"
    assert str(Refused("invalid_target")) == "invalid_target"
    assert str(Refused("invalid_target", decision_id="d")) == "invalid_target (decision d)"
