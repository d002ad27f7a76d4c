"""What operators withdraw for a whole party: what it reaches, what it spares, and who may."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.model import OneTimeId, PartyKind
from tests.harness import Answer, decode_claims
from tests.inquiries import exchanged, first_token, login, told, untold, withdraw
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    DEEP,
    IDP_A,
    IDP_B,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    RES_2,
    Cast,
    by_assertion,
    client_parameters,
    deep_cast,
    good_access_token,
    good_id_jag,
    redeem_parameters,
    workload_parameters,
)

IR = "invalid_request"
LEEWAY = 30
SUBJECT, CLIENT, MCP_SERVER, ISSUER = PartyKind

Chain = tuple[str, str, str]
HOLDERS = ("mcp1-srv", "mcp2-srv", "mcp2-srv")


def three_hops(stage: Stage, **claims: Any) -> Chain:
    """The agent's token, what its server made of it, and what the server behind that made of it."""
    first = first_token(stage, **claims)
    second = stage.grant(exchanged(first, "mcp1-srv")).token
    third = stage.grant(exchanged(second, "mcp2-srv", resource=DEEP)).token
    return first, second, third


def are_dead(stage: Stage, chain: Chain, *, spared: int = 0) -> None:
    """All of a chain but the first ``spared`` is inactive, and nothing comes of it any more."""
    for number, (token, holder) in enumerate(zip(chain, HOLDERS, strict=True)):
        if number < spared:
            told(stage, token, holder)
            continue
        untold(stage, token, holder, reason="revoked")
        again = exchanged(token, holder, resource=DEEP)
        stage.refuse(again, error=IR, reason="revoked")


def are_alive(stage: Stage, chain: Chain) -> None:
    for token, holder in zip(chain, HOLDERS, strict=True):
        told(stage, token, holder)


@pytest.mark.requirement("REV-06", "RPL-08", "RPL-07")
@pytest.mark.parametrize(
    ("kind", "name", "spared"),
    [
        (SUBJECT, "u1", 0),
        (ISSUER, IDP_A, 0),
        (CLIENT, "agent-x", 0),
        (CLIENT, "mcp1-srv", 1),
        (CLIENT, "mcp2-srv", 2),
        (MCP_SERVER, RES_1, 0),
        (MCP_SERVER, API, 1),
        (MCP_SERVER, DEEP, 2),
    ],
)
def test_a_party_takes_all_that_passed_through_it_along(
    staging: Staging, kind: PartyKind, name: str, spared: int
) -> None:
    stage = staging(deep_cast())
    chain = three_hops(stage)

    assert withdraw(stage.broker, kind, name).issued_until == NOW + LEEWAY

    are_dead(stage, chain, spared=spared)


@pytest.mark.requirement("REV-06", "RPL-11")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SUBJECT, "u2"),
        (SUBJECT, "agent-x"),
        (SUBJECT, "client:agent-x"),
        (SUBJECT, RES_1),
        (SUBJECT, IDP_A),
        (CLIENT, "u1"),
        (CLIENT, "agent-n"),
        (CLIENT, "agent-x "),
        (CLIENT, "AGENT-X"),
        (CLIENT, RES_1),
        (MCP_SERVER, RES_2),
        (MCP_SERVER, RES_1 + "/"),
        (MCP_SERVER, "agent-x"),
        (MCP_SERVER, IDP_A),
        (ISSUER, ISS),
        (ISSUER, IDP_A + "/"),
        (ISSUER, "u1"),
        (ISSUER, RES_1),
    ],
)
def test_others_are_spared_whatever_they_are_called(
    staging: Staging, kind: PartyKind, name: str
) -> None:
    stage = staging(deep_cast())
    chain = three_hops(stage)
    answer = withdraw(stage.broker, kind, name)

    assert not isinstance(answer, Answer) or answer.error == IR
    are_alive(stage, chain)
    three_hops(stage)


@pytest.mark.requirement("REV-06")
def test_what_is_issued_after_a_withdrawal_counts(staging: Staging) -> None:
    stage = staging(deep_cast())
    withdraw(stage.broker, CLIENT, "agent-x")
    covered = stage.grant(client_parameters()).token
    untold(stage, covered, reason="revoked")

    stage.broker.clock.at = NOW + LEEWAY + 1
    fresh = good_at(NOW + LEEWAY + 1)

    told(stage, stage.grant(login(**fresh) | _by("agent-x", NOW + LEEWAY + 1)).token)


def good_at(now: int) -> dict[str, int]:
    """The times of an ID token that is made now."""
    return {"iat": now, "exp": now + 300, "auth_time": now}


def _by(client_id: str, now: int) -> dict[str, Any]:
    return by_assertion(client_id, iat=now, exp=now + 60)


@pytest.mark.requirement("REV-06")
def test_what_was_issued_before_the_moment_named_is_spared(staging: Staging) -> None:
    stage = staging(deep_cast())
    early = three_hops(stage)
    stage.broker.clock.at = NOW + 20
    late = three_hops(stage)

    withdraw(stage.broker, CLIENT, "agent-x", since=NOW + 20)

    are_alive(stage, early)
    are_dead(stage, late)


@pytest.mark.requirement("RPL-08")
def test_what_derives_from_a_withdrawn_token_is_withdrawn_however_late(staging: Staging) -> None:
    """The parent was issued in the time withdrawn; no child of it comes about afterwards."""
    stage = staging(deep_cast())
    first = first_token(stage)
    withdraw(stage.broker, SUBJECT, "u1", since=NOW)

    stage.broker.clock.at = NOW + 100
    again = exchanged(first, "mcp1-srv") | by_assertion("mcp1-srv", exp=NOW + 160)

    stage.refuse(again, error=IR, reason="revoked")


@pytest.mark.requirement("REV-06")
def test_an_exchange_that_was_under_way_is_covered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was permitted before the withdrawal and signed after it."""
    state = stage.broker.state
    spend = state.spend

    def meanwhile(one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        patched.undo()
        withdraw(stage.broker, SUBJECT, "u1")
        return spend(one_time_ids)

    with monkeypatch.context() as patched:
        patched.setattr(state, "spend", meanwhile)
        token = stage.ask(stage.good()).token

    untold(stage, token, reason="revoked")


@pytest.mark.requirement("REV-06", "TEX-16")
@pytest.mark.parametrize(("kind", "name"), [(SUBJECT, "u1"), (ISSUER, IDP_A)])
def test_another_issuers_tokens_of_that_time_give_nothing_new(
    stage: Stage, kind: PartyKind, name: str
) -> None:
    withdraw(stage.broker, kind, name, since=NOW - 100)

    for issued_at in (NOW - 100, NOW, NOW + LEEWAY):
        subject_token = good_access_token(iat=issued_at)
        stage.refuse(stage.good(subject_token=subject_token), error=IR, reason="revoked")
        jag = good_id_jag(iat=issued_at, exp=issued_at + 300)
        stage.refuse(redeem_parameters(jag), error="invalid_grant", reason="revoked")
    stage.refuse(login(), error=IR, reason="revoked")

    stage.grant(stage.good(subject_token=good_access_token(iat=NOW - 101)))
    stage.grant(redeem_parameters(good_id_jag(iat=NOW - 101, exp=NOW + 99)))


@pytest.mark.requirement("REV-06", "TEX-16")
@pytest.mark.parametrize("azp", [{}, {"azp": "agent-x"}])
def test_what_other_issuers_gave_a_client_goes_with_the_client(
    stage: Stage, azp: dict[str, str]
) -> None:
    """A client has nothing new for what it held, however late, and others go on as before."""
    held = login(**azp), redeem_parameters()
    withdraw(stage.broker, CLIENT, "agent-x")
    stage.broker.clock.at = late = NOW + LEEWAY + 1

    for parameters, error in zip(held, (IR, "invalid_grant"), strict=True):
        stage.refuse(parameters | _by("agent-x", late), error=error, reason="revoked")

    fresh = good_id_jag(iat=late, exp=late + 200, jti="made-since")
    stage.grant(redeem_parameters(fresh) | _by("agent-x", late))
    stage.grant(login(**good_at(late), **azp) | _by("agent-x", late))


@pytest.mark.requirement("REV-06")
def test_what_other_issuers_gave_a_client_outlives_another_client(stage: Stage) -> None:
    withdraw(stage.broker, CLIENT, "agent-n")

    stage.grant(login())
    stage.grant(redeem_parameters())


@pytest.mark.requirement("REV-06")
def test_a_subject_is_withdrawn_by_its_name_here(staging: Staging) -> None:
    """An issuer's own name for a person may be another person's here."""
    mapped = replace(Cast().issuer(IDP_A), accounts={"": {"u1": "ann", "u2": "u1"}})
    stage = staging(Cast().with_issuer(mapped))
    withdraw(stage.broker, SUBJECT, "ann")

    stage.refuse(redeem_parameters(), error="invalid_grant", reason="revoked")
    stage.grant(redeem_parameters(good_id_jag(sub="u2")))
    stage.grant(stage.good())


@pytest.mark.requirement("REV-06")
def test_a_prefix_is_part_of_the_name(staging: Staging) -> None:
    prefixed = replace(Cast().issuer(IDP_A), subject_prefix="a|")
    stage = staging(Cast().with_issuer(prefixed))
    token = first_token(stage)

    withdraw(stage.broker, SUBJECT, "u1")
    told(stage, token)

    withdraw(stage.broker, SUBJECT, "a|u1")
    untold(stage, token, reason="revoked")
    stage.refuse(login(), error=IR, reason="revoked")


@pytest.mark.requirement("REV-06")
def test_a_machines_tokens_go_with_the_machine(stage: Stage) -> None:
    machine = stage.grant(client_parameters()).token
    derived = stage.grant(exchanged(machine, "mcp1-srv", scope="a:read")).token
    other = stage.grant(client_parameters("agent-n")).token

    withdraw(stage.broker, CLIENT, "agent-x")

    untold(stage, machine, reason="revoked")
    untold(stage, derived, reason="revoked")
    told(stage, other)


@pytest.mark.requirement("REV-06")
@pytest.mark.parametrize("is_switched_off", [True, False])
def test_a_workloads_tokens_go_with_whoever_vouched_for_it(
    staging: Staging, *, is_switched_off: bool
) -> None:
    stage = staging(Cast())
    machine = stage.grant(workload_parameters()).token
    derived = stage.grant(exchanged(machine, "mcp1-srv", scope="a:read")).token
    told(stage, derived)

    if is_switched_off:
        off = replace(Cast().issuer(IDP_B), is_disabled=True)
        stage.broker.replace_cast(Cast().with_issuer(off))
    else:
        withdraw(stage.broker, ISSUER, IDP_B)

    for token in (machine, derived):
        untold(stage, token, reason="issuer_disabled" if is_switched_off else "revoked")


@pytest.mark.requirement("REV-06")
@pytest.mark.parametrize("name", ["mcp-one", "https://MCP1.test/mcp", "HTTPS://mcp1.test/mcp"])
def test_a_server_may_be_named_as_it_is_elsewhere(stage: Stage, name: str) -> None:
    token = first_token(stage)

    withdraw(stage.broker, MCP_SERVER, name)

    untold(stage, token, reason="revoked")


@pytest.mark.requirement("REV-06", "RPL-08")
def test_a_server_before_the_last_one_is_not_forgotten(staging: Staging) -> None:
    stage = staging(deep_cast())
    third = three_hops(stage)[2]
    assert decode_claims(third)[MCP_CLAIM]["server"] == API
    assert decode_claims(third)[MCP_CLAIM]["heritage"] == {"mcp_server": [RES_1]}
    off = replace(deep_cast().resource(RES_1), is_disabled=True)

    stage.broker.replace_cast(deep_cast().with_resource(off))

    untold(stage, third, "mcp2-srv", reason="principal_disabled")


@pytest.mark.requirement("REV-06", "RPL-08")
@pytest.mark.parametrize("is_switched_off", [True, False])
def test_who_exchanged_without_being_named_is_not_forgotten(
    staging: Staging, *, is_switched_off: bool
) -> None:
    """Impersonation leaves no actor behind, but a token that came of it knows where it was."""
    owner = replace(Cast().resource(RES_2), owner="impersonator")
    stage = staging(Cast().with_resource(owner))
    first = stage.grant(redeem_parameters(good_id_jag(resource=RES_2))).token
    second = stage.grant(exchanged(first, "impersonator", resource=RES_1, scope="a:read"))
    assert "act" not in second.claims
    third = stage.grant(exchanged(second.token, "mcp1-srv", scope="a:read"))
    told(stage, third.token)
    assert third.claims[MCP_CLAIM]["heritage"] == {
        "client": ["impersonator"],
        "mcp_server": [RES_2],
    }

    if is_switched_off:
        off = replace(Cast().client("impersonator"), is_disabled=True)
        stage.broker.replace_cast(Cast().with_resource(owner).with_client(off))
    else:
        withdraw(stage.broker, CLIENT, "impersonator")

    untold(stage, third.token, reason="principal_disabled" if is_switched_off else "revoked")


@pytest.mark.requirement("CLM-13")
def test_another_issuers_client_of_the_same_name_is_spared(stage: Stage) -> None:
    foreign = good_access_token(client_id="impersonator")
    token = stage.grant(stage.good(subject_token=foreign)).token
    assert decode_claims(token)[MCP_CLAIM]["client"] == "impersonator"

    withdraw(stage.broker, CLIENT, "impersonator")

    told(stage, token)


@pytest.mark.requirement("RPL-09")
def test_a_second_withdrawal_takes_nothing_of_the_first_back(stage: Stage) -> None:
    early = first_token(stage)
    withdraw(stage.broker, SUBJECT, "u1")
    stage.broker.clock.at = NOW + 20

    withdraw(stage.broker, SUBJECT, "u1", since=NOW + 19)
    withdraw(stage.broker, CLIENT, "agent-x", since=NOW + 19)

    untold(stage, early, reason="revoked")


@pytest.mark.requirement("GRP-04")
@pytest.mark.parametrize(
    "by", ["agent-x", "mcp1-srv", "auditor", "gateway", "no-grants", "impersonator"]
)
def test_only_administrators_withdraw_for_others(stage: Stage, by: str) -> None:
    token = first_token(stage)
    before, spent = len(stage.broker.records()), stage.broker.spent_count()

    answer = withdraw(stage.broker, SUBJECT, "u1", by)

    (record,) = stage.broker.records()[before:]
    assert (answer.error, answer.status) == ("unauthorized_client", "PERMISSION_DENIED")
    assert (record["event"], record["decision"]) == ("token.withdraw", "deny")
    assert record["reason"] == "permission_missing"
    assert (record["party_kind"], record["party"]) == ("subject", "u1")
    assert stage.broker.spent_count() == spent
    told(stage, token)


@pytest.mark.requirement("GRP-04")
def test_a_stranger_withdraws_nothing_for_anybody(stage: Stage) -> None:
    token = first_token(stage)

    answer = withdraw(stage.broker, SUBJECT, "u1", "")

    assert (answer.error, answer.status) == ("invalid_client", "UNAUTHENTICATED")
    assert stage.broker.records()[-1]["reason"] == "client_auth_missing"
    told(stage, token)


@pytest.mark.parametrize(
    ("kind", "name", "since", "reason"),
    [
        (0, "u1", 0, "param_missing"),
        (99, "u1", 0, "param_malformed"),
        (-1, "u1", 0, "param_malformed"),
        (SUBJECT, "", 0, "param_missing"),
        (SUBJECT, "u" * 2_049, 0, "param_too_large"),
        (MCP_SERVER, "no such name", 0, "param_malformed"),
        (MCP_SERVER, "https://mcp1.test/mcp#part", 0, "param_malformed"),
        (SUBJECT, "u1", -1, "param_malformed"),
        (SUBJECT, "u1", -(2**63), "param_malformed"),
        (SUBJECT, "u1", NOW + LEEWAY + 1, "param_malformed"),
        (SUBJECT, "u1", 2**63 - 1, "param_malformed"),
    ],
)
def test_a_withdrawal_that_would_not_do_what_it_looks_like_is_refused(
    stage: Stage, kind: PartyKind | int, name: str, since: int, reason: str
) -> None:
    token = first_token(stage)
    spent = stage.broker.spent_count()

    answer = withdraw(stage.broker, kind, name, since=since)

    assert answer.error == IR
    assert stage.broker.records()[-1]["reason"] == reason
    assert stage.broker.spent_count() == spent
    told(stage, token)


def test_a_withdrawal_is_on_record_with_all_that_it_covers(stage: Stage) -> None:
    withdraw(stage.broker, ISSUER, IDP_A, since=NOW - 600)

    record = stage.broker.records()[-1]
    assert record["decision"] == "permit"
    assert record["client_id"] == "operator"
    assert (record["party_kind"], record["party"]) == ("issuer", IDP_A)
    assert (record["issued_since"], record["issued_until"]) == (NOW - 600, NOW + LEEWAY)


@pytest.mark.requirement("RPL-03")
def test_a_withdrawal_that_cannot_be_kept_is_not_confirmed_either(stage: Stage) -> None:
    stage.broker.state.close()

    answer = withdraw(stage.broker, SUBJECT, "u1")

    assert (answer.error, answer.status) == ("temporarily_unavailable", "UNAVAILABLE")
    assert stage.broker.records()[-1]["decision"] == "deny"
