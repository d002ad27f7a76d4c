"""Which workload is which client."""

from typing import Any

import pytest

from broker.client_auth.workload_rules import client_named
from broker.errors import Reason, TokenRejected
from broker.model import WorkloadRule

CLAIMS: dict[str, Any] = {
    "sub": "system:serviceaccount:prod:worker",
    "groups": ["builders", "deployers", 7],
    "run": 12,
    "is_protected": True,
    "nothing": None,
    "kubernetes.io": {"namespace": "prod", "pod": {"name": "worker-5d9c"}, "nodes": ["n1", "n2"]},
    "a/b": "slash",
    "/odd": "odd",
    "~": "tilde",
}


def rule(client_id: str = "worker", /, **claims: str) -> WorkloadRule:
    return WorkloadRule(client_id, claims)


def named(**claims: str) -> str | None:
    """The client of a rule with these claims, or ``None`` where it does not fit."""
    try:
        return client_named([WorkloadRule("worker", claims)], CLAIMS)
    except TokenRejected as rejected:
        return None if rejected.reason is Reason.WORKLOAD_UNKNOWN else rejected.reason.code


@pytest.mark.requirement("WIF-02")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "system:serviceaccount:prod:worker"),
        ("/sub", "system:serviceaccount:prod:worker"),
        ("/kubernetes.io/namespace", "prod"),
        ("/kubernetes.io/pod/name", "worker-5d9c"),
        ("/kubernetes.io/nodes/1", "n2"),
        ("/kubernetes.io/nodes", "n2"),
        ("groups", "builders"),
        ("groups", "deployers"),
        ("a/b", "slash"),
        ("/a~1b", "slash"),
        ("/~1odd", "odd"),
        ("/~0", "tilde"),
    ],
)
def test_a_claim_that_is_exactly_so_fits(name: str, value: str) -> None:
    assert named(**{name: value}) == "worker"


@pytest.mark.requirement("WIF-02")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "system:serviceaccount:prod"),
        ("sub", "system:serviceaccount:prod:worker "),
        ("sub", "SYSTEM:serviceaccount:prod:worker"),
        ("sub", "*"),
        ("sub", "system:serviceaccount:prod:*"),
        ("missing", ""),
        ("missing", "None"),
        ("nothing", "null"),
        ("nothing", "None"),
        ("run", "12"),
        ("is_protected", "true"),
        ("is_protected", "True"),
        ("groups", "build"),
        ("groups", "7"),
        ("groups", "['builders']"),
        ("kubernetes.io", "prod"),
        ("kubernetes.io/namespace", "prod"),
        ("kubernetes", "prod"),
        ("/kubernetes.io", "prod"),
        ("/kubernetes/io/namespace", "prod"),
        ("/kubernetes.io/nodes/2", "n2"),
        ("/a/b", "slash"),
        ("/odd", "odd"),
    ],
)
def test_a_claim_that_is_otherwise_does_not_fit(name: str, value: str) -> None:
    assert named(**{name: value}) is None


@pytest.mark.requirement("WIF-02")
def test_every_claim_of_a_rule_has_to_fit() -> None:
    assert named(sub=CLAIMS["sub"], groups="builders") == "worker"
    assert named(sub=CLAIMS["sub"], groups="owners") is None


@pytest.mark.requirement("WIF-02")
def test_a_rule_without_claims_fits_nobody() -> None:
    assert named() is None


@pytest.mark.requirement("WIF-02")
@pytest.mark.parametrize("is_first", [True, False])
def test_rules_of_two_clients_that_both_fit_name_neither(*, is_first: bool) -> None:
    """The order of rules in a file decides nothing."""
    rules = [rule("worker", sub=CLAIMS["sub"]), rule("builder", groups="builders")]
    with pytest.raises(TokenRejected) as rejected:
        client_named(rules if is_first else rules[::-1], CLAIMS)

    assert rejected.value.reason is Reason.WORKLOAD_UNKNOWN
    assert "several" in rejected.value.detail


def test_two_rules_of_one_client_may_both_fit() -> None:
    rules = [rule(sub=CLAIMS["sub"]), rule(groups="builders"), rule("other", groups="owners")]

    assert client_named(rules, CLAIMS) == "worker"
