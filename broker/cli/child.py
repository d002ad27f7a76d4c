"""A program that is started and looked after: signals reach it, and nothing of it outlives its starter."""

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from broker.cli.stop import Stop

_PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
_TICK: Final = 0.5
_PATIENCE: Final = 10.0
_FOLDER: Final = "broker-run-"
_LOCK: Final = "lock"
_PR_SET_PDEATHSIG: Final = 1


class Child:
    """
    The program, once it is started.

    While ``signals_passed_on`` lasts it gets the signals that its starter gets; before it is started they
    end the starter in order.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def signals_passed_on(self) -> Iterator[None]:
        """Pass signals on until the end of the block."""
        before = {one: signal.signal(one, self._pass_on) for one in _PASSED_ON}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        meanwhile: Callable[[], None],
    ) -> int:
        """
        Start the program and return its exit status; ``meanwhile`` is done twice a second.

        Raises ``Stop`` when it cannot be started. Whatever else is raised, the program is ended first.
        """
        process = self._start(command, environment)
        try:
            while True:
                try:
                    ended = process.wait(_TICK)
                except subprocess.TimeoutExpired:
                    meanwhile()
                else:
                    # A shell tells of a signal by a status above 128.
                    return ended if ended >= 0 else 128 - ended
        finally:
            _end(process)

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        die_with_parent = _death_signal()

        def prepare() -> None:
            die_with_parent()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)

        # No signal comes between the start and the moment from which it can be passed on.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                preexec_fn=prepare,  # noqa: PLW1509 - nothing in it takes a lock.
            )
        except OSError as error:
            raise Stop(f"{command[0]} cannot be started: {error.strerror}.") from None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        return self._process

    def _pass_on(self, signum: int, _frame: FrameType | None) -> None:
        if self._process is None:
            sys.exit(128 + signum)
        if signum not in _FROM_TERMINAL or not _is_in_foreground():
            self._process.send_signal(signum)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Leave nothing behind with a token that nobody renews."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _death_signal() -> Callable[[], None]:
    """What a child calls to be ended with its parent, however that ends; Linux alone has it."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))

    return ask


def _is_in_foreground() -> bool:
    """Whether the terminal itself tells the child: it tells everybody in its foreground group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def private_folder() -> Iterator[Path]:
    """
    A folder for this user alone, until the end of the block.

    Whoever is killed leaves one behind; the next one removes it. It is told by its lock, which nobody holds.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    for left_behind in base.glob(f"{_FOLDER}*"):
        with suppress(OSError):
            _remove_if_nobodys(left_behind)
    # It gets the name by which others look for it once it has its lock.
    folder = Path(tempfile.mkdtemp(prefix=f".{_FOLDER}", dir=base))
    try:
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_nobodys(folder: Path) -> None:
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        return
    with (folder / _LOCK).open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
