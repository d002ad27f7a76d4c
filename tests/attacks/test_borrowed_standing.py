"""What others vouched for does not outlive them: workloads, other issuers' names of ours, tenants."""

from dataclasses import replace

import pytest

from broker.model import PartyKind, Resource
from tests.inquiries import told, untold, withdraw
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    AGENTS,
    API,
    IDP_A,
    NOW,
    RES_1,
    RES_2,
    SERVERS,
    TRUST_DOMAIN,
    Cast,
    Parameters,
    by_assertion,
    by_svid,
    exchange_parameters,
    good_access_token,
    good_id_jag,
    jwt_client,
    redeem_parameters,
)

READER = "mcp2-srv"


def svid_server() -> Cast:
    """Server one is a workload here; its API belongs to somebody who may ask about tokens for it."""
    cast = Cast()
    client = replace(cast.client("svid-agent"), groups=AGENTS | SERVERS)
    return (
        cast.with_resource(replace(cast.resource(RES_1), owner="svid-agent"))
        .with_resource(replace(cast.resource(API), owner=READER))
        .with_client(client)
    )


def exchange_by_svid(**claims: int) -> Parameters:
    return exchange_parameters(good_access_token()) | by_svid(**claims)


@pytest.mark.requirement("TEX-12", "CA-14")
def test_what_a_workload_exchanged_ends_with_its_own_token(staging: Staging) -> None:
    stage = staging(svid_server())
    issued = stage.grant(exchange_by_svid(exp=NOW + 20))
    assert issued.claims["exp"] == NOW + 20
    inputs = stage.broker.records()[-1]["inputs"]
    assert TRUST_DOMAIN in [one["issuer"] for one in inputs]


@pytest.mark.requirement("KEY-14", "CA-14")
def test_what_a_workload_exchanged_dies_with_its_trust_domain(staging: Staging) -> None:
    cast = svid_server()
    stage = staging(cast)
    token = stage.grant(exchange_by_svid()).token
    told(stage, token, READER)
    off = replace(cast.issuer(TRUST_DOMAIN), is_disabled=True)
    stage.broker.replace_cast(cast.with_issuer(off))
    untold(stage, token, READER, reason="issuer_disabled")


@pytest.mark.requirement("REV-06", "CA-14")
@pytest.mark.parametrize("grant", ["exchange", "redeem"])
def test_what_a_workload_got_dies_when_its_trust_domain_is_withdrawn(
    staging: Staging, grant: str
) -> None:
    cast = svid_server()
    if grant == "redeem":
        cast = cast.with_resource(replace(cast.resource(RES_1), owner=READER))
    stage = staging(cast)
    parameters = exchange_by_svid()
    if grant == "redeem":
        parameters = redeem_parameters(good_id_jag(client_id="svid-agent")) | by_svid()
    token = stage.grant(parameters).token
    told(stage, token, READER)
    withdraw(stage.broker, PartyKind.ISSUER, TRUST_DOMAIN)
    untold(stage, token, READER, reason="revoked")


def known_elsewhere(*, is_disabled: bool = False) -> Cast:
    """IDP-A calls our agent-x by its name here."""
    agent = jwt_client(
        "agent-x",
        profile="ai_agent",
        groups=AGENTS,
        issuer_client_ids={IDP_A: "agent-x"},
        is_disabled=is_disabled,
    )
    return Cast().with_client(agent)


@pytest.mark.requirement("CAU-15", "TEX-16")
def test_a_client_that_is_off_does_not_go_on_through_another_issuers_token(
    staging: Staging,
) -> None:
    stage = staging(known_elsewhere(is_disabled=True))
    stage.refuse(stage.good(), error="invalid_request", reason="principal_disabled")


@pytest.mark.requirement("REV-06")
@pytest.mark.parametrize(
    ("kind", "name"), [(PartyKind.CLIENT, "agent-x"), (PartyKind.MCP_SERVER, RES_1)]
)
def test_another_issuers_token_from_before_a_withdrawal_is_not_exchanged_after_it(
    staging: Staging, kind: PartyKind, name: str
) -> None:
    stage = staging(known_elsewhere())
    before = good_access_token()
    withdraw(stage.broker, kind, name)
    stage.broker.clock.at = NOW + 60
    later = by_assertion("mcp1-srv", iat=NOW + 60, exp=NOW + 100)
    stage.refuse(exchange_parameters(before) | later, error="invalid_request", reason="revoked")


def tenants_apart(tenants: frozenset[str] | None) -> Cast:
    """IDP-A has several tenants; t2 is registered here for somebody else."""
    cast = Cast()
    issuer = replace(cast.issuer(IDP_A), is_multi_tenant=True, subject_prefix="a|", tenants=tenants)
    theirs = Resource(RES_2, cast.resource(RES_2).scopes, owner="mcp-t2", tenant="t2")
    return (
        cast.with_issuer(issuer)
        .with_client(jwt_client("mcp-t2", groups=SERVERS, tenant="t2"))
        .with_resource(theirs)
        .with_resource(replace(cast.resource(API), tenant="t2"))
    )


@pytest.mark.requirement("sec:ACT-11", "WIF-05")
def test_an_issuer_names_no_tenant_but_its_own(staging: Staging) -> None:
    stage = staging(tenants_apart(frozenset({"t1"})))
    claimed = good_access_token(aud=RES_2, tenant="t2")
    stage.refuse(
        exchange_parameters(claimed) | by_assertion("mcp-t2"),
        error="invalid_request",
        reason="subject_unresolved",
    )


def test_a_tenant_that_is_listed_is_its_own(staging: Staging) -> None:
    stage: Stage = staging(tenants_apart(frozenset({"t2"})))
    claimed = good_access_token(aud=RES_2, tenant="t2")
    stage.grant(exchange_parameters(claimed) | by_assertion("mcp-t2"))
