"""Work done in a short-lived process of its own, which leaves nothing behind in this one."""

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

_LONGEST_WORD: Final = 4096


class WorkFailed(Exception):
    """The work ended without a word; what went wrong is on standard error."""


def word_of(work: Callable[[], str], *, within: float) -> str | None:
    """
    What ``work`` says, done in a fork of this process; ``None`` if it says nothing in time.

    The fork ends with every thread that the work may have started, and is killed ``within`` so many
    seconds; this process starts none. Only the calling thread may be about. Raises ``WorkFailed`` when the
    work does.
    """
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be(work, writing, within=within)
    os.close(writing)
    try:
        said = _read(reading, until=time.monotonic() + within)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if said is None:
        return None
    if not said.endswith(b"\n"):
        raise WorkFailed
    return said[:-1].decode("utf-8", "replace")


def _read(pipe: int, *, until: float) -> bytes | None:
    """All that is written until the other end is closed."""
    said = b""
    while True:
        readable, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not readable:
            return None
        chunk = os.read(pipe, _LONGEST_WORD)
        if not chunk:
            return said
        said += chunk


def _be(work: Callable[[], str], pipe: int, *, within: float) -> NoReturn:
    """Do the work and say what came of it; nothing of the parent's is done again here."""
    try:
        # Should the parent die meanwhile, nobody else ends this process.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, within + 1)
        word = work().encode("utf-8", "replace")[: _LONGEST_WORD - 1] + b"\n"
        # Nobody listens any more when the parent was ended meanwhile.
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, word)
    except BaseException:  # noqa: BLE001 -- nothing may unwind into the parent's code.
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(0)
