"""Development mode: the real broker beside a pretend issuer, with the story in front of it."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console
from rich.text import Text

from broker.dev.failure import StoryFailed
from broker.dev.setup import DevBroker, DevSetup, prepare
from broker.lifeline import end_with_parent

_START_SECONDS: Final = 20.0


class BrokerEnded(StoryFailed):
    """The broker did not stay up long enough for a story."""


class _Stopped(Exception):
    """Somebody asked development mode to end."""


def run_dev(directory: Path, *, policies: Path | None, is_once: bool, console: Console) -> int:
    """
    Run a throw-away broker in ``directory`` until Ctrl-C, or until its story is told.

    Returns the exit status: 0, or 1 when the broker did not come up or the story went wrong.
    """
    try:
        with _ending_in_order(), _alone_in(directory):
            try:
                _play(prepare(directory, policies=policies), console, is_once=is_once)
            except BrokerEnded:
                # Somebody else may have taken a usual port between the look at it and its use.
                console.print("\nThe broker ended at once. Once more, on other ports.\n")
                setup = prepare(directory, policies=policies, has_usual_ports=False)
                _play(setup, console, is_once=is_once)
    except _Stopped:
        console.print("\nStopped.", style="dim")
    except StoryFailed as failure:
        console.print(Text(str(failure), "bold red"))
        return 1
    return 0


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep the directory to this run; another would change the secrets under it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoryFailed(
                f"Development mode runs in {directory} already. Stop it, or name another place with "
                "`broker dev --directory`."
            ) from None
        yield


def _play(setup: DevSetup, console: Console, *, is_once: bool) -> None:
    _greet(console, setup)
    # Whoever asks for the issuer's keys before it runs waits in the queue of this socket.
    listener = socket.create_server(("127.0.0.1", setup.idp_port))
    with _broker(setup.main) as process:
        # What follows is loaded while the broker, too, is loading.
        from broker.dev.commands import commands  # noqa: PLC0415 - see above.
        from broker.dev.story import Story  # noqa: PLC0415 - see above.

        with _idp(setup, listener):
            _wait_until_ready(setup.main, process)
            with _broker(setup.wiki) as other:
                Story(setup, console, lambda: _wait_until_ready(setup.wiki, other)).play()
                _invite(console, commands(setup))
                if not is_once:
                    _stay(console, setup.main)
                    process.wait()


def _greet(console: Console, setup: DevSetup) -> None:
    console.print(Text("Delegation broker, development mode", "bold"))
    console.print(
        Text("Its keys, secrets and users are for trying out and for nothing else.", "yellow")
    )
    for name, value in (
        ("HTTP", setup.main.issuer),
        ("gRPC", f"127.0.0.1:{setup.main.grpc_port}"),
        ("admin", f"http://127.0.0.1:{setup.main.admin_port}/readyz?verbose"),
        ("audit record", f"http://127.0.0.1:{setup.main.admin_port}/audit"),
        ("issuer of users", setup.idp_issuer),
        ("the wiki's own", setup.wiki.issuer),
        ("files", setup.main.directory),
    ):
        console.print(Text.assemble((f"  {name:<16}", "cyan"), str(value)))


def _invite(console: Console, examples: Iterable[tuple[str, str]]) -> None:
    console.print(Text("\nTry it:", "bold"))
    console.print(Text("\n# in another terminal, in this directory", "dim"))
    scripts = Path(sys.executable).parent
    console.print(f'export PATH="{scripts}:$PATH"', markup=False, highlight=False, soft_wrap=True)
    for title, command in examples:
        console.print(Text(f"\n# {title}", "dim"), soft_wrap=True)
        console.print(command, markup=False, highlight=False, soft_wrap=True)


def _stay(console: Console, broker: DevBroker) -> None:
    from broker.web.review.links import (  # noqa: PLC0415 - only a stay needs it.
        FOLDER,
        LIFETIME,
        Links,
        opening,
    )

    secret = Links(broker.directory / "state" / FOLDER).issue()
    pages = f"http://127.0.0.1:{broker.admin_port}/audit"
    told = (
        f"\n# the record of all this, for auditors, in a browser: {pages}\n"
        f"# this link logs one browser in there, once, within {LIFETIME // 60} minutes from now:\n# "
    )
    link = f"{pages}/login/link/{secret}"
    console.print(Text.assemble((told, "dim"), (link, "cyan")), soft_wrap=True)
    console.print(Text("# this makes another link:", "dim"))
    console.print(opening(broker.config_file), markup=False, highlight=False, soft_wrap=True)
    console.print(Text("\nReady. Ctrl-C ends it.", "bold green"))


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM unwind what was started."""

    def stop(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise _Stopped

    before = {one: signal.signal(one, stop) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _idp(setup: DevSetup, listener: socket.socket) -> Iterator[None]:
    from broker.dev.idp import PretendIdp  # noqa: PLC0415 - it is loaded beside the broker.

    idp = PretendIdp(setup.idp_port, listener)
    thread = threading.Thread(target=idp.serve, name="pretend-idp", daemon=True)
    thread.start()
    try:
        yield
    finally:
        idp.stop()


@contextmanager
def _broker(broker: DevBroker) -> Iterator[subprocess.Popen[bytes]]:
    """The broker as anybody would start it: ``broker serve --config``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "broker", "serve", "--config", str(broker.config_file)],
        env={name: value for name, value in os.environ.items() if not name.startswith("BROKER_")},
        start_new_session=True,
        preexec_fn=partial(end_with_parent, signal.SIGTERM),  # noqa: PLW1509 - it makes one system call.
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=25)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready(broker: DevBroker, process: subprocess.Popen[bytes]) -> None:
    import urllib3  # noqa: PLC0415 - it is loaded beside the broker.

    url = f"http://127.0.0.1:{broker.admin_port}/readyz"
    http = urllib3.PoolManager(retries=False)
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise BrokerEnded("The broker ended at once; its log above says why.")
        try:
            if http.request("GET", url, timeout=2.0).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    raise StoryFailed("The broker did not become ready in time.")
