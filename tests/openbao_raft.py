"""Several OpenBao servers that share what they store: one leads, the others stand by."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import urllib3

from tests.fault_proxy import FaultProxy, fault_proxy
from tests.openbao import OpenBao, wait_until
from tests.ports import free_port

_LEADS: Final = 200
_STANDS_BY: Final = 429
_SECONDS: Final = 30.0
# Unless told otherwise a server may lead only once it has been there for half a minute.
_AT_ONCE: Final = {"server_stabilization_time": "1ms"}
_SOON: Final = "100ms"


class Node(OpenBao):
    """
    One of several servers. Whom one of the others cannot serve, it sends to the door of this one.

    ``door`` passes everything on to its API, and counts who comes. The calls made here go past the door.
    """

    def __init__(self, folder: Path, door: FaultProxy) -> None:
        super().__init__(folder)
        self.door = door
        self.door_url = f"http://127.0.0.1:{door.port}"
        door.retarget(self.port)
        self._cluster = f"127.0.0.1:{free_port()}"

    @property
    def leads(self) -> bool:
        """Whether it is the one that does the work."""
        return self.health() == _LEADS

    def install(self) -> None:
        """Start the server for the first time, with nothing in it."""
        (self._folder / "data").mkdir()
        settings = {
            "path": self._folder / "data",
            "node_id": self._folder.name,
            # In seconds: how soon a leader is missed, instead of five times as late.
            "performance_multiplier": 1,
            "autopilot_reconcile_interval": _SOON,
            "autopilot_update_interval": _SOON,
        }
        lines = "".join(f'  {name} = "{value}"\n' for name, value in settings.items())
        self._configure(
            f'storage "raft" {{\n{lines}}}',
            cluster=self._cluster,
            told=self.door_url,
        )
        self.start(is_new=True)

    def join(self, first: "Node") -> None:
        """Start the server for the first time, beside another that leads, and unseal it."""
        self.install()
        self.root_token, self.unseal_key = first.root_token, first.unseal_key
        self.call("POST", "sys/storage/raft/join", leader_api_addr=first.url)
        self.call("PUT", "sys/unseal", key=self.unseal_key)
        wait_until(lambda: self.health() == _STANDS_BY, seconds=_SECONDS)

    def step_down(self) -> None:
        """Have another lead, for ten seconds at the least."""
        self.call("PUT", "sys/step-down")

    def sends_to(self) -> str:
        """
        Where a server that stands by sends a caller who wants no help of it.

        It is asked to write, since it may answer reads by itself.
        """
        answer = urllib3.request(
            "POST",
            f"{self.url}/v1/kv/data/wherever",
            json={"data": {}},
            headers={"X-Vault-Token": self.root_token, "X-Vault-No-Request-Forwarding": "1"},
            redirect=False,
        )
        assert answer.status == 307, answer.data
        return answer.headers["Location"].partition("/v1/")[0]


def leader(nodes: Sequence[Node]) -> Node:
    """The one that leads, as soon as one does."""
    wait_until(lambda: any(node.leads for node in nodes), seconds=_SECONDS)
    return next(node for node in nodes if node.leads)


@contextmanager
def running_cluster(folder: Path) -> Iterator[tuple[Node, Node, Node]]:
    """Three new servers in this folder, of which the first leads and each of the others could."""
    with ExitStack() as closing:

        def made(name: str) -> Node:
            place = folder / name
            place.mkdir(parents=True)
            # It is told below where to pass on to.
            node = Node(place, closing.enter_context(fault_proxy(0)))
            closing.callback(node.close)
            return node

        first, *others = nodes = (made("first"), made("second"), made("third"))
        first.set_up()
        first.call("POST", "sys/storage/raft/autopilot/configuration", **_AT_ONCE)
        for node in others:
            node.join(first)
        wait_until(lambda: _voters(first) == len(nodes), seconds=_SECONDS)
        yield nodes


def _voters(first: Node) -> int:
    told = first.call("GET", "sys/storage/raft/configuration")["data"]["config"]["servers"]
    return sum(server["voter"] for server in told)
