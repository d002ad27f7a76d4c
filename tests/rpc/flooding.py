"""Somebody who opens calls over HTTP/2 and never sends a message, without a gRPC library to stop them."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS = 1, 4
_END_HEADERS = 4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _headers(method: str) -> bytes:
    # POST and http are entries of the static table (RFC 7541 appendix A).
    return (
        b"\x83\x86"
        + _literal(b":path", method.encode())
        + _literal(b":authority", b"x")
        + _literal(b"content-type", b"application/grpc")
        + _literal(b"te", b"trailers")
    )


class _Mute:
    """One connection that opens calls in bursts."""

    def __init__(self, port: int, method: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._headers = _headers(method)
        self._next = 1
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0))
        self._socket.recv(65_536)
        self._socket.sendall(_frame(_SETTINGS, 1, 0))
        self._socket.setblocking(False)

    def open_calls(self, number: int) -> None:
        streams = range(self._next, self._next + 2 * number, 2)
        self._next = streams.stop
        with contextlib.suppress(OSError):
            while self._socket.recv(65_536):
                pass
        with contextlib.suppress(OSError):
            self._socket.send(
                b"".join(_frame(_HEADERS, _END_HEADERS, one, self._headers) for one in streams)
            )

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def flooded(port: int, method: str, *, connections: int, calls: int = 64) -> Iterator[None]:
    """``connections`` that each try to hold ``calls`` open, twenty times a second."""
    over = threading.Event()
    mutes = [_Mute(port, method) for _ in range(connections)]

    def go_on() -> None:
        while not over.wait(0.05):
            for mute in mutes:
                mute.open_calls(calls)

    for mute in mutes:
        mute.open_calls(calls)
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for mute in mutes:
            mute.close()
