"""The programs on the page about asking the broker do what stands there, with a real broker."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import pytest

from broker import client
from broker.client.current import reset_current, set_current
from tests.client.whole_broker import CALENDAR, write_jwk
from tests.docs.markdown import ROOT
from tests.e2e.running import RunningBroker
from tests.e2e.setting import API, READ, TICKETS, TICKETS_SECRET, subject_token
from tests.harness import decode_claims
from tests.idp import signer

_PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
_PART = re.compile(
    r"^## (?:Asking the broker|Tokens for what you call)\n(.*?)(?=^## |\Z)",
    re.DOTALL | re.MULTILINE,
)
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAMS = [program for part in _PART.findall(_PAGE) for program in _PROGRAM.findall(part)]


class Api(httpx2.AsyncBaseTransport):
    """What is at the documented address of the API."""

    def __init__(self) -> None:
        self.asked: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return httpx2.Response(200, json=["Bea"])


def run(number: int, **instead: str) -> dict[str, Any]:
    """What a program leaves behind, with some of its words replaced."""
    text = PROGRAMS[number]
    for old, new in instead.items():
        assert old in text
        text = text.replace(old, new)
    left: dict[str, Any] = {"__name__": "documented"}
    exec(compile(text, "docs/client.md", "exec"), left)  # noqa: S102 - it is our own page.
    return left


def test_a_token_is_exchanged_as_the_page_says(
    running_broker: RunningBroker, tmp_path: Path
) -> None:
    key = write_jwk(tmp_path / "key.json", signer(TICKETS))
    instead = {
        "https://broker.example": running_broker.setting.issuer,
        "/etc/tickets/key.json": str(key),
    }

    token = asyncio.run(run(0, **instead)["crm_token"](subject_token()))

    assert decode_claims(token.access_token)["aud"] == API
    assert token.scopes == {READ}


def test_several_tokens_come_at_once_as_the_page_says(running_broker: RunningBroker) -> None:
    setting = running_broker.setting
    instead = {
        "https://broker.example": setting.issuer,
        "the client's secret": TICKETS_SECRET,
        "broker.example:8443": f"127.0.0.1:{setting.ports.grpc}",
    }

    crm, calendar = asyncio.run(run(1, **instead)["for_the_meeting"](subject_token()))

    assert decode_claims(crm.access_token)["aud"] == API
    assert decode_claims(calendar.access_token)["aud"] == CALENDAR
    made = {decode_claims(one.access_token)["jti"] for one in (crm, calendar)}
    records = [one for one in running_broker.records() if one.get("jti") in made]
    assert [one["group_number"] for one in records] == [1, 2]
    assert len({one["group"] for one in records}) == 1


def test_an_http_client_bears_tokens_as_the_page_says(running_broker: RunningBroker) -> None:
    instead = {
        "https://broker.example": running_broker.setting.issuer,
        "the client's secret": TICKETS_SECRET,
    }
    api = Api()

    async def call() -> object:
        left = run(2, **instead)
        left["crm"]._transport = api
        async with left["broker"], left["crm"]:
            return await left["contacts"]()

    handle = set_current(subject_token())
    found = asyncio.run(call())
    reset_current(handle)

    (request,) = api.asked
    assert found == ["Bea"]
    assert str(request.url) == f"{API}/contacts"
    assert decode_claims(request.headers["Authorization"].split()[1])["aud"] == API


def test_a_channel_is_opened_as_the_page_says() -> None:
    async def connect() -> None:
        left = run(3)
        async with left["broker"], left["connect"]() as channel:
            assert isinstance(channel, grpc.aio.Channel)

    asyncio.run(connect())


def test_every_program_of_the_page_is_run_here() -> None:
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize(
    ("pattern", "base"),
    [
        (r"^\| `(\w+)` \| [A-Z]", client.BrokerError),
        (r"^\| `(\w+)\([^|]*\)` \|", object),
    ],
)
def test_what_the_tables_name_is_there(pattern: str, base: type) -> None:
    named = re.findall(pattern, "".join(_PART.findall(_PAGE)), re.MULTILINE)
    found = {name: getattr(client, name) for name in named if hasattr(client, name)}

    assert found
    assert all(issubclass(kind, base) for kind in found.values())
    if base is client.BrokerError:
        errors = {n for n in client.__all__ if _is_error(getattr(client, n))}
        assert set(found) == errors - {"BrokerError"}


def test_every_method_in_the_table_is_there_and_no_other_is() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", "".join(_PART.findall(_PAGE)), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    methods = {name for name in vars(client.SyncBroker) if not name.startswith("_")} - {"close"}

    assert methods <= named


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, client.BrokerError)
