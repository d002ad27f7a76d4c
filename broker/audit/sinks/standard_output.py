"""Records on standard output, whole lines even where several processes share it."""

import errno
import fcntl
import os
import select
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from broker.audit.sinks.destination import SinkFailed
from broker.fetch import FetchRefused
from broker.fetch.deadline import Deadline

_LOCK_INTERVAL: Final = 0.002
_WHOLE: Final = b"0"
_TORN: Final = b"1"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class StandardOutput:
    """
    Writes each line with its newline; a line is taken once the system has it.

    All processes of a broker write to one pipe or file, so each holds ``lock_file`` while it writes. The
    lock file remembers whether the last line was cut off, by a deadline or a death: then the next one
    begins on a line of its own. Nothing is changed about the descriptor, which others use too, and yet
    a reader that stands still holds nobody longer than the deadline.
    """

    def __init__(self, lock_file: Path, *, descriptor: int = 1) -> None:
        self._lock_file = lock_file
        self._descriptor = descriptor

    def take(self, lines: Sequence[bytes], deadline: Deadline) -> None:
        data = b"".join([line + b"\n" for line in lines])
        try:
            with self._alone(deadline) as lock:
                if os.pread(lock, 1, 0) == _TORN:
                    data = b"\n" + data
                os.pwrite(lock, _TORN, 0)
                self._write(data, deadline)
                os.pwrite(lock, _WHOLE, 0)
        except FetchRefused:
            raise SinkFailed("timeout") from None
        except OSError as failure:
            raise SinkFailed(errno.errorcode.get(failure.errno or 0, "OSError")) from None

    def close(self) -> None:
        """Leave the descriptor open, which belongs to the process."""

    @contextmanager
    def _alone(self, deadline: Deadline) -> Iterator[int]:
        self._lock_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._lock_file, _FLAGS, 0o600)
        try:
            while not _is_locked(lock):
                threading.Event().wait(min(_LOCK_INTERVAL, deadline.remaining()))
            yield lock
        finally:
            os.close(lock)

    def _write(self, data: bytes, deadline: Deadline) -> None:
        rest = memoryview(data)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        is_socket = stat.S_ISSOCK(os.fstat(self._descriptor).st_mode)
        while rest:
            if not poll.poll(deadline.remaining() * 1000):
                continue
            # A pipe that is ready takes so many bytes and does not make anybody wait.
            part = rest[: select.PIPE_BUF]
            rest = rest[
                _send(self._descriptor, part) if is_socket else os.write(self._descriptor, part) :
            ]


def _send(descriptor: int, part: memoryview) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        try:
            return sock.send(part, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
