"""The operators' port under connections that nobody uses: a probe is answered, and there are only so many."""

import asyncio
import http.client
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.lifeline import Anchor
from broker.web.admin import run_control
from broker.web.idle_connections import MOST
from broker.web.readiness import Readiness
from broker.web.review.guard import FormRefused, read_form
from tests.e2e.patience import until
from tests.ports import free_port

PATIENCE = 60.0
ASK = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
HOLD = b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n"


FORM = (
    b"POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


class Port:
    """An operators' port that runs in a thread, with a page that answers only when it is told to."""

    def __init__(self) -> None:
        self.number = free_port()
        self.held = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._release = asyncio.Event()
        self._connections = ExitStack()

    async def answer_late(self, _request: Request) -> Response:
        self._loop = asyncio.get_running_loop()
        self.held += 1
        await self._release.wait()
        return PlainTextResponse("late")

    async def take_form(self, request: Request) -> Response:
        """What the pages do with a form that is sent to them."""
        self.held += 1
        try:
            await read_form(request)
        except FormRefused:
            return PlainTextResponse("refused", 403)
        return PlainTextResponse("taken")

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.number), PATIENCE)
        self._connections.enter_context(connection)
        connection.sendall(sent)
        return connection

    def close(self) -> None:
        self._connections.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._release.set)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    """A port where nobody is cut off for being slow, only for being in the way."""
    monkeypatch.setattr("broker.web.admin.IDLE_SECONDS", PATIENCE)
    monkeypatch.setattr("broker.web.review.guard._FORM_SECONDS", PATIENCE)
    with running() as port:
        yield port


@contextmanager
def running() -> Iterator[Port]:
    port, anchor = Port(), Anchor()
    lifeline = anchor.lifeline("control")
    read, write = lifeline._wake = os.pipe()
    readiness = Readiness([], is_draining=lambda: False, probes={})
    serving = threading.Thread(
        target=lambda: run_control(
            lifeline,
            listener=("127.0.0.1", port.number),
            readiness=lambda: readiness,
            exposition=lambda _workers, _checks: b"",
            routes=[
                Route("/hold", port.answer_late),
                Route("/form", port.take_form, methods=["POST"]),
            ],
        )
    )
    serving.start()
    until(lambda: is_listening(port.number), seconds=PATIENCE, what="the port is open")
    try:
        yield port
    finally:
        port.close()
        os.write(write, b"!")
        serving.join(PATIENCE)
        anchor.close()
        os.close(read)
        os.close(write)


def is_listening(number: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", number)) == 0


def status(connection: socket.socket) -> int:
    """The status of the next answer; 0 when the connection is ended without one."""
    answer = http.client.HTTPResponse(connection)
    try:
        answer.begin()
        answer.read()
    except ConnectionError:
        return 0
    finally:
        answer.close()
    return answer.status


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize(
    "sent", [b"", ASK[:20], ASK], ids=["silent", "half a request", "asked once"]
)
def test_a_probe_is_answered_while_others_hold_more_connections_than_there_may_be(
    port: Port, sent: bytes
) -> None:
    held = []
    for _ in range(MOST + 16):
        held.append(port.connect(sent))
        if sent == ASK:
            assert status(held[-1]) == 200

    assert [status(port.connect(ASK)) for _ in range(3)] == [200, 200, 200]

    # What was idle longest has gone, and nothing else.
    assert [status(one) for one in held[:16]] == [0] * 16
    held[-1].sendall(ASK.removeprefix(sent) or ASK)
    assert status(held[-1]) == 200


@pytest.mark.requirement("HTP-13")
def test_a_probe_is_answered_while_others_send_forms_that_never_come(port: Port) -> None:
    held = [port.connect(FORM) for _ in range(MOST - 1)]
    until(lambda: port.held == len(held), seconds=PATIENCE, what="all are waited for")

    assert [status(port.connect(ASK)) for _ in range(8)] == [200] * 8
    held[-1].sendall(b"secret=xy")
    assert status(held[-1]) == 200


def test_a_connection_can_be_asked_by_again(port: Port) -> None:
    connection = port.connect(ASK)
    assert status(connection) == 200

    connection.sendall(ASK)

    assert status(connection) == 200


def test_who_is_being_answered_keeps_the_place_and_no_more_are_let_in(port: Port) -> None:
    answered = [port.connect(HOLD) for _ in range(MOST - 1)]
    until(lambda: port.held == len(answered), seconds=PATIENCE, what="all are held")

    assert status(port.connect(ASK)) == 503
    late = [port.connect() for _ in range(MOST)]

    assert [status(one) for one in late[:-1]] == [0] * (MOST - 1)
    late[-1].sendall(ASK)
    assert status(late[-1]) == 503
    assert port.held == len(answered)


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize("sent", [b"", ASK[:20]], ids=["silent", "half a request"])
def test_a_connection_without_a_request_is_closed_soon(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("broker.web.admin.IDLE_SECONDS", 0.1)
    with running() as port:
        assert status(port.connect(sent)) == 0
