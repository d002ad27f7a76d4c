"""The operators' port: readiness tells the truth, liveness looks at nothing, nothing secret is told."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from broker.lifeline import REPORT_LIMIT, Anchor, CheckStatus, WorkerStatus
from broker.web.admin import admin_app, run_control
from broker.web.probes import grpc_probe, http_probe
from broker.web.readiness import Probe, ProbeFailed, Readiness, Unready
from tests.e2e.patience import until
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


class World:
    """Everything that readiness depends on, in the hands of a test."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.is_draining = False
        self.failing: dict[str, Exception] = {}
        self.asked = 0
        self.readiness = Readiness(
            ["grpc", "http"],
            is_draining=lambda: self.is_draining,
            probes={name: self._probe(name) for name in ("face/grpc", "face/http")},
            clock=lambda: self.now,
        )

    def _probe(self, name: str) -> Probe:
        async def probe() -> None:
            self.asked += 1
            if name in self.failing:
                raise self.failing[name]

        return probe

    def say(
        self, worker: str, left: float | None = None, *, at: float | None = None, **checks: str
    ) -> None:
        """
        Let a worker report, each of its checks with the reason it fails for, if any.

        ``left`` is in how many seconds they will be well, where they know.
        """
        at = self.now if at is None else at
        well_at = None if left is None else at + left
        stand = tuple(CheckStatus(name, reason, at - 3, well_at) for name, reason in checks.items())
        status = WorkerStatus(worker=worker, pid=1, at=at, generation=0, checks=stand)
        self.readiness.hear(status.encode())

    def is_ready(self) -> bool:
        return not any(finding.failure for finding in asyncio.run(self.readiness.findings()))

    def verbose(self) -> str:
        return self.client.get("/readyz?verbose").text

    @property
    def client(self) -> TestClient:
        return TestClient(admin_app(self.readiness, lambda _workers, _checks: b"page"))


@pytest.fixture
def world() -> World:
    """All is well."""
    world = World()
    world.say("grpc", audit="", keys="")
    world.say("http", audit="", keys="")
    return world


Change = Callable[[World], None]


def silence(worker: str) -> Change:
    def change(world: World) -> None:
        world.now += 5.1
        world.say("http" if worker == "grpc" else "grpc", audit="")

    return change


def drain(world: World) -> None:
    world.is_draining = True


def fail(face: str, failure: Exception) -> Change:
    return lambda world: world.failing.update({face: failure})


TRUTHS: dict[str, tuple[Change, str]] = {
    "draining": (drain, "[-]shutdown failed: draining"),
    "a silent worker": (silence("grpc"), "[-]grpc failed: silent"),
    "the other silent": (silence("http"), "[-]http failed: silent"),
    "an audit log that fails": (
        lambda world: world.say("grpc", audit="audit_unavailable", keys=""),
        "[-]grpc/audit failed: audit_unavailable (for 3 s)",
    ),
    "keys out of reach": (
        lambda world: world.say("http", audit="", keys="signer_unavailable"),
        "[-]http/keys failed: signer_unavailable (for 3 s)",
    ),
    "a state that settles": (
        lambda world: world.say("grpc", 27.5, state="replay_store_unavailable"),
        "[-]grpc/state failed: replay_store_unavailable (for 3 s, well by itself in 28 s)",
    ),
    "a face that refuses": (
        fail("face/grpc", ProbeFailed(Unready.UNREACHABLE)),
        "[-]face/grpc failed: unreachable",
    ),
    "a face that answers nonsense": (
        fail("face/http", ProbeFailed(Unready.WRONG_ANSWER)),
        "[-]face/http failed: wrong_answer",
    ),
    "a probe that breaks": (
        fail("face/http", RuntimeError("hvs.x")),
        "[-]face/http failed: wrong_answer",
    ),
    "a probe that is late": (
        fail("face/http", TimeoutError()),
        "[-]face/http failed: deadline_exceeded",
    ),
}


@pytest.mark.requirement("R-38")
@pytest.mark.parametrize("what", TRUTHS)
def test_any_one_thing_that_is_wrong_makes_the_broker_unready(world: World, what: str) -> None:
    change, line = TRUTHS[what]
    assert world.is_ready()
    world.now += 1

    change(world)

    answer = world.client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready\n")
    lines = world.verbose().splitlines()
    assert line in lines
    assert lines[-1] == "readyz check failed"
    assert [one for one in lines if one.startswith("[-]")] == [line]


@pytest.mark.requirement("R-38")
@pytest.mark.parametrize("what", TRUTHS)
def test_nothing_of_that_makes_the_broker_dead(world: World, what: str) -> None:
    """Being started again heals no dependency."""
    TRUTHS[what][0](world)

    answer = world.client.get("/livez")

    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_when_all_is_well_each_thing_has_its_line(world: World) -> None:
    assert world.client.get("/readyz").status_code == 200
    assert world.verbose().splitlines() == [
        "[+]shutdown ok",
        "[+]grpc ok",
        "[+]grpc/audit ok",
        "[+]grpc/keys ok",
        "[+]http ok",
        "[+]http/audit ok",
        "[+]http/keys ok",
        "[+]face/grpc ok",
        "[+]face/http ok",
        "readyz check passed",
    ]


@pytest.mark.requirement("R-38")
def test_it_becomes_ready_again_by_itself(world: World) -> None:
    world.say("grpc", audit="audit_unavailable")
    world.failing["face/http"] = ProbeFailed(Unready.UNREACHABLE)
    assert not world.is_ready()

    world.now += 1
    world.say("grpc", audit="")
    world.failing.clear()

    assert world.is_ready()


def test_a_broker_whose_workers_never_spoke_is_not_ready() -> None:
    assert not World().is_ready()


def test_a_report_that_lay_in_the_queue_is_as_old_as_it_is(world: World) -> None:
    """While the control process is being restarted, reports wait for it."""
    world.now += 10
    world.say("grpc", at=world.now - 9, audit="")
    world.say("http", audit="")

    assert not world.is_ready()
    assert world.readiness.workers_up() == {"grpc": False, "http": True}


def test_of_two_reports_the_younger_counts_whichever_came_last(world: World) -> None:
    world.now += 2
    world.say("grpc", audit="audit_unavailable")
    world.say("grpc", at=world.now - 1, audit="")

    assert not world.is_ready()


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"\x00" * 100,
        b"{}",
        b"x" * (REPORT_LIMIT + 1),
        WorkerStatus("stranger", 1, 1000.0, 0, ()).encode(),
        WorkerStatus("grpc", 1, 1e12, 0, (CheckStatus("audit", "", 0.0),)).encode(),
    ],
    ids=["empty", "noise", "no report", "too large", "of a stranger", "of the future"],
)
def test_what_is_no_report_of_an_expected_worker_changes_nothing(
    world: World, report: bytes
) -> None:
    world.say("grpc", audit="audit_unavailable")
    before = world.verbose()

    world.readiness.hear(report)

    assert world.verbose() == before
    assert set(world.readiness.workers_up()) == {"grpc", "http"}


@pytest.mark.requirement("LOG-01")
def test_a_reason_that_is_not_on_the_list_is_not_repeated(world: World) -> None:
    world.say("grpc", audit="canary_s3cret")

    assert "canary" not in world.verbose()
    assert "[-]grpc/audit failed: internal_error (for 3 s)" in world.verbose()


def test_however_often_it_is_asked_the_ports_are_asked_once_a_second(world: World) -> None:
    for _ in range(50):
        world.is_ready()
    assert world.asked == 2

    world.now += 1
    world.is_ready()
    assert world.asked == 4


def test_many_who_ask_at_once_share_one_probe(world: World) -> None:
    async def ask_all() -> None:
        await asyncio.gather(*(world.readiness.findings() for _ in range(50)))

    asyncio.run(ask_all())

    assert world.asked == 2


def test_answers_are_for_now_and_for_no_cache(world: World) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert world.client.get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_there_is_nothing_to_change(world: World, method: str, path: str) -> None:
    assert world.client.request(method, path).status_code == 405


@pytest.mark.requirement("CFG-03")
@pytest.mark.parametrize("path", ["/", "/reload", "/debug", "/metrics/../x", "/token"])
def test_there_is_nothing_else(world: World, path: str) -> None:
    assert world.client.get(path).status_code == 404


Checks = Mapping[tuple[str, str], bool]


def told_to_the_page_of_measures(world: World) -> tuple[Mapping[str, bool], Checks]:
    """What the page is made from, when somebody fetches it."""
    told: list[tuple[Mapping[str, bool], Checks]] = []

    def exposition(workers: Mapping[str, bool], checks: Checks) -> bytes:
        told.append((workers, checks))
        return b"broker_worker_up 1\n"

    answer = TestClient(admin_app(world.readiness, exposition)).get("/metrics")

    assert answer.content == b"broker_worker_up 1\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return told[0]


def test_the_page_of_measures_is_told_who_is_up_and_what_is_well(world: World) -> None:
    world.say("grpc", audit="audit_unavailable", keys="")

    workers, checks = told_to_the_page_of_measures(world)

    assert workers == {"grpc": True, "http": True}
    assert checks == {
        ("", "shutdown"): True,
        ("grpc", "audit"): False,
        ("grpc", "keys"): True,
        ("http", "audit"): True,
        ("http", "keys"): True,
        ("", "face/grpc"): True,
        ("", "face/http"): True,
    }


def test_the_page_of_measures_tells_that_the_broker_is_stopping(world: World) -> None:
    drain(world)

    _, checks = told_to_the_page_of_measures(world)

    assert checks == {("", "shutdown"): False}


def test_further_pages_can_be_added(world: World) -> None:
    async def audit(_request: Request) -> Response:
        return PlainTextResponse("audit")

    app: Starlette = admin_app(
        world.readiness, lambda _workers, _checks: b"", routes=[Route("/audit", audit)]
    )

    assert TestClient(app).get("/audit").text == "audit"


# What a probe says about real ports.


@pytest.fixture
def _patient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a face says is not told from a machine that is slow to let it say so."""
    monkeypatch.setattr("broker.web.probes.PROBE_DEADLINE", PATIENCE)


def outcome(probe: Callable[[], Awaitable[None]]) -> Unready | None:
    async def ask() -> Unready | None:
        try:
            await probe()
        except ProbeFailed as failure:
            return failure.why
        return None

    return asyncio.run(ask())


@contextlib.contextmanager
def grpc_face(status: int | None) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    if status is not None:
        servicer = health.HealthServicer()
        servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.usefixtures("_patient_probe")
def test_a_grpc_face_that_serves_is_well() -> None:
    with grpc_face(health_pb2.HealthCheckResponse.SERVING) as target:
        assert outcome(grpc_probe(target)) is None


@pytest.mark.usefixtures("_patient_probe")
@pytest.mark.parametrize(
    ("status", "why"),
    [
        (health_pb2.HealthCheckResponse.NOT_SERVING, Unready.NOT_SERVING),
        (None, Unready.WRONG_ANSWER),
    ],
    ids=["not serving", "no health service"],
)
def test_a_grpc_face_that_does_not_serve_is_not_well(status: int | None, why: Unready) -> None:
    with grpc_face(status) as target:
        assert outcome(grpc_probe(target)) is why


def test_a_grpc_port_where_nobody_listens_is_unreachable() -> None:
    assert outcome(grpc_probe(f"127.0.0.1:{free_port()}")) is Unready.UNREACHABLE


@pytest.mark.usefixtures("_patient_probe")
def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with grpc_face(health_pb2.HealthCheckResponse.SERVING) as target:
        assert outcome(grpc_probe(target.replace("127.0.0.1", "localhost"))) is None


@contextlib.contextmanager
def http_face(answer: bytes) -> Iterator[int]:
    """A port that answers every request with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def metadata_probe(port: int) -> Probe:
    return http_probe(
        "127.0.0.1",
        port,
        path="/.well-known/oauth-authorization-server",
        authority="broker.example",
    )


def test_an_http_face_that_answers_is_well() -> None:
    with http_face(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as port:
        assert outcome(metadata_probe(port)) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"",
        b"\x15\x03\x01\x00\x02\x02\x16",
        b"HTTP/1.1 200",
        b"x" * 200_000,
    ],
    ids=["503", "404", "nothing", "TLS", "cut", "no line"],
)
def test_an_http_face_with_any_other_answer_is_not_well(answer: bytes) -> None:
    with http_face(answer) as port:
        assert outcome(metadata_probe(port)) is Unready.WRONG_ANSWER


def test_an_http_port_where_nobody_listens_is_unreachable() -> None:
    assert outcome(metadata_probe(free_port())) is Unready.UNREACHABLE


def test_a_face_that_accepts_and_says_nothing_is_late() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        readiness = Readiness(
            [],
            is_draining=lambda: False,
            probes={"face/http": metadata_probe(server.getsockname()[1])},
        )

        findings = asyncio.run(readiness.findings())

    assert [finding.failure for finding in findings] == ["", "deadline_exceeded"]


# The control process among the others.


def test_the_control_process_obeys_an_order_that_came_before_it_listened() -> None:
    anchor = Anchor()
    lifeline = anchor.lifeline("control")

    read, write = os.pipe()
    os.write(write, b"!")
    lifeline._wake = (read, write)
    readiness = Readiness([], is_draining=lambda: False, probes={})

    run_control(
        lifeline,
        listener=("127.0.0.1", 0),
        readiness=lambda: readiness,
        exposition=lambda _workers, _checks: b"",
    )

    anchor.close()
    os.close(read)
    os.close(write)


class Running:
    """The program beside this file, and its operators' port."""

    def __init__(self, folder: Path) -> None:
        self.ports = [free_port() for _ in range(3)]
        program = str(Path(__file__).with_name("control_program.py"))
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, str(folder), *map(str, self.ports)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=log,
            )

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[2], timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def until(self, is_so: Callable[[int, str], bool], path: str = "/readyz?verbose") -> str:
        """Ask until the answer is so; it has to be within a bounded time."""
        deadline = time.monotonic() + PATIENCE
        answer = (0, "")
        while time.monotonic() < deadline and self.process.poll() is None:
            answer = self.get(path)
            if is_so(*answer):
                return answer[1]
            # Readiness has no event to wait for; whoever wants to know it asks again.
            threading.Event().wait(0.05)
        pytest.fail(f"it never became so: {answer}")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


@pytest.mark.requirement("R-38")
@pytest.mark.requirement("R-24")
def test_a_whole_broker_tells_the_truth_from_start_to_stop(
    running: Running, tmp_path: Path
) -> None:
    """Three processes and one that granian forked: ready, a fault in each, ready, drained, gone."""
    running.until(lambda status, _: status == 200)

    for worker in ("grpc", "http"):
        flag = tmp_path / f"{worker}-fails"
        flag.touch()
        told = f"[-]{worker}/audit failed: audit_unavailable"
        running.until(lambda status, text, told=told: status == 503 and told in text)  # type: ignore[misc] # Asked at once.
        assert running.get("/livez")[0] == 200
        flag.unlink()
        running.until(lambda status, _: status == 200)

    running.process.send_signal(signal.SIGHUP)
    running.until(lambda _, text: 'broker_reloads_total{result="ok"} 2.0' in text, "/metrics")

    running.process.send_signal(signal.SIGTERM)
    running.until(lambda status, text: status == 503 and "[-]shutdown failed: draining" in text)
    assert running.get("/livez") == (200, "ok\n")
    assert running.process.wait(PATIENCE) == 0
    log = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert {"_granian", "broker.supervisor"} <= {entry["logger"] for entry in log}
    assert not [entry for entry in log if entry["level"] in {"error", "critical"}]


@pytest.mark.requirement("R-23")
def test_a_worker_that_granian_forked_is_replaced_when_it_dies(running: Running) -> None:
    running.until(lambda status, _: status == 200)
    before = children(running.process.pid)
    (forked,) = grandchildren(running.process.pid)

    os.kill(forked, signal.SIGKILL)

    running.until(
        lambda status, _: status == 200 and not grandchildren(running.process.pid) <= {forked}
    )
    after = children(running.process.pid)
    assert len(before & after) == 2
    assert len(after - before) == 1
    until(lambda: not Path(f"/proc/{forked}").exists(), seconds=PATIENCE, what="it is gone")


def grandchildren(pid: int) -> set[int]:
    return {forked for child in children(pid) for forked in children(child)}


def children(pid: int) -> set[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return set()
    return {int(one) for one in text.split()}
