import contextlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from broker.rpc.server import RunningServer
from tests.rpc.calling import Client, connected, serving
from tests.web.face_fakes import fake_endpoints

SERVICES = (
    "",
    "broker.v1.TokenService",
    "broker.v1.DiscoveryService",
    "broker.v1.PolicyService",
    "broker.v1.AdminService",
    "grpc.health.v1.Health",
)
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")


@pytest.fixture
def face() -> Iterator[tuple[RunningServer, Client]]:
    with serving(fake_endpoints(), has_reflection=True) as face:
        yield face


def status_of(client: Client, service: str) -> str:
    stub = health_pb2_grpc.HealthStub(client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


@pytest.mark.parametrize("service", SERVICES)
def test_health_is_as_it_was_set(face: tuple[RunningServer, Client], service: str) -> None:
    server, client = face
    assert status_of(client, service) == "SERVING"
    server.set_serving(False)
    assert status_of(client, service) == "NOT_SERVING"
    server.set_serving(True)
    assert status_of(client, service) == "SERVING"


def test_the_health_of_an_unknown_service_is_not_found(face: tuple[RunningServer, Client]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        status_of(face[1], "nope")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_health_check_that_cannot_be_read_is_refused(face: tuple[RunningServer, Client]) -> None:
    refused = face[1].refused("/grpc.health.v1.Health/Check", b"\x0a\x02\xff\xfe")
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


def watch(client: Client, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(client.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)


def test_who_watches_is_told_of_a_change(face: tuple[RunningServer, Client]) -> None:
    server, client = face
    news = watch(client)
    assert next(news).status == health_pb2.HealthCheckResponse.SERVING
    server.set_serving(False)
    assert next(news).status == health_pb2.HealthCheckResponse.NOT_SERVING
    news.cancel()


def test_who_watches_is_told_of_a_stop() -> None:
    with serving(fake_endpoints()) as (server, client):
        news = watch(client)
        assert next(news).status == health_pb2.HealthCheckResponse.SERVING
        stop = threading.Thread(target=lambda: server.stop(5))
        stop.start()
        assert next(news).status == health_pb2.HealthCheckResponse.NOT_SERVING
        news.cancel()
        stop.join(10)


def test_watchers_are_bounded_and_hold_no_thread(face: tuple[RunningServer, Client]) -> None:
    server, client = face
    with contextlib.ExitStack() as stack:
        # A connection has sixteen calls at a time.
        clients = [client, *(stack.enter_context(connected(server)) for _ in range(4))]
        watches = [watch(clients[number // 16]) for number in range(64)]
        for news in watches:
            assert next(news).status == health_pb2.HealthCheckResponse.SERVING
        other = clients[-1]
        with pytest.raises(grpc.RpcError) as refused:
            next(watch(other))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for news in watches:
            news.cancel()
        assert status_of(other, "") == "SERVING"


def described(client: Client, package: str, **request: str) -> Any:
    ask = client.channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=60)
    return answer


@pytest.mark.parametrize("package", REFLECTION)
def test_reflection_lists_what_is_served_under_both_its_names(
    face: tuple[RunningServer, Client], package: str
) -> None:
    answer = described(face[1], package, list_services="*")
    names = {service.name for service in answer.list_services_response.service}
    assert names == {*SERVICES[1:], *(f"{one}.ServerReflection" for one in REFLECTION)}


@pytest.mark.parametrize("package", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    [
        "broker.v1.TokenService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "google.rpc.ErrorInfo",
    ],
)
def test_reflection_describes_every_symbol(
    face: tuple[RunningServer, Client], package: str, symbol: str
) -> None:
    answer = described(face[1], package, file_containing_symbol=symbol)
    assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("package", REFLECTION)
def test_reflection_knows_nothing_else(face: tuple[RunningServer, Client], package: str) -> None:
    for request in ({"file_containing_symbol": "broker.v1.Nothing"}, {"file_by_filename": "/etc"}):
        answer = described(face[1], package, **request)
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.requirement("GRP-05")
@pytest.mark.parametrize("package", [*REFLECTION, "grpc.channelz.v1"])
def test_nothing_is_described_unless_asked_for(package: str) -> None:
    with serving(fake_endpoints()) as (_, client):
        refused = client.refused(f"/{package}.ServerReflection/ServerReflectionInfo")
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED


def test_streams_of_questions_are_bounded(face: tuple[RunningServer, Client]) -> None:
    over = threading.Event()

    def one_and_no_more() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="*")
        over.wait(20)

    client = face[1]
    ask = client.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    streams = [ask(one_and_no_more(), timeout=20) for _ in range(4)]
    for stream in streams:
        next(stream)
    with pytest.raises(grpc.RpcError) as refused:
        described(client, REFLECTION[0], list_services="*")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()
    over.set()


def curl(server: RunningServer, path: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "buf",
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            *options,
            f"http://127.0.0.1:{server.port}{path}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
def test_a_tool_without_our_files_can_call_us(
    face: tuple[RunningServer, Client], protocol: str
) -> None:
    reflect = ("--reflect-protocol", protocol)
    server, _ = face
    listed = curl(server, "", "--list-methods", *reflect)
    assert "broker.v1.TokenService/ExchangeToken" in listed.stdout, listed.stderr
    healthy = curl(server, "/grpc.health.v1.Health/Check", *reflect)
    assert '"SERVING"' in healthy.stdout, healthy.stderr
    exchanged = curl(
        server, "/broker.v1.TokenService/ExchangeToken", "-d", '{"subjectToken": "s"}', *reflect
    )
    assert '"accessToken": "header.payload.signature"' in exchanged.stdout, exchanged.stderr
