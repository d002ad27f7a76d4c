"""Several OpenBao servers that share what they store: one leads, the others stand by."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fault_proxy import FaultProxy, fault_proxy
from tests.openbao import OpenBao, wait_until

LEADS: Final = 200
STANDS_BY: Final = 429
_SECONDS: Final = 30.0


class Node(OpenBao):
    """
    One of several servers, each of which tells callers of the others' doors when it cannot serve them.

    ``door`` passes everything on to its API, and counts who comes. The calls made here go past the door.
    """

    def __init__(self, folder: Path, door: FaultProxy, *, cluster_port: int) -> None:
        super().__init__(folder, is_audited=True)
        self.door = door
        self._cluster = f"127.0.0.1:{cluster_port}"
        door.retarget(self.port)

    def join(self, first: "Node") -> None:
        """Start the server for the first time, as one more beside another, which it then stands by."""
        self.install()
        self.root_token, self.unseal_key = first.root_token, first.unseal_key
        self.call("POST", "sys/storage/raft/join", leader_api_addr=first.url)
        self.call("PUT", "sys/unseal", key=self.unseal_key)
        wait_until(lambda: self.health() == STANDS_BY, seconds=_SECONDS)

    def _configure(self, _storage: str, **_places: str) -> None:
        data, name = self._folder / "data", self._folder.name
        super()._configure(
            # One multiple of a second, instead of five, until the others notice that a leader is gone.
            f'storage "raft" {{ path = "{data}", node_id = "{name}", performance_multiplier = 1 }}',
            cluster=self._cluster,
            told=f"http://127.0.0.1:{self.door.port}",
        )
