"""The official TypeScript SDK as a client, where node and the SDK's packages are at hand."""

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
        not (_PACKAGES / "@modelcontextprotocol").is_dir(),
        reason="the SDK is not installed: npm install in tests/interop/typescript",
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
    shutil.copy(_FOLDER / "agent.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(_PACKAGES)

    done = subprocess.run(
        [_NODE or "node", "agent.mjs", version, how],
        cwd=tmp_path,
        env=os.environ
        | {
            "WIKI_ISSUER": examples.wiki,
            "WIKI_SERVER": examples.server,
            "ACME_ISSUER": examples.acme,
            "ACME_IDP": examples.idp,
            "AGENT_KEY": str(examples.folder / ".broker-examples" / "agent-nightly.pem"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.splitlines()[0] == expected, done.stderr[-2000:]
