"""Clients in TypeScript: the official SDK and OAuth libraries, where node and their packages are at hand."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.interop.stage_of_examples import Examples

_FOLDER: Final = Path(__file__).with_name("typescript")
# ``npm install`` in the folder puts them there; a place that holds them already can be named.
_PACKAGES: Final = Path(os.environ.get("BROKER_NODE_MODULES", _FOLDER / "node_modules"))
_NODE: Final = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(_NODE is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (
            (_PACKAGES / "@modelcontextprotocol").is_dir()
            and (_PACKAGES / "openid-client").is_dir()
        ),
        reason="the clients are not installed: npm install in tests/interop/typescript",
    ),
]

NIGHTLY: Final = "client:agent-nightly through agent-nightly, may pages.read"
ANN: Final = "acme|ann through desk-at-wiki, may pages.read"


@pytest.mark.requirement("CC-02", "CA-08", "IDJAG-I-18", "IDJAG-R-01", "META-04")
@pytest.mark.parametrize(
    ("version", "how", "expected"),
    [
        ("1", "secret", NIGHTLY),
        ("1", "key", NIGHTLY),
        ("2", "secret", NIGHTLY),
        ("2", "key", NIGHTLY),
        ("2", "enterprise", ANN),
    ],
)
def test_an_agent_of_the_typescript_sdk_calls_a_tool(
    examples: Examples, tmp_path: Path, version: str, how: str, expected: str
) -> None:
    lines = _run("agent.mjs", version, how, examples=examples, folder=tmp_path)

    assert lines == [expected]


@pytest.mark.requirement("CC-02", "CC-03", "CA-08", "META-04", "IDJAG-I-18", "IDJAG-R-01", "AT-01")
@pytest.mark.parametrize("library", ["openid-client", "oauth4webapi"])
def test_a_general_oauth_library_has_every_grant(
    examples: Examples, tmp_path: Path, library: str
) -> None:
    lines = _run("oauth.mjs", library, examples=examples, folder=tmp_path)

    assert lines == [
        "basic: client:agent-nightly, may pages.read",
        "post: client:agent-nightly, may pages.read",
        "key: client:agent-nightly, may pages.read",
        "bound: dpop, client:agent-nightly, may pages.read",
        "assertion: n_a, urn:ietf:params:oauth:token-type:id-jag",
        "redeemed: acme|ann, may pages.read",
        "again: 400 invalid_grant",
        "exchanged: acme|ann through mcp-wiki, may index.search",
        "too much: 400 invalid_scope",
        "introspected: true acme|ann",
        'revoked: {"active":false}',
        "onward: 400 invalid_request",
    ]


def _run(program: str, *arguments: str, examples: Examples, folder: Path) -> list[str]:
    """What a program prints that talks to the examples."""
    shutil.copy(_FOLDER / program, folder)
    (folder / "node_modules").symlink_to(_PACKAGES)
    done = subprocess.run(
        [_NODE or "node", program, *arguments],
        cwd=folder,
        env=os.environ
        | {
            "WIKI_ISSUER": examples.wiki,
            "WIKI_SERVER": examples.server,
            "WIKI_INDEX": examples.at("http://127.0.0.1:18962/index"),
            "ACME_ISSUER": examples.acme,
            "ACME_IDP": examples.idp,
            "AGENT_KEY": str(examples.folder / ".broker-examples" / "agent-nightly.pem"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.splitlines()
