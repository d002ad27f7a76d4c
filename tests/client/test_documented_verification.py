"""The programs on the page about verifying run as they stand there, and let nobody in without a token."""

import re
from typing import Any

import httpx2
import pytest

from broker.client import refusals as known
from broker.client.grpc_server import Verified
from broker.client.refusals import InsufficientLogin, InsufficientScope
from broker.client.resource import metadata_path
from tests.client.receiving import a_delegation
from tests.client.served_mcp import serving
from tests.docs.markdown import ROOT

_PAGE = ROOT / "docs" / "client.md"
_PART = re.compile(r"^## Verifying what comes in\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def programs() -> list[str]:
    """The programs of the section, in its order."""
    section = _PART.search(_PAGE.read_text(encoding="utf-8"))
    assert section is not None
    return _PROGRAM.findall(section[1])


def run(number: int) -> dict[str, Any]:
    """What a program leaves behind."""
    left: dict[str, Any] = {"__name__": "documented"}
    exec(compile(programs()[number], str(_PAGE), "exec"), left)  # noqa: S102 - it is our own page.
    return left


def test_every_program_runs() -> None:
    left = [run(number) for number in range(len(programs()))]

    assert [sorted(set(one) & {"app", "interceptor"}) for one in left] == [
        [],
        [],
        ["app"],
        ["app"],
        ["app"],
        ["app"],
        ["interceptor"],
    ]
    assert isinstance(left[6]["interceptor"], Verified)


def test_an_operation_demands_what_the_page_says() -> None:
    close_ticket = run(1)["close_ticket"]

    with pytest.raises(InsufficientScope):
        close_ticket(a_delegation())
    with pytest.raises(InsufficientLogin):
        close_ticket(a_delegation(scopes=frozenset({"tickets:read", "tickets:close"})))


@pytest.mark.parametrize(
    ("number", "path", "resource"),
    [
        (2, "/mcp", "https://tickets.mcp.example/mcp"),
        (3, "/mcp", "https://tickets.mcp.example/mcp"),
        (4, "/v2", "https://api.crm.example/v2"),
        (5, "/v2/contacts", "https://api.crm.example/v2"),
    ],
)
def test_every_application_of_the_page_is_protected(number: int, path: str, resource: str) -> None:
    host = {"Host": resource.split("/")[2]}
    with serving(run(number)["app"]) as address:
        refused = httpx2.get(address + path, headers=host, trust_env=False)
        metadata = httpx2.get(address + metadata_path(resource), headers=host, trust_env=False)

    assert refused.status_code == 401
    assert metadata_path(resource) in refused.headers["WWW-Authenticate"]
    assert metadata.json()["resource"] == resource


def test_every_refusal_on_the_page_exists() -> None:
    named = re.findall(r"^\| `(\w+)` \| \d{3} \|", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    kinds = {
        name
        for name, kind in vars(known).items()
        if isinstance(kind, type) and issubclass(kind, known.NotServed)
    }
    assert set(named) == kinds - {"NotServed"}
