"""The program on the page about what is withdrawn runs as it stands there."""

import asyncio
import re
from typing import Any

import pytest

from broker.client.refusals import InvalidToken
from broker.errors import Reason
from tests.client.key_server import running_key_server
from tests.client.receiving import BROKER_KEY, NOW, good_token
from tests.docs.markdown import ROOT
from tests.rpc.listening import Streaming
from tests.world import WEB_SECRET

_PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
_PROGRAM = re.compile(
    r"^## Knowing what is withdrawn\n.*?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


def program(issuer: str, streams: str) -> dict[str, Any]:
    """What the program leaves behind when the broker is at these addresses."""
    found = _PROGRAM.search(_PAGE)
    assert found is not None
    text = found[1].replace("https://broker.example", issuer)
    text = text.replace("broker.example:8444", streams)
    text = text.replace("mcp-tickets", "web-s").replace("the client's secret", WEB_SECRET)
    left: dict[str, Any] = {"__name__": "documented"}
    exec(compile(text, "docs/client.md", "exec"), left)  # noqa: S102 - it is our own page.
    left["verifier"].clock = lambda: NOW
    return left


def test_the_program_verifies_tokens_and_refuses_what_is_withdrawn() -> None:
    with running_key_server() as server, Streaming().running() as streaming:
        server.publish(BROKER_KEY.jwk)
        streaming.state.revoke("T-1", NOW + 300)
        with streaming.listening() as listener:
            # What is withdrawn is known to whoever comes now.
            while not listener.next().revocations:
                pass
        left = program(server.issuer, f"127.0.0.1:{streaming.port}")

        served = asyncio.run(left["serve"](good_token(server.issuer, jti="T-2")))
        with pytest.raises(InvalidToken) as refused:
            asyncio.run(left["serve"](good_token(server.issuer)))

    assert served.subject == "ann"
    assert refused.value.reason is Reason.REVOKED
