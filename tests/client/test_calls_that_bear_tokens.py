"""Tokens of calls over gRPC: on the way out to their resource alone, on the way in made current."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from click.testing import CliRunner

from broker.cli import main
from broker.client import Broker, NoSubjectToken, Refused, Secret, SyncBroker
from broker.client._grpc_calls import WATCH
from broker.client.current import reset_current, set_current
from broker.client.grpc import (
    CurrentToken,
    SyncCurrentToken,
    call_credentials,
    interceptors,
    loopback_channel,
)
from tests.client.grpc_api import KINDS, GrpcApi, aio_handlers, call, call_blocking, grpc_api
from tests.client.scripted_grpc import scripted_grpc, server_credentials
from tests.client.scripted_server import ScriptedServer, scripted_server, told
from tests.client.test_requests_that_bear_tokens import INBOUND, granting
from tests.e2e.patience import until

SECRET = Secret("tickets", "s3cret")
API = "https://api.example"


@dataclass(frozen=True)
class Scene:
    """A broker, and a service behind TLS."""

    broker: ScriptedServer
    api: GrpcApi
    trust: grpc.ChannelCredentials

    @property
    def resource(self) -> str:
        """The service as a resource."""
        return f"https://127.0.0.1:{self.api.port}/crm"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the service."""
    return trustme.CA()


@pytest.fixture
def scene(authority: trustme.CA) -> Iterator[Scene]:
    """The servers, and a request in progress that brought a token."""
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    trust = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with ExitStack() as closing:
        broker = closing.enter_context(scripted_server())
        granting(broker)
        api = closing.enter_context(grpc_api(server_credentials(certificate)))
        closing.callback(reset_current, set_current(INBOUND))
        yield Scene(broker, api, trust)


def over_tls(
    scene: Scene, act: Callable[[grpc.aio.Channel], Awaitable[Any]], **options: Any
) -> Any:
    """Do something with a channel whose calls bear tokens."""
    resource = options.pop("resource", scene.resource)

    async def run() -> Any:
        async with Broker(scene.broker.origin, SECRET) as broker:
            chain = interceptors(broker, resource, **options)
            target = scene.api.target
            async with grpc.aio.secure_channel(target, scene.trust, interceptors=chain) as channel:
                return await act(channel)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_bears_the_token_that_was_exchanged_for_the_inbound_one(
    scene: Scene, kind: str
) -> None:
    over_tls(scene, lambda channel: call(channel, kind), scopes=["crm.read"])

    (asked,) = scene.broker.asked
    assert asked.form["subject_token"] == INBOUND
    assert asked.form["resource"] == scene.resource
    assert scene.api.asked == [["Bearer token-1"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_that_the_caller_passes_on_is_left_out(scene: Scene, kind: str) -> None:
    metadata = (("authorization", f"Bearer {INBOUND}"),)

    over_tls(scene, lambda channel: call(channel, kind, metadata=metadata))

    assert scene.api.asked == [["Bearer token-1"]]


def test_each_request_in_progress_has_its_own_token_on_the_same_channel(scene: Scene) -> None:
    async def one(channel: grpc.aio.Channel, subject: str) -> None:
        set_current(subject)
        await call(channel, "unary_unary")

    async def act(channel: grpc.aio.Channel) -> None:
        await asyncio.gather(*(one(channel, f"subject-{number}") for number in range(5)))

    over_tls(scene, act)

    assert len({values[0] for values in scene.api.asked}) == 5
    assert len({one.form["subject_token"] for one in scene.broker.asked}) == 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "resource", ["https://127.0.0.1:1", "https://localhost:{port}", "https://api.example"]
)
def test_a_call_to_another_origin_is_not_sent(scene: Scene, kind: str, resource: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="wrong_origin"):
        over_tls(
            scene,
            lambda channel: call(channel, kind),
            resource=resource.format(port=scene.api.port),
        )

    assert not scene.api.asked


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_names_another_host_gets_no_token(scene: Scene, kind: str) -> None:
    async def run() -> None:
        async with Broker(scene.broker.origin, SECRET) as broker:
            options = (("grpc.ssl_target_name_override", "localhost"),)
            chain = interceptors(broker, scene.resource)
            async with grpc.aio.secure_channel(
                scene.api.target, scene.trust, options=options, interceptors=chain
            ) as channel:
                await call(channel, kind)

    with pytest.raises(grpc.aio.AioRpcError, match="wrong_origin"):
        asyncio.run(run())
    assert not scene.api.asked


def test_a_channel_without_tls_carries_no_token_by_mistake(scene: Scene) -> None:
    async def run(plain: GrpcApi) -> None:
        async with Broker(scene.broker.origin, SECRET) as broker:
            chain = interceptors(broker, f"https://127.0.0.1:{plain.port}")
            async with grpc.aio.insecure_channel(plain.target, interceptors=chain) as channel:
                await call(channel, "unary_unary")

    with grpc_api() as plain:
        with pytest.raises((grpc.aio.AioRpcError, grpc.aio.UsageError)):
            asyncio.run(run(plain))
        assert not [values for values in plain.asked if values]


def test_a_token_that_is_not_accepted_is_replaced_once(scene: Scene) -> None:
    scene.api.refusals.append(grpc.StatusCode.UNAUTHENTICATED)

    over_tls(scene, lambda channel: call(channel, "unary_unary"))

    assert scene.api.asked == [["Bearer token-1"], ["Bearer token-2"]]


def test_a_resource_that_accepts_nothing_is_asked_twice(scene: Scene) -> None:
    scene.api.refusals += [grpc.StatusCode.UNAUTHENTICATED] * 9

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        over_tls(scene, lambda channel: call(channel, "unary_unary"))

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(scene.api.asked) == 2


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_stream_is_not_repeated_and_the_next_has_another_token(scene: Scene, kind: str) -> None:
    scene.api.refusals.append(grpc.StatusCode.UNAUTHENTICATED)

    async def act(channel: grpc.aio.Channel) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(channel, kind)
        for watch in asyncio.all_tasks() - {asyncio.current_task()}:
            if watch.get_name() == WATCH:
                await watch
        await call(channel, kind)

    over_tls(scene, act)

    assert scene.api.asked == [["Bearer token-1"], ["Bearer token-2"]]


def test_when_the_broker_gives_no_token_nothing_is_sent(scene: Scene) -> None:
    scene.broker.script.append(told({"error": "invalid_target"}, 400))

    with pytest.raises(Refused):
        over_tls(scene, lambda channel: call(channel, "unary_unary"))

    assert not scene.api.asked


def test_without_a_request_in_progress_nothing_is_sent(scene: Scene) -> None:
    handle = set_current(None)

    with pytest.raises(NoSubjectToken):
        over_tls(scene, lambda channel: call(channel, "unary_unary"))

    reset_current(handle)
    assert not scene.broker.asked
    assert not scene.api.asked


def test_an_agent_without_a_user_bears_its_own_token(scene: Scene) -> None:
    over_tls(scene, lambda channel: call(channel, "unary_unary"), own=True)

    assert scene.broker.asked[0].form["grant_type"] == "client_credentials"
    assert scene.api.asked == [["Bearer token-1"]]


@pytest.fixture
def plain() -> Iterator[GrpcApi]:
    """The service without TLS."""
    with grpc_api() as api:
        yield api


@contextmanager
def proxy_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> Iterator[list[bytes]]:
    """A proxy that the environment names, and what anybody says to it."""
    for one in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(one, raising=False)
    # In capitals it is what other libraries read, and gRPC does not.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        heard.append(connection.recv(4096))

        threading.Thread(target=listen, daemon=True).start()
        monkeypatch.setenv(variable, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield heard
        listener.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def on_loopback(scene: Scene, plain: GrpcApi) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of ours to the service without TLS."""
    async with (
        Broker(scene.broker.origin, SECRET) as broker,
        loopback_channel(broker, f"http://{plain.target}") as channel,
    ):
        yield channel


@pytest.mark.parametrize("kind", KINDS)
def test_on_this_machine_a_token_may_go_without_tls(
    scene: Scene, plain: GrpcApi, kind: str
) -> None:
    metadata = (("authorization", f"Bearer {INBOUND}"), ("x-kept", "yes"))

    async def run() -> None:
        async with on_loopback(scene, plain) as channel:
            await call(channel, kind, metadata=metadata)

    asyncio.run(run())

    assert plain.asked == [["Bearer token-1"]]


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
@pytest.mark.parametrize("kind", KINDS)
def test_on_this_machine_a_token_takes_no_detour_over_a_proxy(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, plain: GrpcApi, kind: str, variable: str
) -> None:
    async def run() -> None:
        async with on_loopback(scene, plain) as channel:
            await call(channel, kind)

    with proxy_in_the_environment(monkeypatch, variable) as heard:
        asyncio.run(run())

    assert plain.asked == [["Bearer token-1"]]
    assert not heard


@pytest.mark.parametrize("way", ["async", "sync", "command"])
def test_a_broker_on_this_machine_is_asked_without_a_proxy_too(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The client's secret and the subject token would be read there."""

    async def ask(target: str) -> None:
        async with Broker("http://127.0.0.1:1", SECRET, grpc=target) as broker:
            await broker.exchange("subject", resource=API)

    with (
        proxy_in_the_environment(monkeypatch, "http_proxy") as heard,
        scripted_grpc() as server,
    ):
        target = f"127.0.0.1:{server.port}"
        if way == "async":
            asyncio.run(ask(target))
        elif way == "sync":
            with SyncBroker("http://127.0.0.1:1", SECRET, grpc=target) as broker:
                broker.exchange("subject", resource=API)
        else:
            as_client = ("--client", "a", "--resource", API, "--output", "token")
            asked = ["token", "exchange", "--grpc", target, *as_client]
            CliRunner().invoke(main, asked, input="subject", env={"BROKER_CLIENT_SECRET": "s"})

    assert len(server.asked) == 1
    assert not heard


def test_a_call_that_is_given_up_is_given_up_at_the_server_too(
    scene: Scene, plain: GrpcApi
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def wait(context: grpc.ServicerContext) -> None:
        context.add_callback(ended.set)
        begun.set()
        until(lambda: not context.is_active(), seconds=60, what="the call has ended")

    plain.while_asked = wait

    async def run() -> None:
        async with on_loopback(scene, plain) as channel:
            calling = asyncio.create_task(call(channel, "unary_unary"))
            await asyncio.to_thread(begun.wait, 60)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert await asyncio.to_thread(ended.wait, 60)

    asyncio.run(run())


@pytest.mark.parametrize(
    "resource",
    [
        "https://127.0.0.1:5000",
        "https://api.example",
        "http://api.example:5000",
        "http://127.0.0.1.evil.test:5000",
        "http://127.0.0.1:5000@evil.test",
        "dns://8.8.8.8/127.0.0.1:5000",
        "",
    ],
)
def test_no_channel_without_tls_leads_elsewhere(resource: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        loopback_channel(Broker("https://broker.example", SECRET), resource, own=True)


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_of_one_call_bear_the_token_from_code_that_blocks(
    scene: Scene, kind: str
) -> None:
    with (
        SyncBroker(scene.broker.origin, SECRET) as broker,
        grpc.secure_channel(scene.api.target, scene.trust) as channel,
    ):
        mine = call_credentials(broker, scene.resource, subject_token=INBOUND)
        call_blocking(channel, kind, credentials=mine)

    assert scene.broker.asked[0].form["subject_token"] == INBOUND
    assert scene.api.asked == [["Bearer token-1"]]


def test_credentials_of_a_channel_bear_the_clients_own_token(scene: Scene) -> None:
    with SyncBroker(scene.broker.origin, SECRET) as broker:
        own = call_credentials(broker, scene.resource, own=True)
        both = grpc.composite_channel_credentials(scene.trust, own)
        with grpc.secure_channel(scene.api.target, both) as channel:
            for _ in range(3):
                call_blocking(channel, "unary_unary")

    assert len(scene.broker.asked) == 1
    assert scene.api.asked == [["Bearer token-1"]] * 3


@pytest.mark.parametrize(
    "resource", ["https://127.0.0.1:1", "https://localhost:{port}", "https://api.example"]
)
def test_credentials_do_not_go_to_another_origin(scene: Scene, resource: str) -> None:
    with (
        SyncBroker(scene.broker.origin, SECRET) as broker,
        grpc.secure_channel(scene.api.target, scene.trust) as channel,
    ):
        theirs = call_credentials(broker, resource.format(port=scene.api.port), own=True)
        with pytest.raises(grpc.RpcError, match="wrong_origin"):
            call_blocking(channel, "unary_unary", credentials=theirs)

    assert not scene.broker.asked
    assert not scene.api.asked


def test_credentials_without_a_token_send_nothing(scene: Scene) -> None:
    scene.broker.script.append(told({"error": "invalid_target"}, 400))

    with (
        SyncBroker(scene.broker.origin, SECRET) as broker,
        grpc.secure_channel(scene.api.target, scene.trust) as channel,
    ):
        mine = call_credentials(broker, scene.resource, subject_token=INBOUND)
        with pytest.raises(grpc.RpcError, match="invalid_target"):
            call_blocking(channel, "unary_unary", credentials=mine)

    assert not scene.api.asked


def test_credentials_are_for_a_subject_or_for_the_client_and_not_for_both() -> None:
    broker = SyncBroker("https://broker.example", SECRET)

    with pytest.raises(ValueError, match="subject token"):
        call_credentials(broker, "https://api.example")
    with pytest.raises(ValueError, match="subject token"):
        call_credentials(broker, "https://api.example", subject_token="a", own=True)


INCOMING: list[tuple[tuple[tuple[str, str], ...], bytes]] = [
    ((("authorization", "Bearer one"),), b"one"),
    ((("authorization", "bearer  two"),), b"two"),
    ((), b""),
    ((("authorization", "Basic b25l"),), b""),
    ((("authorization", "Bearer"),), b""),
    ((("authorization", "Bearer a b"),), b""),
    ((("authorization", "Bearer one"), ("authorization", "Bearer two")), b""),
    ((("authorization", "Bearer three"),), b"three"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_of_each_call_is_the_current_one_in_a_server_with_threads(kind: str) -> None:
    with (
        grpc_api(interceptors=(SyncCurrentToken(),)) as api,
        grpc.insecure_channel(api.target) as channel,
    ):
        seen = [call_blocking(channel, kind, metadata=metadata) for metadata, _ in INCOMING]

    assert seen == [expected for _, expected in INCOMING]


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_of_each_call_is_the_current_one_in_an_event_loop(kind: str) -> None:
    async def run() -> list[bytes]:
        server = grpc.aio.server(interceptors=(CurrentToken(),))
        server.add_generic_rpc_handlers((aio_handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        set_current("of whoever started the server")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = (call(channel, kind, metadata=metadata) for metadata, _ in INCOMING)
            seen = await asyncio.gather(*calls)
        await server.stop(0)
        return seen

    assert asyncio.run(run()) == [expected for _, expected in INCOMING]
