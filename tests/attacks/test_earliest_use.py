"""Since when a one-time token can have been used, which a store must know that forgot what was."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from broker.model import OneTimeId
from tests.proofs import proof_for
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    IDP_B,
    NOW,
    TRUST_DOMAIN,
    Cast,
    by_assertion,
    by_svid,
    client_parameters,
    exchange_parameters,
    good_access_token,
    good_id_jag,
    good_workload_token,
    redeem_parameters,
    workload_parameters,
)

LEEWAY = 30
LONGEST_ASSERTION = 300


@pytest.fixture
def spent(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[OneTimeId]:
    """Every id that was spent."""
    return watched(stage, monkeypatch)


def watched(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[OneTimeId]:
    found: list[OneTimeId] = []
    spend = stage.broker.state.spend

    def watch(one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        found.extend(one_time_ids)
        return spend(one_time_ids)

    monkeypatch.setattr(stage.broker.state, "spend", watch)
    return found


@pytest.mark.requirement("R-11")
def test_a_client_assertion_not_before_it_was_issued(stage: Stage, spent: list[OneTimeId]) -> None:
    by = by_assertion("mcp1-srv", iat=NOW - 100, nbf=NOW - 5, exp=NOW + 60)
    stage.grant(exchange_parameters(good_access_token()) | by)

    (one,) = spent
    assert (one.since, one.until) == (NOW - 100 - LEEWAY, NOW + 60 + LEEWAY)


@pytest.mark.requirement("R-11")
def test_one_that_does_not_say_when_not_before_it_had_the_longest_lifetime_left(
    stage: Stage, spent: list[OneTimeId]
) -> None:
    by = by_assertion("mcp1-srv", iat=None, nbf=None, exp=NOW + 60)
    stage.grant(exchange_parameters(good_access_token()) | by)

    (one,) = spent
    assert one.since == NOW + 60 - LONGEST_ASSERTION


@pytest.mark.requirement("R-11")
def test_an_identity_assertion_not_before_it_was_issued(
    stage: Stage, spent: list[OneTimeId]
) -> None:
    stage.grant(redeem_parameters(good_id_jag(iat=NOW - 200, exp=NOW + 60)))

    (one,) = [one for one in spent if one.kind == "id_jag"]
    assert one.since == NOW - 200 - LEEWAY


@pytest.mark.requirement("R-11")
def test_a_proof_not_before_it_was_made(stage: Stage, spent: list[OneTimeId]) -> None:
    parameters = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
    stage.grant(parameters, proofs=[proof_for(stage, parameters, iat=NOW - 10, nbf=NOW)])

    (one,) = [one for one in spent if one.kind == "dpop"]
    assert one.since == NOW - 10 - LEEWAY


def once(issuer: str) -> Cast:
    """The cast with an issuer of workloads whose tokens work once."""
    return Cast().with_issuer(replace(Cast().issuer(issuer), is_single_use=True))


@pytest.mark.requirement("R-11")
def test_a_workloads_token_not_before_it_was_issued(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staging(once(IDP_B))
    spent = watched(stage, monkeypatch)

    stage.grant(workload_parameters(good_workload_token(iat=NOW - 500)))

    (one,) = spent
    assert one.since == NOW - 500 - LEEWAY


@pytest.mark.requirement("R-11")
def test_an_svid_that_does_not_say_when_not_before_it_had_the_longest_lifetime_left(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staging(once(TRUST_DOMAIN))
    spent = watched(stage, monkeypatch)

    stage.grant(client_parameters() | by_svid(iat=None, jti="svid-1"))

    (one,) = spent
    longest = int(Cast().issuer(TRUST_DOMAIN).max_token_lifetime.total_seconds())
    assert one.since == NOW + 300 - longest
