"""Small servers that answer as a test tells them to, over TLS or plainly, on this machine only."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Script = Callable[[socket.socket], None]
"""What a server does on a connection once the request has been read."""


@dataclass
class Server:
    """A running server: where it is, and the heads of the requests that reached it."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    def https(self, path: str = "/", *, host: str = "localhost") -> str:
        """The URL of a path here, by a name that the test certificate covers."""
        return f"https://{host}:{self.port}{path}"

    def http(self, path: str = "/") -> str:
        """The URL of a path here, without TLS."""
        return f"http://127.0.0.1:{self.port}{path}"


def answer(
    body: bytes,
    *headers: str,
    status: str = "200 OK",
    media_type: str = "application/json",
) -> Script:
    """A script that answers once, properly."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if media_type:
        lines.append(f"Content-Type: {media_type}")
    head = "\r\n".join(lines) + "\r\n\r\n"
    return send(head.encode("latin-1") + body)


def send(raw: bytes) -> Script:
    """A script that sends exactly these bytes and closes."""

    def script(connection: socket.socket) -> None:
        connection.sendall(raw)

    return script


@contextmanager
def running(script: Script, tls: ssl.SSLContext | None) -> Iterator[Server]:
    """A server on a free port; every connection gets a thread and runs the script."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        accepting = threading.Thread(target=_accept, args=(listener, server, script, tls))
        accepting.start()
        try:
            yield server
        finally:
            # A shutdown wakes the accepting thread, where a mere close would leave it waiting.
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(
    listener: socket.socket, server: Server, script: Script, tls: ssl.SSLContext | None
) -> None:
    threads = []
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            server.connections += 1
            arguments = (connection, server, script, tls)
            threads.append(threading.Thread(target=_converse, args=arguments))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _converse(
    connection: socket.socket, server: Server, script: Script, tls: ssl.SSLContext | None
) -> None:
    # A client that gives up is what many tests are about, so that is no error here.
    with suppress(OSError), connection:
        connection.settimeout(60)
        if tls is None:
            _serve(connection, server, script)
            return
        with tls.wrap_socket(connection, server_side=True) as secured:
            _serve(secured, server, script)


def _serve(connection: socket.socket, server: Server, script: Script) -> None:
    head = b""
    # A handshake that arrives at a plain server is answered at once, as any server would.
    while not head.endswith(b"\r\n\r\n") and not head.startswith(b"\x16"):
        received = connection.recv(4096)
        if not received:
            return
        head += received
    server.requests.append(head)
    script(connection)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    # The client may still be reading; closing with its bytes unread would reset the connection.
    while connection.recv(4096):
        pass
