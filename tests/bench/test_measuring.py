"""What measures the broker works, so that it cannot rot meanwhile; no figure is judged here."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bench.generator import Generator, Job, read_requests, write_requests
from bench.parts import PARTS, core
from bench.requests import EXCHANGE, FACES, Face, Kind, stream
from bench.results import PARTS as NAMES
from bench.server import Server, running_broker
from bench.setting import Setting, new_setting
from bench.slices import Lane, Plan, Race, Spread, lines
from bench.wire import BrokenConnectionError, GrpcConnection, HttpConnection

_FORGED = Kind("exchange", "private_key_jwt", "forged")
_OWN = Kind("client_credentials", "client_secret", "none")
_ASKED: tuple[tuple[Kind, Face], ...] = ((EXCHANGE, "http"), (EXCHANGE, "grpc"), (_OWN, "http"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """As little as can be measured, all of it on one core."""
    core_ = (min(os.sched_getaffinity(0)),)
    return Plan(
        folder=tmp_path_factory.mktemp("bench"),
        rounds=1,
        seconds=0.5,
        connections=2,
        server=core_,
        caller=core_,
        is_quick=True,
        # A machine that is busy with tests may turn requests away.
        most_wrong=0.5,
    )


@pytest.fixture(scope="module")
def broker(plan: Plan) -> Iterator[tuple[Setting, Server]]:
    """A broker under measurement."""
    setting = new_setting(plan.folder / "broker")
    with running_broker(setting, plan.server) as server:
        yield setting, server


def test_requests_are_granted_on_both_faces_and_each_line_has_its_figures(
    plan: Plan, broker: tuple[Setting, Server]
) -> None:
    setting, server = broker
    lanes = [
        Lane(f"{face} {kind.name}", server, stream(setting, kind, face), {"face": face})
        for kind, face in _ASKED
    ]
    race = Race(plan, lanes, warm_up=0.3)

    found = lines(lanes, race.at_capacity(), race.at_half(lanes[:1]))

    assert [line["face"] for line in found] == ["http", "grpc", "http"]
    assert all(line["at_capacity"]["cpu_us"]["median"] > 0 for line in found)
    assert [("at_half" in line) for line in found] == [True, False, False]


def test_a_refused_request_is_right_where_refusals_are_measured(
    plan: Plan, broker: tuple[Setting, Server]
) -> None:
    setting, server = broker
    lanes = [Lane(face, server, stream(setting, _FORGED, face), {}) for face in FACES]

    assert set(Race(plan, lanes, warm_up=0.3).at_capacity()) == set(FACES)


@pytest.mark.parametrize("face", FACES)
def test_wrong_answers_end_the_run(plan: Plan, broker: tuple[Setting, Server], face: str) -> None:
    setting, server = broker
    forged = stream(setting, _FORGED, "grpc" if face == "grpc" else "http")
    lane = Lane("forged", server, replace(forged, is_granted=True), {})

    with pytest.raises(RuntimeError, match=r"forged: \d+ of \d+ answers were wrong"):
        Race(plan, [lane], warm_up=0.3)


def test_the_core_is_measured_decided_from_memory_and_anew(plan: Plan) -> None:
    found = core.measure(plan)

    assert [line["name"] for line in found["lines"]][:2] == [
        "decision remembered",
        "decision evaluated",
    ]
    assert all(line["spread"]["caller_ratio"]["median"] > 0 for line in found["lines"])


def test_every_part_has_a_name_among_the_results() -> None:
    assert tuple(PARTS) == NAMES


def test_requests_survive_their_file(tmp_path: Path) -> None:
    requests = [b"one", b"", b"x" * 70_000]
    write_requests(tmp_path / "requests", requests)

    assert read_requests(tmp_path / "requests") == requests


def test_no_request_is_sent_twice_unless_it_may_be(tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", [b"a", b"b", b"c"])
    listener = _Listener(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntoken")
    job = _job(listener, tmp_path / "requests")
    with closing(listener), closing(Generator(job)) as generator:
        report = generator.run()

    assert (report.calls, report.wrong) == (3, 0)
    assert sorted(listener.bodies) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\ntoken", id="no length"),
        pytest.param(b"", id="closed"),
    ],
)
def test_an_answer_that_cannot_be_read_ends_the_run(tmp_path: Path, answer: bytes) -> None:
    write_requests(tmp_path / "requests", [b"a"])
    with closing(_Listener(answer)) as listener:
        job = _job(listener, tmp_path / "requests")
        with closing(Generator(job)) as generator, pytest.raises(BrokenConnectionError):
            generator.run()


@pytest.mark.parametrize(
    ("answer", "is_granted"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntoken", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother", False),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\ntoken", False),
    ],
)
def test_only_a_token_in_a_good_answer_is_a_grant(answer: bytes, *, is_granted: bool) -> None:
    with closing(_Listener(answer)) as listener:
        made = HttpConnection(listener.port, verb="POST", path="/token", headers=())
        with closing(made) as connection:
            connection.send(b"a")

            assert connection.receive() is is_granted


def test_a_goodbye_of_an_http2_server_ends_the_run() -> None:
    goodbye = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8)
    listener = _Listener(goodbye)
    connection = GrpcConnection(listener.port, path="/a/b", headers=())
    with closing(listener), closing(connection):
        connection.send(b"a")

        with pytest.raises(BrokenConnectionError, match="goodbye"):
            connection.receive()


def test_a_spread_is_the_median_and_what_is_around_it() -> None:
    assert Spread.of([3.0, 1.0, 2.00004]) == Spread(2.0, 1.0, 3.0)


def test_the_lock_file_of_the_peers_names_no_registry() -> None:
    """They install from whatever registry the machine is told to use."""
    lock = json.loads((Path(core.__file__).parents[1] / "peers" / "package-lock.json").read_text())

    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for name, package in lock["packages"].items() if name)


def _job(listener: "_Listener", requests: Path) -> Job:
    return Job(
        face="http",
        port=listener.port,
        verb="POST",
        path="/token",
        headers=(),
        requests=str(requests),
        is_repeatable=False,
        is_granted=True,
        connections=1,
        seconds=30,
        rate=0,
        cores=(0,),
    )


class _Listener:
    """A server that has one answer for everything; an empty one closes the connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.bodies: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            while data := connection.recv(65_536):
                self.bodies.append(data.rpartition(b"\r\n\r\n")[2])
                if not self._answer:
                    return
                connection.sendall(self._answer)

    def close(self) -> None:
        """Stop listening; the thread ends with its connection."""
        self._thread.join(timeout=60)
        self._socket.close()
