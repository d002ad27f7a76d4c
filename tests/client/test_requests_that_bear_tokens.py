"""A token goes to its resource and nowhere else, by every HTTP library that has an adapter."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client import (
    BadAnswer,
    Broker,
    NoSubjectToken,
    Refused,
    StepUpRequired,
    SyncBroker,
    Unavailable,
    WrongOrigin,
)
from broker.client._bearing import Wanted
from broker.client.current import reset_current, set_current
from broker.client.httpx import BrokerAuth as HttpxAuth
from broker.client.httpx2 import BrokerAuth
from tests.client.callers import LIBRARIES, SECRET, Caller, caller
from tests.client.scripted_server import Asked, Reply, ScriptedServer, scripted_server, told

INBOUND = "inbound-token"
OK = Reply(200, b"{}")
UNAUTHORIZED = Reply(401, b"{}", {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def lacking(scopes: str) -> Reply:
    """The answer to a token that lacks scopes."""
    challenge = f'Bearer realm="api", error="insufficient_scope", scope="{scopes}"'
    return Reply(403, b"{}", {"WWW-Authenticate": challenge})


@dataclass(frozen=True)
class Scene:
    """A broker, an API, and another server that has no business with the API's tokens."""

    library: str
    broker: ScriptedServer
    api: ScriptedServer
    elsewhere: ScriptedServer
    closing: ExitStack

    def caller(self, **options: Any) -> Caller:
        """The library with a token for the API."""
        made = caller(self.library, self.broker.origin, f"{self.api.origin}/v2", **options)
        self.closing.callback(made.close)
        return made

    @property
    def nothing_was_sent(self) -> bool:
        """Whether no server but the broker heard of anything."""
        return not (self.api.asked or self.elsewhere.asked)


def granting(broker: ScriptedServer) -> None:
    """Grant what is asked for, with another token each time."""
    numbers = count(1)

    def grant(asked: Asked) -> Reply:
        members = {"access_token": f"token-{next(numbers)}", "token_type": "Bearer"}
        scope = asked.form.get("scope", "crm.read")
        return told({**members, "expires_in": 300, "scope": scope})

    broker.otherwise = grant


@pytest.fixture(params=LIBRARIES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The servers, and a request in progress that brought a token."""
    with (
        scripted_server() as broker,
        scripted_server() as api,
        scripted_server() as elsewhere,
        ExitStack() as closing,
    ):
        granting(broker)
        api.otherwise = elsewhere.otherwise = lambda _asked: OK
        closing.callback(reset_current, set_current(INBOUND))
        yield Scene(request.param, broker, api, elsewhere, closing)


@pytest.mark.requirement("MCPRS-02")
def test_a_request_bears_the_token_that_was_exchanged_for_the_inbound_one(scene: Scene) -> None:
    got = scene.caller(scopes=["crm.read"]).send(f"{scene.api.origin}/v2/contacts")

    (exchanged,) = scene.broker.asked
    assert got.status == 200
    assert exchanged.form["subject_token"] == INBOUND
    assert exchanged.form["resource"] == f"{scene.api.origin}/v2"
    assert exchanged.form["scope"] == "crm.read"
    assert [one.bearer for one in scene.api.asked] == ["token-1"]


def test_requests_of_one_subject_share_a_token_and_others_have_their_own(scene: Scene) -> None:
    held = scene.caller()

    held.send(scene.api.origin)
    held.send(scene.api.origin)
    handle = set_current("of somebody else")
    held.send(scene.api.origin)
    reset_current(handle)

    assert [one.bearer for one in scene.api.asked] == ["token-1", "token-1", "token-2"]


@pytest.mark.requirement("MCPRS-02")
def test_a_token_that_the_caller_passes_on_is_replaced(scene: Scene) -> None:
    headers = {"authorization": f"Bearer {INBOUND}"}

    scene.caller().send(scene.api.origin, headers=headers)

    assert [one.headers["authorization"] for one in scene.api.asked] == ["Bearer token-1"]


def test_an_agent_without_a_user_bears_its_own_token(scene: Scene) -> None:
    scene.caller(own=True, scopes="crm.read").send(scene.api.origin)

    (asked,) = scene.broker.asked
    assert asked.form["grant_type"] == "client_credentials"
    assert "subject_token" not in asked.form
    assert [one.bearer for one in scene.api.asked] == ["token-1"]


def test_without_a_request_in_progress_nothing_is_sent(scene: Scene) -> None:
    handle = set_current(None)

    with pytest.raises(NoSubjectToken):
        scene.caller().send(scene.api.origin)

    reset_current(handle)
    assert scene.nothing_was_sent
    assert not scene.broker.asked


@pytest.mark.requirement("MCPRS-02")
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (told({"error": "invalid_target"}, 400), Refused),
        (told({"error": "insufficient_user_authentication"}, 400), StepUpRequired),
        (told({"access_token": "t", "token_type": "DPoP", "expires_in": 5}), BadAnswer),
        (Reply(404), BadAnswer),
        (told({"error": "temporarily_unavailable"}, 503, Retry_After="60"), Unavailable),
    ],
)
def test_when_the_broker_gives_no_token_nothing_is_sent(
    scene: Scene, reply: Reply, error: type[Exception]
) -> None:
    scene.broker.script.append(reply)

    with pytest.raises(error):
        scene.caller().send(scene.api.origin)

    assert scene.nothing_was_sent


ELSEWHERE = {
    "another port": "http://127.0.0.1:{elsewhere}/",
    "another name of this machine": "http://localhost:{api}/",
    "another scheme": "https://127.0.0.1:{api}/",
    "another protocol": "ftp://127.0.0.1:{api}/",
    "no port": "http://127.0.0.1/",
    "a user that looks like the host": "http://127.0.0.1:{api}@localhost:{elsewhere}/",
    "a user that is one": "http://ann:secret@127.0.0.1:{api}/",
    "a name below": "http://127.0.0.1.evil.test:{api}/",
    "a name that ends with a dot": "http://localhost.:{api}/",
    "a backslash": "http://127.0.0.1:{elsewhere}\\@127.0.0.1:{api}/",
    "a fragment before the user": "http://127.0.0.1:{elsewhere}#@127.0.0.1:{api}/",
    "a query before the user": "http://127.0.0.1:{elsewhere}?@127.0.0.1:{api}/",
}


@pytest.mark.parametrize("url", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_request_to_another_origin_is_not_sent(scene: Scene, url: str) -> None:
    url = url.format(api=scene.api.port, elsewhere=scene.elsewhere.port)
    wrong = (WrongOrigin, ValueError, httpx.InvalidURL, httpx2.InvalidURL)

    with pytest.raises(wrong):
        scene.caller().send(url)

    assert scene.nothing_was_sent
    assert not scene.broker.asked


def test_the_same_origin_may_be_written_otherwise(scene: Scene) -> None:
    url = f"HTTP://127.0.0.1:{scene.api.port}/elsewhere?x=@y#@z"

    assert scene.caller().send(url).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_redirect_takes_a_token_to_another_origin(scene: Scene, status: int, host: str) -> None:
    location = f"http://{host}:{scene.elsewhere.port}/collect"
    scene.api.script.append(Reply(status, headers={"Location": location}))

    got = scene.caller().send(scene.api.origin)

    assert got.url == location
    assert [one.bearer for one in scene.api.asked] == ["token-1"]
    assert [one.headers.get("authorization") for one in scene.elsewhere.asked] == [None]


def test_a_redirect_by_way_of_another_origin_does_not_give_the_token_back(scene: Scene) -> None:
    away = {"Location": f"{scene.elsewhere.origin}/"}
    back = {"Location": f"{scene.api.origin}/back"}
    scene.api.script.append(Reply(307, headers=away))
    scene.elsewhere.script.append(Reply(307, headers=back))

    scene.caller().send(scene.api.origin)

    assert [one.bearer for one in scene.elsewhere.asked] == [None]
    assert [one.path for one in scene.api.asked] == ["/", "/back"]


def test_a_redirect_within_the_origin_keeps_the_token(scene: Scene) -> None:
    scene.api.script.append(Reply(307, headers={"Location": "/v3"}))

    scene.caller().send(scene.api.origin)

    assert [(one.path, one.bearer) for one in scene.api.asked] == [
        ("/", "token-1"),
        ("/v3", "token-1"),
    ]


@pytest.mark.parametrize("reply", [UNAUTHORIZED, lacking("crm.admin")])
def test_nobody_but_the_resource_moves_the_library_to_ask_for_more(
    scene: Scene, reply: Reply
) -> None:
    location = {"Location": f"{scene.elsewhere.origin}/"}
    scene.api.script.append(Reply(307, headers=location))
    scene.elsewhere.script.append(reply)
    held = scene.caller()

    got = held.send(scene.api.origin)
    held.send(scene.api.origin)

    assert got.status == reply.status
    assert len(scene.broker.asked) == 1
    assert len(scene.elsewhere.asked) == 1


def test_a_token_that_is_not_accepted_is_replaced_once(scene: Scene) -> None:
    scene.api.script.append(UNAUTHORIZED)
    held = scene.caller()

    got = held.send(scene.api.origin, method="POST", content=b"the body")
    held.send(scene.api.origin)

    assert got.status == 200
    assert [one.bearer for one in scene.api.asked] == ["token-1", "token-2", "token-2"]
    assert [one.body for one in scene.api.asked[:2]] == [b"the body", b"the body"]


def test_a_resource_that_accepts_nothing_is_asked_twice(scene: Scene) -> None:
    scene.api.otherwise = lambda _asked: UNAUTHORIZED

    got = scene.caller().send(scene.api.origin)

    assert got.status == 401
    assert [one.bearer for one in scene.api.asked] == ["token-1", "token-2"]


def test_a_resource_that_accepts_nothing_costs_the_broker_little(scene: Scene) -> None:
    scene.api.otherwise = lambda _asked: UNAUTHORIZED
    held = scene.caller()

    statuses = [held.send(scene.api.origin).status for _ in range(8)]

    assert statuses == [401] * 8
    assert len(scene.broker.asked) <= 3
    assert len(scene.api.asked) <= 11


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_token_for_this_machine_takes_no_detour_over_a_proxy(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for one in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(variable, scene.elsewhere.origin)

    with pytest.raises(WrongOrigin, match="NO_PROXY"):
        scene.caller().send(scene.api.origin)

    assert scene.nothing_was_sent
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert scene.caller().send(scene.api.origin).status == 200
    assert not scene.elsewhere.asked


def test_a_request_for_another_site_of_the_same_server_is_not_sent(scene: Scene) -> None:
    with pytest.raises(WrongOrigin):
        scene.caller().send(scene.api.origin, headers={"Host": "evil.example"})

    assert scene.nothing_was_sent


def test_when_there_is_no_other_token_the_refusal_is_raised(scene: Scene) -> None:
    held = scene.caller()
    held.send(scene.api.origin)
    scene.api.script.append(UNAUTHORIZED)
    scene.broker.script.append(told({"error": "invalid_request"}, 400))

    with pytest.raises(Refused):
        held.send(scene.api.origin)


def test_a_body_that_cannot_be_sent_twice_is_sent_once(scene: Scene) -> None:
    scene.api.script.append(UNAUTHORIZED)

    async def chunks_async() -> Any:
        yield b"once"

    def chunks() -> Any:
        yield b"once"

    content = chunks_async() if scene.library.endswith("-async") else chunks()
    got = scene.caller().send(
        scene.api.origin, method="POST", content=content, headers={"Content-Length": "4"}
    )

    assert got.status == 401
    assert len(scene.api.asked) == 1


def test_scopes_that_are_missing_are_asked_for_once_with_those_there_are(scene: Scene) -> None:
    scene.api.script.append(lacking("crm.write crm.read"))

    got = scene.caller(scopes=["crm.read"]).send(scene.api.origin)

    assert got.status == 200
    assert [one.form["scope"] for one in scene.broker.asked] == ["crm.read", "crm.read crm.write"]
    assert [one.bearer for one in scene.api.asked] == ["token-1", "token-2"]


def test_the_next_request_begins_with_the_least_again(scene: Scene) -> None:
    scene.api.script.append(lacking("crm.write"))
    held = scene.caller(scopes=["crm.read"])

    held.send(scene.api.origin)
    held.send(scene.api.origin)

    assert [one.bearer for one in scene.api.asked] == ["token-1", "token-2", "token-1"]


def test_a_resource_that_wants_more_and_more_is_asked_twice(scene: Scene) -> None:
    wants = count(1)
    scene.api.otherwise = lambda _asked: lacking(f"scope-{next(wants)}")

    got = scene.caller(scopes=["crm.read"]).send(scene.api.origin)

    assert got.status == 403
    assert len(scene.api.asked) == len(scene.broker.asked) == 2


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer error="insufficient_scope"',
        'Bearer error="insufficient_scope", scope=""',
        'Bearer error="insufficient_scope", scope="crm.read"',
        'Bearer error="invalid_token", scope="crm.write"',
        'DPoP error="insufficient_scope", scope="crm.write"',
        'Basic realm="Bearer error=insufficient_scope, scope=crm.write"',
    ],
)
def test_a_refusal_that_more_scopes_would_not_cure_is_the_answer(
    scene: Scene, challenge: str
) -> None:
    scene.api.script.append(Reply(403, b"{}", {"WWW-Authenticate": challenge}))

    got = scene.caller(scopes=["crm.read"]).send(scene.api.origin)

    assert got.status == 403
    assert len(scene.broker.asked) == 1


def test_a_step_up_that_the_broker_refuses_is_raised(scene: Scene) -> None:
    scene.api.script.append(lacking("crm.write"))
    held = scene.caller(scopes=["crm.read"])
    scene.broker.script.append(
        told({"access_token": "t", "token_type": "Bearer", "expires_in": 300, "scope": "crm.read"})
    )
    scene.broker.script.append(
        told({"error": "insufficient_user_authentication", "acr_values": "phr"}, 400)
    )

    with pytest.raises(StepUpRequired) as caught:
        held.send(scene.api.origin)

    assert caught.value.step_up.acr_values == "phr"
    assert len(scene.api.asked) == 1


@pytest.mark.parametrize(
    "resource", ["http://api.example", "ftp://127.0.0.1", "api.example", "https://a@b.example", ""]
)
def test_a_resource_that_no_token_may_be_sent_to_is_refused_at_once(resource: str) -> None:
    with pytest.raises(ValueError, match=r"https|address|URL"):
        Wanted(resource)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_broker_of_the_other_kind_is_told_so(library: str) -> None:
    client, kind = (httpx2, BrokerAuth) if library == "httpx2" else (httpx, HttpxAuth)
    resource = "https://api.example"

    async def send() -> None:
        auth = kind(SyncBroker("https://broker.example", SECRET), resource)
        async with client.AsyncClient(auth=auth) as sender:
            await sender.get(resource)

    with pytest.raises(TypeError, match="wants a Broker"):
        asyncio.run(send())
    auth = kind(Broker("https://broker.example", SECRET), resource)
    with client.Client(auth=auth) as sender, pytest.raises(TypeError, match="wants a SyncBroker"):
        sender.get(resource)


hosts = st.sampled_from(
    ["api.example", "API.example", "api.example.", "evil.test", "api.example.evil.test", "[::1]"]
)
ports = st.sampled_from(["", ":443", ":80", ":8443", ":0443"])
schemes = st.sampled_from(["https", "HTTPS", "http", "ws", ""])
users = st.sampled_from(["", "@", "api.example@", "api.example:443@", "a:b@"])
tails = st.sampled_from(["", "/", "/v2?@evil.test", "#@evil.test", "\\@evil.test", "/\n", " "])


@given(schemes, users, hosts, ports, tails)
def test_just_one_origin_is_that_of_the_resource(
    scheme: str, user: str, host: str, port: str, tail: str
) -> None:
    wanted = Wanted("https://API.example:443/v2")
    is_right = (
        scheme.lower() == "https"
        and not user
        and host.lower() == "api.example"
        and port in {"", ":443", ":0443"}
        and not any(one in tail for one in "\\\n ")
    )

    if is_right:
        wanted.check(f"{scheme}://{user}{host}{port}{tail}")
    else:
        with pytest.raises(WrongOrigin):
            wanted.check(f"{scheme}://{user}{host}{port}{tail}")


@given(st.text())
def test_no_text_is_mistaken_for_a_request_to_the_resource(text: str) -> None:
    with pytest.raises(WrongOrigin):
        Wanted("https://api.example").check(text)
