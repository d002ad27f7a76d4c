"""What an operator switches off ends at once, for every way to a token that leads over it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    IDP_A,
    IDP_B,
    RAS,
    RES_1,
    TRUST_DOMAIN,
    WIKI,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    by_svid,
    client_parameters,
    exchange_parameters,
    good_access_token,
    redeem_parameters,
    workload_parameters,
)
from tests.world_policy import load_world_policy

Refusal = tuple[str, str]
Switch = Callable[[Cast], Cast]

CLIENT_OFF = ("invalid_client", "client_disabled")
TARGET_OFF = ("invalid_target", "target_refused")


def client(client_id: str) -> Switch:
    return lambda cast: cast.with_client(replace(cast.client(client_id), is_disabled=True))


def issuer(name: str) -> Switch:
    return lambda cast: cast.with_issuer(replace(cast.issuer(name), is_disabled=True))


def resource(name: str) -> Switch:
    return lambda cast: cast.with_resource(replace(cast.resource(name), is_disabled=True))


def subject(sub: str) -> Switch:
    return lambda cast: replace(cast, disabled_subjects=frozenset({sub}))


def server(cast: Cast) -> Cast:
    return cast.with_server(replace(cast.server(RAS), is_disabled=True))


def wiki(cast: Cast) -> Cast:
    """A resource behind another authorization server."""
    behind = tuple(replace(one, is_disabled=True) for one in cast.server(RAS).resources)
    assert [one.resource for one in behind] == [WIKI]
    return cast.with_server(replace(cast.server(RAS), resources=behind))


@dataclass(frozen=True)
class Way:
    """A way to a token: its good request, its permit, and all that it leads over."""

    request: Callable[[], Parameters]
    permit: str
    over: dict[str, tuple[Switch, Refusal]] = field(default_factory=dict)


WAYS = {
    "exchange": Way(
        lambda: exchange_parameters(good_access_token()) | by_assertion("mcp1-srv"),
        "server-one-reaches-the-api",
        {
            "client": (client("mcp1-srv"), CLIENT_OFF),
            "issuer": (issuer(IDP_A), ("invalid_request", "issuer_disabled")),
            "server": (resource(RES_1), ("invalid_request", "subject_not_for_caller")),
            "target": (resource(API), TARGET_OFF),
            "subject": (subject("u1"), ("invalid_request", "principal_disabled")),
        },
    ),
    "client_credentials": Way(
        client_parameters,
        "agents-get-their-own-tokens",
        {
            "client": (client("agent-x"), CLIENT_OFF),
            "target": (resource(RES_1), TARGET_OFF),
            "subject": (subject("client:agent-x"), ("unauthorized_client", "principal_disabled")),
        },
    ),
    "jwt_bearer": Way(
        redeem_parameters,
        "agents-redeem-assertions",
        {
            "client": (client("agent-x"), CLIENT_OFF),
            "issuer": (issuer(IDP_A), ("invalid_grant", "issuer_disabled")),
            "target": (resource(RES_1), ("invalid_grant", "target_unknown")),
            "subject": (subject("u1"), ("invalid_grant", "principal_disabled")),
        },
    ),
    "id_jag": Way(
        assertion_request,
        "agents-get-assertions-for-the-wiki",
        {
            "client": (client("agent-x"), CLIENT_OFF),
            "issuer": (issuer(IDP_A), ("invalid_request", "issuer_disabled")),
            "server": (server, ("invalid_target", "jag_audience")),
            "target": (wiki, TARGET_OFF),
            "subject": (subject("u1"), ("invalid_request", "principal_disabled")),
        },
    ),
    "workload": Way(
        workload_parameters,
        "agents-get-their-own-tokens",
        {
            "client": (client("worker"), ("invalid_grant", "client_disabled")),
            "issuer": (issuer(IDP_B), ("invalid_grant", "issuer_disabled")),
            "target": (resource(RES_1), TARGET_OFF),
            "subject": (subject("client:worker"), ("unauthorized_client", "principal_disabled")),
        },
    ),
    "svid": Way(
        lambda: client_parameters(**by_svid()),
        "agents-get-their-own-tokens",
        {
            "client": (client("svid-agent"), CLIENT_OFF),
            "issuer": (issuer(TRUST_DOMAIN), ("invalid_client", "issuer_disabled")),
            "target": (resource(RES_1), TARGET_OFF),
        },
    ),
}


@pytest.mark.requirement("KEY-14", "CAU-15", "JAG-17")
@pytest.mark.parametrize(
    ("way", "switch"), [(way, switch) for way, one in WAYS.items() for switch in one.over]
)
def test_what_is_switched_off_ends_every_way_over_it(stage: Stage, way: str, switch: str) -> None:
    request, (throw, (error, reason)) = WAYS[way].request, WAYS[way].over[switch]
    stage.grant(request())
    stage.broker.replace_cast(throw(Cast()))
    stage.refuse(request(), error=error, reason=reason)

    stage.broker.replace_cast(Cast())
    stage.grant(request())


@pytest.mark.requirement("KEY-14", "CAU-15")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_switched_off_elsewhere_ends_nothing_here(stage: Stage, way: str) -> None:
    cast = Cast()
    for other in (
        client("agent-n"),
        issuer("https://idp-t2.test"),
        resource("https://mcp2.test/mcp"),
        subject("u2"),
    ):
        cast = other(cast)
    stage.broker.replace_cast(cast)

    stage.grant(WAYS[way].request())


@pytest.mark.requirement("POL-05")
@pytest.mark.parametrize("way", WAYS)
def test_a_permit_that_is_switched_off_permits_nothing(staging: Staging, way: str) -> None:
    permit = WAYS[way].permit
    stage = staging(Cast(), engine=load_world_policy(disabled=frozenset({permit})))
    stage.refuse(WAYS[way].request(), error="invalid_target", reason="policy_no_permit")
    for other in (one for one in WAYS.values() if one.permit != permit):
        stage.grant(other.request())


@pytest.mark.requirement("KEY-14", "CAU-15")
@pytest.mark.parametrize(
    "switch", [client("agent-x"), resource(RES_1), subject("client:agent-x")], ids=range(3)
)
def test_a_token_that_was_issued_before_does_not_count_any_more(
    stage: Stage, switch: Switch
) -> None:
    token = stage.grant(client_parameters()).token

    def ask() -> object:
        return stage.face.introspect({"token": token, **by_assertion("gateway")}).fields["active"]

    assert ask() is True
    stage.broker.replace_cast(switch(Cast()))
    assert ask() is False
    stage.broker.replace_cast(Cast())
    assert ask() is True
