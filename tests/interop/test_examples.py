"""The examples do what their page says, with the official SDK as it is."""

import re

import pytest

from tests.docs.markdown import ROOT
from tests.e2e.running import read_records
from tests.interop.stage_of_examples import KEY_FILES, Examples

_PAGE = (ROOT / "examples" / "README.md").read_text()


def drawn(said: str, *, of: str) -> str:
    """The chain that arrived at the API, as the agent printed it, without what differs."""
    lines = said.partition(f"     {of}   known")[2].splitlines()[1:6]
    # Seconds of the two minutes may be gone before they are printed.
    return re.sub(r"\b1m5\ds left", "2m00s left", "\n".join(line.rstrip() for line in lines))


@pytest.mark.requirement("CC-02", "CC-04", "CA-07", "META-04")
@pytest.mark.parametrize("how", ["secret", "key"])
def test_an_agent_of_the_official_sdk_gets_its_own_token_and_calls_a_tool(
    examples: Examples, how: str
) -> None:
    said = examples.agent("examples/agents/client_credentials.py", how)

    assert said.startswith("client:agent-nightly through agent-nightly, may pages.read\n")
    assert drawn(examples.usual(said), of="client:agent-nightly") in _PAGE


@pytest.mark.requirement("IDJAG-I-03", "IDJAG-I-18", "IDJAG-R-01", "META-07")
def test_an_enterprises_user_reaches_the_server_through_two_brokers(examples: Examples) -> None:
    said = examples.agent("examples/agents/enterprise_managed_authorization.py")

    assert said.startswith("acme|ann through desk-at-wiki, may pages.read\n")
    assert drawn(examples.usual(said), of="acme|ann") in _PAGE
    issued = read_records(examples.folder / ".broker-examples" / "acme" / "audit")
    redeemed = read_records(examples.folder / ".broker-examples" / "wiki" / "audit")
    # A client that waits too long for an answer asks again, and leaves the first assertion unused.
    assertions = {one["jti"] for one in issued if one.get("authorization_server") == examples.wiki}
    assert assertions & {
        one["jti"] for record in redeemed for one in record.get("inputs", ()) if "jti" in one
    }


@pytest.mark.requirement("MCPRS-02", "TX-28")
def test_the_same_server_with_fastmcp_calls_the_api_for_whoever_calls_it(
    examples: Examples,
) -> None:
    with examples.in_place_of_the_server(str(examples.folder / "examples" / "fastmcp_server.py")):
        said = examples.agent("examples/agents/enterprise_managed_authorization.py")

    assert examples.usual(said).splitlines() == [
        "acme|ann through desk-at-wiki, may pages.read",
        "mcp-wiki for acme|ann at http://127.0.0.1:18962/index",
    ]


def test_the_key_is_made_as_the_page_says() -> None:
    command = " ".join(("broker client key", *KEY_FILES))

    assert command in re.sub(r"\s*\\\n\s*", " ", _PAGE)


def test_every_program_of_the_examples_is_named_on_their_page() -> None:
    programs = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "examples").rglob("*.py")
        # What is in deploy/ has a page of its own, docs/deployment.md.
        if '__name__ == "__main__"' in path.read_text() and "deploy" not in path.parts
    }
    named = set(re.findall(r"python (examples/\S+\.py)", _PAGE))

    assert programs == named
