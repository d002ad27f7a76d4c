"""Agent, MCP server, broker and API: the whole chain over loopback, and what arrives at its end."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from broker.client import asgi
from broker.client.broker import Broker
from broker.client.credentials import Secret
from broker.client.patience import Patience
from broker.client.verify import TokenVerifier
from tests.client.served_mcp import (
    Caller,
    Downstream,
    ServedAt,
    behind_middleware,
    by_fastmcp,
    by_sdk,
    closing,
    serving,
)
from tests.client.whole_broker import WRITE, whole_broker
from tests.e2e.running import RunningBroker
from tests.e2e.setting import API, DESK, IDP, READ, SERVER, TICKETS, TICKETS_SECRET, login
from tests.e2e.vault import running_vault

OPENBAO = pytest.mark.openbao


async def _api(_scope: Any, _receive: Any, send: Any) -> None:
    """The API behind the server: it tells what it was told."""
    found = asgi.delegation()
    told = {
        "person": [found.person and found.person.sub, found.person and found.person.issuer],
        "mcp": [found.mcp_client, found.mcp_server, found.resource],
        "client": found.client_id,
        "actors": [actor.sub for actor in found.actors],
        "scopes": sorted(found.scopes),
        "token": found.token,
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def api_of(issuer: str) -> asgi.Verified:
    """The API, which takes what the broker signs for it with RS256."""
    verifier = TokenVerifier(issuer, API, algorithms=("RS256",), required_scopes=(READ,))
    return asgi.Verified(_api, verifier)


@pytest.fixture(scope="module", params=["embedded", pytest.param("openbao", marks=OPENBAO)])
def signing_broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    """A broker whose keys are its own, and one whose keys never leave an OpenBao."""
    if request.param == "embedded":
        yield request.getfixturevalue("running_broker")
        return
    with (
        running_vault(tmp_path_factory.mktemp("openbao")) as vault,
        whole_broker(tmp_path_factory.mktemp("broker"), keys=vault.keys()) as broker,
    ):
        yield broker


@pytest.fixture(scope="module")
def api(signing_broker: RunningBroker) -> Iterator[httpx2.AsyncBaseTransport]:
    """The way to the API, which is served on loopback under whatever name."""
    with serving(api_of(signing_broker.setting.issuer)) as address:
        yield ServedAt(address)


@pytest.fixture(scope="module", params=[by_sdk, by_fastmcp, behind_middleware])
def address(
    request: pytest.FixtureRequest,
    signing_broker: RunningBroker,
    api: httpx2.AsyncBaseTransport,
) -> Iterator[str]:
    """The MCP server, of either framework."""
    issuer = signing_broker.setting.issuer
    verifier = TokenVerifier(issuer, SERVER, required_scopes=("tickets:read",))
    # What is not answered in time would be asked again, and each question is on record.
    broker = Broker(issuer, Secret(TICKETS, TICKETS_SECRET), patience=Patience(deadline=60))
    downstream = Downstream(broker, API, READ, api)
    with serving(closing(request.param(verifier, downstream), downstream)) as running:
        yield running


def signed_in(broker: RunningBroker) -> str:
    """The token with which Ann's agent calls the server."""
    answer = httpx2.post(
        f"{broker.setting.issuer}/token", data=login(broker.setting), trust_env=False
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def test_the_whole_chain_arrives_at_the_api(address: str, signing_broker: RunningBroker) -> None:
    token = signed_in(signing_broker)

    text, is_error = Caller(address, lambda: token).call("contacts")

    assert not is_error, text
    told = json.loads(text)
    assert told["person"] == ["ann", IDP]
    assert told["mcp"] == [DESK, SERVER, API]
    assert told["client"] == TICKETS
    assert told["actors"] == [TICKETS, DESK]
    assert told["scopes"] == [READ]
    assert told["token"] != token


def test_eleven_calls_at_once_make_one_exchange(
    address: str, signing_broker: RunningBroker
) -> None:
    token = signed_in(signing_broker)
    before = exchanges(signing_broker)

    answers = Caller(address, lambda: token).call_at_once("contacts", times=11)

    tokens = {json.loads(text)["token"] for text, is_error in answers if not is_error}
    assert len(answers) == 11
    assert len(tokens) == 1
    assert len(exchanges(signing_broker)) == len(before) + 1


def exchanges(broker: RunningBroker) -> list[dict[str, Any]]:
    """The records of what was exchanged for the API."""
    return [one for one in broker.records() if one.get("resource") == API]


def test_a_server_tells_who_called_it_and_how(address: str, signing_broker: RunningBroker) -> None:
    token = signed_in(signing_broker)

    text, _ = Caller(address, lambda: token).call("whoami")

    assert text.startswith(f"ann by {DESK} at {DESK}, token ")


@pytest.mark.requirement("MCPRS-02")
def test_what_the_api_gets_is_refused_by_the_server_and_the_other_way_round(
    address: str, signing_broker: RunningBroker
) -> None:
    token = signed_in(signing_broker)
    text, _ = Caller(address, lambda: token).call("contacts")
    for_api = json.loads(text)["token"]

    at_server = httpx2.post(f"{address}/mcp", headers=bearing(for_api), json={}, trust_env=False)

    assert at_server.status_code == 401
    assert get_from_api(signing_broker, for_api) == 200
    assert get_from_api(signing_broker, token) == 401


@pytest.mark.parametrize(
    ("scope", "sentence"),
    [
        (WRITE, "insufficient_user_authentication: A stronger or fresher login of the user is"),
        ("crm.unknown", "invalid_scope: A requested scope is not defined for the resource."),
    ],
)
def test_the_model_reads_what_the_broker_refuses(
    address: str, signing_broker: RunningBroker, scope: str, sentence: str
) -> None:
    token = signed_in(signing_broker)

    text, is_error = Caller(address, lambda: token).call("contacts_with", scope=scope)

    assert is_error
    assert sentence in text
    decision = re.search(r"\(decision (\S+)\)", text)
    assert decision is not None
    assert decision[1] in [record["event_id"] for record in signing_broker.records()]


def test_an_injected_token_is_no_matter_of_the_models(signing_broker: RunningBroker) -> None:
    issuer = signing_broker.setting.issuer
    broker = Broker(issuer, Secret(TICKETS, TICKETS_SECRET))
    downstream = Downstream(broker, API, READ, httpx2.ASGITransport(api_of(issuer)))
    token = signed_in(signing_broker)
    app = by_fastmcp(TokenVerifier(issuer, SERVER), downstream)
    with serving(closing(app, downstream)) as address:
        caller = Caller(address, lambda: token)

        assert caller.tools()["contacts"].get("properties", {}) == {}
        text, is_error = caller.call("forbidden")

    assert is_error
    assert "invalid_scope: A requested scope is not defined for the resource." in text


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def get_from_api(broker: RunningBroker, token: str) -> int:
    """The status with which the API answers to a token."""
    transport = httpx2.ASGITransport(api_of(broker.setting.issuer))

    async def getting() -> int:
        async with httpx2.AsyncClient(transport=transport) as client:
            return (await client.get(API, headers=bearing(token))).status_code

    return asyncio.run(getting())
