"""Two brokers that are one to their clients, as on two machines with one Valkey."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.asserting import DESK_AT_WIKI, PAGES, WIKI, idp_entry
from tests.e2e.running import RunningBroker
from tests.e2e.setting import TICKETS_SECRET, Document, Setting, new_setting
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.idp import signer
from tests.valkey import ValkeyServer, running

FRUGAL: Final = ("agent-frugal", "agent-thrifty", "agent-sparing", "agent-stingy")
"""Clients each of which may ask ten times."""


@dataclass
class Pair:
    """
    Two brokers that are one to their clients.

    The second answers elsewhere than its issuer says, and reaches the store over a line of its own.
    """

    valkey: ValkeyServer
    line: FaultProxy
    first: RunningBroker
    second: RunningBroker

    @property
    def setting(self) -> Setting:
        """What clients have to know."""
        return self.first.setting

    @property
    def both(self) -> tuple[RunningBroker, RunningBroker]:
        """The two."""
        return self.first, self.second

    def wait_until_ready(self) -> None:
        """Return when both are."""
        for broker in self.both:
            broker.wait_until_ready(60)


def valkey_state(port: int, directory: Path) -> Document:
    """The settings of a state in the Valkey at this port."""
    valkey = {"host": f"127.0.0.1:{port}"}
    return {"store": "valkey", "directory": str(directory / "state"), "valkey": valkey}


def replica_settings(folder: Path, *ports: int) -> list[Setting]:
    """
    One for each port at which a replica finds the store.

    All know the same clients, resources and issuers, and sign with the same key.
    """
    found: list[Setting] = []
    for name, port in zip(("first", "second", "third"), ports, strict=False):
        directory = folder / name
        directory.mkdir()
        # So that what was issued before the store began is soon a thing of the past.
        sections: dict[str, Any] = {"tokens": {"leeway": "1s"}}
        made = new_setting(directory, state=valkey_state(port, directory), **sections)
        agent = {
            "id": DESK_AT_WIKI,
            "auth": {"method": "private_key_jwt", "jwks": signer(DESK_AT_WIKI).jwks},
            "grants": ["jwt_bearer"],
        }
        frugal = [
            {
                "id": one,
                "auth": {"method": "private_key_jwt", "jwks": signer(one).jwks},
                "limit": {"rate": "1/h", "burst": 10},
            }
            for one in FRUGAL
        ]
        document = made.document
        found.append(
            made.with_document(
                clients=[*document["clients"], agent, *frugal],
                resources=[*document["resources"], {"resource": WIKI, "scopes": {PAGES: {}}}],
                issuers=[idp_entry(purposes=["user", "access_token", "id_jag"])],
                issuer=(found[0] if found else made).issuer,
                keys=(found[0] if found else made).document["keys"],
            )
        )
    return found


@contextmanager
def running_pair(folder: Path) -> Iterator[Pair]:
    """Both, ready."""
    with ExitStack() as closing:
        server = closing.enter_context(running(folder / "valkey"))
        line = closing.enter_context(fault_proxy(server.port))
        brokers = []
        for setting in replica_settings(folder, server.port, line.port):
            brokers.append(RunningBroker(setting))
            closing.callback(brokers[-1].close)
        (folder / "secret").write_text(TICKETS_SECRET)
        pair = Pair(server, line, *brokers)
        pair.wait_until_ready()
        yield pair
