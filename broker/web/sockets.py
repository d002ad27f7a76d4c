"""The connections of this process as the kernel knows them, which the server does not tell."""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DESCRIPTORS: Final = Path("/proc/self/fd")

# In struct tcp_info (linux/tcp.h) the milliseconds since we last sent follow 8 bytes and 9 words.
_TCP_INFO: Final = struct.Struct("=44xI")


@dataclass(frozen=True, slots=True)
class Connection:
    """
    An accepted connection, to be used before the next one is asked for.

    ``address`` is the peer's; ``silence`` is for how many seconds we have sent it nothing.
    """

    address: str
    silence: float
    _socket: socket.socket

    def cut(self) -> None:
        """End it in both directions; whoever reads from it is told."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def connections(port: int) -> Iterator[Connection]:
    """
    Every connection that was accepted on ``port``; none but on Linux, which alone tells the silence.

    Raises ``OSError`` when descriptors have run out.
    """
    if sys.platform != "linux":
        return
    for one in _sockets():
        if one.type != socket.SOCK_STREAM or one.family not in {socket.AF_INET, socket.AF_INET6}:
            continue
        try:
            address: str = one.getpeername()[0]
            if one.getsockname()[1] != port:
                continue
            information = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:
            # It has just ended by itself, or it is the socket that listens and has no peer.
            continue
        milliseconds: int = _TCP_INFO.unpack(information)[0]
        yield Connection(address, milliseconds / 1000, one)


def _sockets() -> Iterator[socket.socket]:
    """
    Every socket of this process, each behind a descriptor of its own.

    The duplicate cannot turn into another connection while it is looked at, whatever happens to the
    original in the meantime.
    """
    for entry in DESCRIPTORS.iterdir():
        try:
            descriptor = os.dup(int(entry.name))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            continue
        with connection:
            yield connection
