"""Attacks on revocation (RFC 7009): who may withdraw what, and what goes with it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.model import OneTimeId
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN
from tests.harness import Answer, decode_claims
from tests.inquiries import (
    about,
    asking,
    exchanged,
    first_token,
    login,
    revoke,
    revoke_nothing,
    signed_by_broker,
    told,
    untold,
)
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    DEEP,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    WEB_SECRET,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    client_parameters,
    deep_cast,
    exchange_parameters,
    good_access_token,
    good_assertion,
    good_id_jag,
    good_id_token,
)

IR = "invalid_request"


def three_hops(stage: Stage) -> tuple[str, str, str]:
    """The agent's token, what its server made of it, and what the server behind that made of it."""
    first = first_token(stage)
    second = stage.grant(exchanged(first, "mcp1-srv")).token
    third = stage.grant(exchanged(second, "mcp2-srv", resource=DEEP)).token
    return first, second, third


def jti(token: str) -> str:
    return str(decode_claims(token)["jti"])


@pytest.mark.requirement("REV-01", "REV-02", "RPL-07", "INTRO-02")
def test_a_withdrawn_token_is_dead_at_once(stage: Stage) -> None:
    token, other = first_token(stage), first_token(stage)
    told(stage, token)

    revoke(stage, token, "agent-x")

    untold(stage, token, reason="revoked")
    stage.refuse(exchanged(token, "mcp1-srv"), error=IR, reason="revoked")
    told(stage, other)
    stage.grant(exchanged(other, "mcp1-srv"))


def test_whoever_presents_a_withdrawn_token_is_on_record_with_it_and_nothing_else_is_noted(
    stage: Stage,
) -> None:
    token, spoilt = first_token(stage), first_token(stage)[:-4] + "AAAA"
    revoke(stage, token, "agent-x")

    stage.refuse(exchanged(token, "mcp1-srv"), error=IR, reason="revoked")
    refusal = stage.broker.records()[-1]
    (noted,) = refusal["inputs"]
    assert (noted["slot"], noted["jti"], noted["issuer"]) == ("subject", jti(token), ISS)
    assert refusal["subject"] == decode_claims(token)["sub"]
    stage.refuse(exchanged(spoilt, "mcp1-srv"), error=IR, reason="sig_invalid")
    assert "inputs" not in stage.broker.records()[-1]


def test_a_token_may_be_withdrawn_again(stage: Stage) -> None:
    token = first_token(stage)

    revoke(stage, token, "agent-x")
    revoke(stage, token, "agent-x")

    untold(stage, token, reason="revoked")


@pytest.mark.requirement("RPL-10", "REV-01")
@pytest.mark.parametrize("by", ["mcp1-srv", "mcp2-srv", "agent-n", "gateway", "operator"])
def test_nobody_withdraws_what_was_issued_to_another(stage: Stage, by: str) -> None:
    """Not even the server that the token is for, nor an operator, who has another way."""
    token = first_token(stage)

    asking(stage, "revoke").refuse(
        about(token, by), error="unauthorized_client", reason="revoke_not_owner"
    )

    told(stage, token)
    stage.grant(exchanged(token, "mcp1-srv"))


@pytest.mark.requirement("REV-01", "GRP-04")
@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        ({}, "client_auth_missing"),
        ({"client_id": "agent-x"}, "client_auth_missing"),
        ({"client_id": "agent-x", "client_secret": "guess"}, "auth_method_refused"),
        (by_assertion("off-srv"), "client_disabled"),
        (by_assertion("agent-x", iat=NOW - 99, exp=NOW - 31), "token_expired"),
    ],
)
def test_a_stranger_withdraws_nothing(
    stage: Stage, credential: dict[str, str], reason: str
) -> None:
    token = first_token(stage)

    asking(stage, "revoke").refuse(
        {"token": token, **credential}, error="invalid_client", reason=reason
    )

    told(stage, token)


@pytest.mark.requirement("RPL-08", "REV-05")
def test_a_token_tells_from_which_tokens_it_derives(staging: Staging) -> None:
    first, second, third = three_hops(staging(deep_cast()))

    assert "lineage" not in decode_claims(first)[MCP_CLAIM]
    assert decode_claims(second)[MCP_CLAIM]["lineage"] == [jti(first)]
    assert decode_claims(third)[MCP_CLAIM]["lineage"] == [jti(first), jti(second)]


@pytest.mark.requirement("RPL-08", "REV-05")
@pytest.mark.parametrize(
    ("number", "by", "reasons"),
    [
        (0, "agent-x", ("revoked", "ancestor_revoked", "ancestor_revoked")),
        (1, "mcp1-srv", (None, "revoked", "ancestor_revoked")),
        (2, "mcp2-srv", (None, None, "revoked")),
    ],
)
def test_with_a_token_goes_all_that_derives_from_it_and_nothing_else(
    staging: Staging, number: int, by: str, reasons: tuple[str | None, ...]
) -> None:
    stage = staging(deep_cast())
    chain, other = three_hops(stage), three_hops(stage)

    revoke(stage, chain[number], by)

    holders = ("mcp1-srv", "mcp2-srv", "mcp2-srv")
    for token, holder, reason in zip(chain, holders, reasons, strict=True):
        again = exchanged(token, holder, resource=DEEP, scope=None)
        if reason is None:
            told(stage, token, holder)
            stage.ask(again)
        else:
            untold(stage, token, holder, reason=reason)
            stage.refuse(again, error=IR, reason=reason)
    for token, holder in zip(other, holders, strict=True):
        told(stage, token, holder)


@pytest.mark.requirement("RPL-08")
def test_a_narrowed_token_goes_with_the_one_it_was_narrowed_from(stage: Stage) -> None:
    first = first_token(stage)
    narrowed = stage.grant(exchanged(first, "agent-x", resource=RES_1, scope="a:read")).token
    told(stage, narrowed)

    revoke(stage, first, "agent-x")

    untold(stage, narrowed, reason="ancestor_revoked")


@pytest.mark.requirement("RPL-08", "sec:ACT-05")
def test_an_actor_token_goes_with_the_one_it_derives_from(stage: Stage) -> None:
    machine = decode_claims(stage.grant(client_parameters()).token)
    claims = {**machine, "aud": ISS, MCP_CLAIM: {"lineage": ["its-parent"]}}
    token = signed_by_broker(stage, claims)

    def acting() -> Parameters:
        acting = {"actor_token": token, "actor_token_type": TOKEN_TYPE_ACCESS_TOKEN}
        return {**login(), **acting}

    stage.grant(acting())
    stage.broker.state.revoke("its-parent", NOW + 300)

    stage.refuse(acting(), error=IR, reason="actor_revoked")


@pytest.mark.requirement("RPL-08")
def test_an_exchange_that_was_under_way_leaves_nothing_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The subject token is withdrawn after it was verified and before the new one is signed."""
    first, state = first_token(stage), stage.broker.state
    spend = state.spend

    def meanwhile(one_time_ids: Sequence[OneTimeId]) -> OneTimeId | None:
        state.revoke(jti(first), NOW + 300)
        return spend(one_time_ids)

    with monkeypatch.context() as patched:
        patched.setattr(state, "spend", meanwhile)
        second = stage.grant(exchanged(first, "mcp1-srv")).token

    untold(stage, second, reason="ancestor_revoked")


@pytest.mark.requirement("RPL-08", "CLM-13")
def test_another_issuers_word_on_lineage_is_not_taken(stage: Stage) -> None:
    """Neither to have a token die with somebody else's, nor to be refused for its form."""
    victim = first_token(stage)
    for lineage in ([jti(victim)], "nonsense"):
        foreign = good_access_token(**{MCP_CLAIM: {"lineage": lineage}})
        issued = stage.grant(exchanged(foreign, "mcp1-srv"))
        assert "lineage" not in issued.claims[MCP_CLAIM]


@pytest.mark.requirement("RPL-08", "TEX-14")
def test_no_token_has_more_than_sixty_four_ancestors(stage: Stage) -> None:
    claims = decode_claims(first_token(stage))

    def after(number: int) -> Parameters:
        statements = {**claims[MCP_CLAIM], "lineage": [f"jti-{one}" for one in range(number)]}
        token = signed_by_broker(stage, {**claims, MCP_CLAIM: statements})
        return exchanged(token, "mcp1-srv")

    last = stage.grant(after(63)).claims[MCP_CLAIM]["lineage"]
    assert len(last) == 64
    assert last[-1] == claims["jti"]
    stage.attack(after(64), error=IR, reason="chain_too_deep")
    stage.attack(after(65), error=IR, reason="claim_malformed")


@pytest.mark.requirement("RPL-08")
@pytest.mark.parametrize(
    "statements",
    [
        {"lineage": []},
        {"lineage": "jti-1"},
        {"lineage": {"jti-1": 1}},
        {"lineage": None},
        {"lineage": [1]},
        {"lineage": [None]},
        {"lineage": [""]},
        {"lineage": ["a\u200b"]},
        {"lineage": [["jti-1"]]},
        {"heritage": []},
        {"heritage": "client"},
        {"heritage": {"nobody": ["a"]}},
        {"heritage": {"client": "a"}},
        {"heritage": {"client": []}},
        {"heritage": {"client": [1]}},
        {"heritage": {"client": ["a"] * 129}},
    ],
    ids=str,
)
def test_a_statement_that_the_broker_cannot_have_made_is_refused(
    stage: Stage, statements: dict[str, Any]
) -> None:
    claims = decode_claims(first_token(stage))
    own = {**claims[MCP_CLAIM], **statements}
    token = signed_by_broker(stage, {**claims, MCP_CLAIM: own})

    stage.attack(exchanged(token, "mcp1-srv"), error=IR, reason="claim_malformed")
    untold(stage, token, reason="claim_malformed")


def _of_another_key(stage: Stage) -> str:
    header, payload, _ = first_token(stage).split(".")
    return f"{header}.{payload}.{'A' * 86}"


def _expired(stage: Stage) -> str:
    claims = decode_claims(first_token(stage)) | {"iat": NOW - 600, "exp": NOW - 300}
    return signed_by_broker(stage, claims)


NOTHING: Mapping[str, tuple[Callable[[Stage], str], str]] = {
    "garbage": (lambda _: "garbage", "malformed_token"),
    "enormous": (lambda _: "e" * 20_000, "token_too_large"),
    "of another key": (_of_another_key, "sig_invalid"),
    "expired": (_expired, "token_expired"),
    "of another issuer": (lambda _: good_access_token(), "iss_unknown"),
    "a foreign id-jag": (lambda _: good_id_jag(), "wrong_token_type"),
    "an id token": (lambda _: good_id_token(), "wrong_token_type"),
    "an assertion": (lambda _: good_assertion("agent-x"), "wrong_token_type"),
    "an id-jag of no key": (
        lambda stage: stage.grant(assertion_request()).token[:-4] + "AAAA",
        "wrong_token_type",
    ),
}


@pytest.mark.requirement("ITR-07", "REV-02")
@pytest.mark.parametrize("what", NOTHING)
def test_what_is_nothing_to_withdraw_is_answered_like_what_was_withdrawn(
    stage: Stage, what: str
) -> None:
    make, reason = NOTHING[what]
    done = stage.face.revoke(about(first_token(stage), "agent-x"))

    answer = revoke_nothing(stage, make(stage), "agent-x", reason=reason)

    assert _without_id(answer) == _without_id(done)


def _without_id(answer: Answer) -> str:
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", answer.everything)


@pytest.mark.requirement("REV-03")
@pytest.mark.parametrize("by", ["agent-x", "agent-n"])
def test_an_assertion_of_identity_cannot_be_withdrawn(stage: Stage, by: str) -> None:
    """Where it is redeemed, nobody would know of it."""
    token = stage.grant(assertion_request()).token

    asking(stage, "revoke").refuse(
        about(token, by), error="unsupported_token_type", reason="not_revocable"
    )


@pytest.mark.requirement("REV-04")
@pytest.mark.parametrize("hint", ["refresh_token", "id_token", "nonsense"])
def test_a_wrong_hint_changes_nothing(stage: Stage, hint: str) -> None:
    token = first_token(stage)

    assert stage.face.revoke(about(token, "agent-x", token_type_hint=hint)).error == ""

    untold(stage, token, reason="revoked")


@pytest.mark.requirement("REV-01")
@pytest.mark.parametrize("token", [None, "", "  "])
def test_without_a_token_there_is_nothing_to_withdraw(stage: Stage, token: str | None) -> None:
    parameters = {name: value for name, value in about("x").items() if name != "token"}
    if token is not None:
        parameters["token"] = token

    asking(stage, "revoke").refuse(parameters, error=IR, reason="param_missing")


@pytest.mark.requirement("REV-02")
def test_a_token_withdrawn_while_its_subject_was_switched_off_stays_dead(
    staging: Staging,
) -> None:
    stage = staging(Cast())
    token, other = first_token(stage), first_token(stage)
    stage.broker.replace_cast(replace(Cast(), disabled_subjects=frozenset({"u1"})))

    revoke(stage, token, "agent-x")

    stage.broker.replace_cast(Cast())
    untold(stage, token, reason="revoked")
    told(stage, other)


def test_a_bound_token_is_withdrawn_without_its_key(stage: Stage) -> None:
    """Whoever lost the key needs this most."""
    cnf = {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
    token = signed_by_broker(stage, decode_claims(first_token(stage)) | {"cnf": cnf})
    told(stage, token)

    revoke(stage, token, "agent-x")

    untold(stage, token, reason="revoked")


@pytest.mark.requirement("CAU-07")
def test_an_assertion_that_withdrew_once_is_used_up_everywhere(stage: Stage) -> None:
    credential = by_assertion("agent-x")
    first, second = first_token(stage), first_token(stage)
    assert stage.face.revoke({"token": first, **credential}).error == ""

    for method in ("revoke", "introspect"):
        asking(stage, method).refuse(
            {"token": second, **credential}, error="invalid_client", reason="replay"
        )
    stage.refuse(client_parameters() | credential, error="invalid_client", reason="replay")

    told(stage, second)


@pytest.mark.requirement("RPL-03", "REV-03")
def test_a_withdrawal_that_cannot_be_kept_is_not_confirmed(stage: Stage) -> None:
    by_secret: Parameters = {"client_id": "web-s", "client_secret": WEB_SECRET}
    foreign = good_access_token(aud="https://web.test/mcp")
    token = stage.grant(exchange_parameters(foreign) | by_secret).token
    stage.broker.state.close()

    for credential, reason in (
        (by_secret, "revocation_unavailable"),
        (by_assertion("agent-x"), "replay_store_unavailable"),
    ):
        asked = token if credential is by_secret else "garbage"
        asking(stage, "revoke").refuse(
            {"token": asked, **credential}, error="temporarily_unavailable", reason=reason
        )


@pytest.mark.requirement("RPL-11")
def test_a_revocation_of_one_id_touches_no_party_and_no_assertion_of_that_name(
    stage: Stage,
) -> None:
    """An attacker who could choose the id of his own token would choose a victim's name for it."""
    claims = decode_claims(first_token(stage))
    victims = ("u1", "agent-x", "mcp1-srv", RES_1, API, ISS, "jti-of-an-assertion")
    for name in victims:
        revoke(stage, signed_by_broker(stage, claims | {"jti": name}), "agent-x")

    token = first_token(stage)
    told(stage, token)
    stage.grant(exchanged(token, "mcp1-srv") | by_assertion("mcp1-srv", jti="jti-of-an-assertion"))
