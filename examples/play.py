"""
Starts everything in this folder, lets the agents work, and ends it again.

    python examples/play.py
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOG = Path(".broker-examples/play.log")
KEY = Path(".broker-examples/agent-nightly.pem")
ANSWERS = (
    "http://127.0.0.1:18961/jwks",
    "http://127.0.0.1:18942/readyz",
    "http://127.0.0.1:18952/readyz",
    "http://127.0.0.1:18962/.well-known/oauth-protected-resource/index",
    "http://127.0.0.1:18960/.well-known/oauth-protected-resource/mcp",
)
BACKGROUND = (
    ("-m", "broker.dev.idp", "18961"),
    ("-m", "broker", "serve", "--config", "examples/wiki.yaml"),
    ("-m", "broker", "serve", "--config", "examples/acme.yaml"),
    ("examples/index_api.py",),
    ("examples/mcp_server.py",),
)
AGENTS = (
    ("An agent that acts for itself, by its secret", "client_credentials.py", "secret"),
    ("The same by its key", "client_credentials.py", "key"),
    ("Ann of Acme, whom nobody asks anything", "enterprise_managed_authorization.py"),
)


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    """A program of the examples in the background, until the end of the block."""
    with LOG.open("ab") as log:
        process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(url: str, *, seconds: float = 40.0) -> None:
    """Return when the address answers well."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - it is one of the above.
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"{url} does not answer; see {LOG}")


def main() -> None:
    """Play all of it once."""
    if not KEY.exists():
        public = ("--public", str(KEY.with_suffix(".jwks.json")))
        command = [sys.executable, "-m", "broker", "client", "key", "--pem", str(KEY), *public]
        subprocess.run(command, check=True)
    with ExitStack() as stack:
        for arguments in BACKGROUND:
            stack.enter_context(running(*arguments))
        print("Starting two brokers, an identity provider, an API and an MCP server ...")
        for url in ANSWERS:
            wait_for(url)
        for title, program, *arguments in AGENTS:
            print(f"\n{title}:", flush=True)
            subprocess.run([sys.executable, f"examples/agents/{program}", *arguments], check=True)


if __name__ == "__main__":
    main()
