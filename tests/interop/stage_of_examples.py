"""The brokers, the MCP server and the agents of ``examples/``, on ports of their own."""

import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.e2e.patience import until
from tests.e2e.running import Session, environment, run, start
from tests.e2e.setting import ROOT, free_ports

_PORT: Final = re.compile(r"\b(189[456][0-9])\b")
_SECONDS: Final = 90.0
KEY_FILES: Final = (
    "--pem",
    ".broker-examples/agent-nightly.pem",
    "--public",
    ".broker-examples/agent-nightly.jwks.json",
)
"""The nightly job's key, as the page of the examples has it made."""
_METADATA: Final = "/.well-known/oauth-protected-resource/mcp"
_API_METADATA: Final = "/.well-known/oauth-protected-resource/index"


@dataclass
class Examples:
    """A copy of the examples that run; each usual port stands for another, so that tests may meet."""

    folder: Path
    ports: dict[str, str]
    server_session: Session = field(init=False)

    def at(self, usual: str) -> str:
        """A usual URL or text of the examples with the ports of this copy."""
        return _PORT.sub(lambda found: self.ports[found[1]], usual)

    def usual(self, text: str) -> str:
        """Text of this copy with the usual ports."""
        for usual, other in self.ports.items():
            text = text.replace(other, usual)
        return text

    @property
    def wiki(self) -> str:
        """The issuer of the wiki's broker."""
        return self.at("http://127.0.0.1:18940/wiki")

    @property
    def acme(self) -> str:
        """The issuer of Acme's broker."""
        return self.at("http://127.0.0.1:18950/acme")

    @property
    def server(self) -> str:
        """The MCP server."""
        return self.at("http://127.0.0.1:18960/mcp")

    @property
    def idp(self) -> str:
        """Acme's pretend identity provider."""
        return self.at("http://127.0.0.1:18961")

    def agent(self, *arguments: str) -> str:
        """What an agent prints; it must end well."""
        done = run([sys.executable, *arguments], directory=self.folder)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def background(self, *arguments: str) -> Session:
        """A program of the examples that goes on."""
        log = self.folder / f"{len(list(self.folder.glob('*.log')))}.log"
        return start([sys.executable, *arguments], directory=self.folder, log=log)

    @contextmanager
    def in_place_of_the_server(self, program: str, *arguments: str) -> Iterator[None]:
        """Run another MCP server at the same address until the end of the block."""
        self.server_session.close()
        other = self.background(str(ROOT / program), *arguments)
        try:
            _await(f"{self.server.removesuffix('/mcp')}{_METADATA}", other)
            yield
        finally:
            other.close()
            self.start_server()

    def start_server(self) -> None:
        """Start the examples' own MCP server and wait until it answers."""
        self.server_session = self.background("examples/mcp_server.py")
        _await(f"{self.server.removesuffix('/mcp')}{_METADATA}", self.server_session)

    def stop_server(self) -> None:
        """Stop it, or what took its place."""
        self.server_session.close()

    def broker(self, name: str) -> Session:
        """One of the brokers."""
        return self.background("-m", "broker", "serve", "--config", f"examples/{name}.yaml")


@contextmanager
def running_examples(folder: Path) -> Iterator[Examples]:
    """All of the examples' programs that agents talk to, until the end of the block."""
    examples = _copy(folder)
    examples.agent("-m", "broker", "client", "key", *KEY_FILES)
    idp_port = examples.at("18961")
    with ExitStack() as closing:
        idp = examples.background("-m", "broker.dev.idp", idp_port)
        closing.callback(idp.close)
        _await(f"{examples.idp}/jwks", idp)
        for session in (examples.broker("wiki"), examples.broker("acme")):
            closing.callback(session.close)
        api = examples.background("examples/index_api.py")
        closing.callback(api.close)
        examples.start_server()
        closing.callback(examples.stop_server)
        for admin in ("18942", "18952"):
            _await(examples.at(f"http://127.0.0.1:{admin}/readyz"), examples.server_session)
        _await(examples.at(f"http://127.0.0.1:18962{_API_METADATA}"), api)
        yield examples


def _copy(folder: Path) -> Examples:
    """Copy the examples with other ports; what they take from elsewhere is copied as well."""
    taken: list[str] = []
    for _ in range(4):
        ports = free_ports()
        taken += [str(ports.http), str(ports.grpc), str(ports.admin)]
    usual = ("18940", "18941", "18942", "18950", "18951", "18952", "18960", "18961", "18962")
    examples = Examples(folder, dict(zip(usual, taken, strict=False)))
    shutil.copytree(
        ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in (folder / "examples").rglob("*"):
        if path.is_file() and path.suffix in {".py", ".yaml", ".cedar"}:
            path.write_text(examples.at(path.read_text()))
    assert environment()["PYTHONPATH"] == str(ROOT)
    return examples


def _await(url: str, session: Session) -> None:
    def answers() -> bool:
        assert session.process.poll() is None, session.text
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - it is our own, on loopback.
            return bool(answer.status == 200)
        return False

    until(answers, seconds=_SECONDS, what=f"{url} answers")
