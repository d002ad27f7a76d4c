"""Brokers that are busy, slow, away, or none at all: what the library does about each."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from broker.client import (
    BadAnswer,
    Broker,
    BrokerError,
    KeyFile,
    Patience,
    Refused,
    Secret,
    SyncBroker,
    Unavailable,
)
from broker.client._grpc import channel_credentials
from broker.client.credentials import Credential, Presented
from tests.client.hands import Hand, hand
from tests.client.scripted_grpc import (
    DETAILS,
    Failure,
    ScriptedGrpc,
    failure,
    issued,
    scripted_grpc,
)
from tests.client.scripted_server import Reply, ScriptedServer, scripted_server, told
from tests.client.whole_broker import write_key
from tests.harness import decode_claims
from tests.idp import signer

API = "https://api.example"
LONG = 30.0
"""Seconds that a server takes which is slow on purpose."""

SECRET = Secret("tickets", "s3cret")
GRANTED = {"access_token": "new", "token_type": "Bearer", "expires_in": 300}
BUSY = {"error": "temporarily_unavailable", "error_description": "Come back later."}


@dataclass(frozen=True)
class Place:
    """A server in the broker's place, on both faces, and the way the library asks it."""

    way: str
    http: ScriptedServer
    grpc: ScriptedGrpc
    closing: ExitStack

    def hold(self, credential: Credential = SECRET, **options: Any) -> Hand:
        """The library, held."""
        target = f"127.0.0.1:{self.grpc.port}"
        held = hand(self.way, self.http.origin, credential, grpc=target, **options)
        self.closing.callback(held.close)
        return held

    def be_busy(self, times: int) -> None:
        """Turn this many requests away."""
        for _ in range(times):
            self.http.script.append(
                told(BUSY, 503, Retry_After="0", Broker_Decision_Id="decision-1")
            )
            facts = {"error": "temporarily_unavailable", "decision_id": "decision-1"}
            self.grpc.script.append(failure(grpc.StatusCode.UNAVAILABLE, facts, retry_after=0))

    def hold_back(self) -> threading.Event:
        """Answer nothing until the event is set."""
        gate = threading.Event()
        self.closing.callback(gate.set)
        self.http.script.append(Reply(200, b"{}", gate=gate))
        self.grpc.gate = gate
        return gate

    @property
    def assertions(self) -> list[str]:
        """The client assertions that came so far."""
        by_grpc = [one.client_authentication.client_assertion for one in self.grpc.asked]
        return [one.form["client_assertion"] for one in self.http.asked] + by_grpc

    @property
    def count(self) -> int:
        """How many requests came so far."""
        return len(self.http.asked) + len(self.grpc.asked)


@pytest.fixture
def place(way: str) -> Iterator[Place]:
    """A server in the broker's place that grants, unless told otherwise."""
    with scripted_server() as http, scripted_grpc() as grpc_server, ExitStack() as closing:
        http.otherwise = lambda _asked: told(GRANTED)
        yield Place(way, http, grpc_server, closing)


def exchange(broker: Any) -> Any:
    """Ask for a token."""
    return broker.exchange("subject", resource=API)


def test_a_busy_broker_is_asked_again_each_time_with_another_assertion(
    place: Place, tmp_path: Path
) -> None:
    place.be_busy(2)
    held = place.hold(KeyFile("tickets", write_key(tmp_path / "key", signer("tickets"))))

    token = held.do(exchange)

    assert token.access_token == "new"
    assert len({decode_claims(one)["jti"] for one in place.assertions}) == 3


def test_a_broker_that_stays_busy_is_given_up(place: Place) -> None:
    place.be_busy(9)
    held = place.hold(patience=Patience(attempts=2))

    with pytest.raises(Unavailable) as caught:
        held.do(exchange)

    assert place.count == 2
    assert caught.value.is_retryable
    assert (caught.value.code, caught.value.decision_id) == (
        "temporarily_unavailable",
        "decision-1",
    )


def test_a_broker_that_wants_more_time_than_there_is_is_not_asked_again(place: Place) -> None:
    place.http.script.append(told(BUSY, 503, Retry_After="60"))
    facts = {"error": "temporarily_unavailable"}
    place.grpc.script.append(failure(grpc.StatusCode.UNAVAILABLE, facts, retry_after=60))
    held = place.hold(patience=Patience(deadline=30.0))

    with pytest.raises(Unavailable) as caught:
        held.do(exchange)

    assert place.count == 1
    assert caught.value.retry_after == 60


def test_a_broker_that_says_nothing_is_waited_for_until_the_deadline(place: Place) -> None:
    place.hold_back()
    held = place.hold(patience=Patience(deadline=0.3))
    begun = time.monotonic()

    with pytest.raises(Unavailable):
        held.do(exchange)

    assert time.monotonic() - begun < LONG / 2


def test_who_has_no_time_at_all_asks_nothing(place: Place) -> None:
    with pytest.raises(Unavailable, match="in time"):
        place.hold(patience=Patience(deadline=0)).do(exchange)

    assert place.count == 0


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
def test_an_answer_that_drips_is_waited_for_until_the_deadline(place: Place) -> None:
    place.http.script.append(Reply(200, b" " * 400, drip=LONG / 400))
    held = place.hold(patience=Patience(deadline=0.5))
    begun = time.monotonic()

    with pytest.raises(Unavailable, match="in time"):
        held.do(exchange)

    assert time.monotonic() - begun < LONG / 2


def test_a_refusal_is_final(place: Place) -> None:
    place.http.script.append(told({"error": "invalid_target"}, 400))
    facts = {"error": "invalid_target"}
    place.grpc.script.append(failure(grpc.StatusCode.PERMISSION_DENIED, facts))

    with pytest.raises(Refused, match="invalid_target"):
        place.hold().do(exchange)

    assert place.count == 1


def test_a_broker_that_is_not_there_is_unavailable(way: str) -> None:
    held = hand(
        way, "http://127.0.0.1:9", SECRET, grpc="127.0.0.1:9", patience=Patience(attempts=1)
    )

    with pytest.raises(Unavailable):
        held.do(exchange)

    held.close()


def test_what_failed_in_the_broker_may_be_tried_again(place: Place) -> None:
    place.http.script.append(told({"error": "server_error"}, 500, Retry_After="0"))
    facts = {"error": "server_error"}
    place.grpc.script.append(failure(grpc.StatusCode.INTERNAL, facts, retry_after=0))

    assert place.hold().do(exchange).access_token == "new"


def test_a_key_that_cannot_be_reached_for_a_moment_is_tried_again(place: Place) -> None:
    class Shy:
        """A credential that is away at first."""

        def __init__(self) -> None:
            self.asked = 0

        def present(self, issuer: str) -> Presented:
            self.asked += 1
            if self.asked == 1:
                raise Unavailable("away", retry_after=0)
            return SECRET.present(issuer)

    assert place.hold(Shy()).do(exchange).access_token == "new"
    assert place.count == 1


def test_what_stands_in_an_error_fits_on_one_line(place: Place) -> None:
    text = "a\r\nb\x1b[31m" + "c" * 5000
    place.http.script.append(told({"error": "invalid_grant", "error_description": text}, 400))
    refused = failure(grpc.StatusCode.INVALID_ARGUMENT, {"error": "invalid_grant"})
    place.grpc.script.append(Failure(refused.code, text, refused.trailing))

    with pytest.raises(Refused) as caught:
        place.hold().do(exchange)

    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


BAD_CODES = ["no code", "", "x" * 200, "Grüße"]


@pytest.mark.parametrize("code", BAD_CODES)
def test_a_code_that_is_none_is_not_passed_on(place: Place, code: str) -> None:
    place.http.script.append(told({"error": code}, 400))
    place.grpc.script.append(failure(grpc.StatusCode.INVALID_ARGUMENT, {"error": code}))

    with pytest.raises(BadAnswer):
        place.hold().do(exchange)


NO_ANSWERS = {
    "no JSON": Reply(200, b"<html>"),
    "no object": told(["access_token"]),
    "nothing": Reply(200, b""),
    "no token": told({"token_type": "Bearer", "expires_in": 5}),
    "an empty token": told({**GRANTED, "access_token": ""}),
    "a token that is no text": told({**GRANTED, "access_token": 7}),
    "a token for another header": told({**GRANTED, "access_token": "a\r\nX: b"}),
    "a lifetime in words": told({**GRANTED, "expires_in": "300"}),
    "a lifetime that is true": told({**GRANTED, "expires_in": True}),
    "a negative lifetime": told({**GRANTED, "expires_in": -1}),
    "a lifetime without end": told({**GRANTED, "expires_in": float("inf")}),
    "a lifetime that is no number": told({**GRANTED, "expires_in": float("nan")}),
    "an endless number": Reply(200, b'{"expires_in": ' + b"9" * 9000 + b"}"),
    "scopes in a list": told({**GRANTED, "scope": ["a"]}),
    "much": Reply(200, b" " * 300_000),
    "depth": Reply(200, b"[" * 200_000),
    "compressed": Reply(200, b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}),
    "another page": Reply(404, b"not found"),
    "a challenge of a proxy": Reply(407, b""),
}


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
@pytest.mark.parametrize("reply", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_of_a_broker_is_told_so(place: Place, reply: Reply) -> None:
    place.http.script.append(reply)

    with pytest.raises(BadAnswer):
        place.hold().do(exchange)

    assert place.count == 1


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
@pytest.mark.parametrize("retry_after", ["²", "soon", "-1", "9" * 400])
def test_when_to_come_back_is_read_with_doubt(place: Place, retry_after: str) -> None:
    place.http.script.append(told(BUSY, 503, Retry_After=retry_after))
    held = place.hold(patience=Patience(attempts=1))

    with pytest.raises(Unavailable) as caught:
        held.do(exchange)

    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_gateway_that_is_in_trouble_may_be_asked_again(place: Place, status: int) -> None:
    place.http.script.append(Reply(status, b"<html>", {"Retry-After": "0"}))

    assert place.hold().do(exchange).access_token == "new"
    assert place.count == 2


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_takes_a_secret_elsewhere(place: Place, status: int) -> None:
    with scripted_server() as elsewhere:
        headers = {"Location": f"{elsewhere.origin}/token"}
        place.http.script.append(Reply(status, headers=headers))

        with pytest.raises(BadAnswer):
            place.hold().do(exchange)

        assert not elsewhere.asked


NO_MESSAGES: dict[str, Any] = {
    "no token": issued(access_token=""),
    "a token for another header": issued(access_token="a b"),
    "a negative lifetime": issued(expires_in=-5),
    "no such method": Failure(grpc.StatusCode.UNIMPLEMENTED),
    "no reason": Failure(grpc.StatusCode.PERMISSION_DENIED),
    "reasons that cannot be read": Failure(
        grpc.StatusCode.PERMISSION_DENIED, trailing=((DETAILS, b"\xff\xff"),)
    ),
}


@pytest.mark.parametrize("way", ["grpc-async", "grpc-sync"], indirect=True)
@pytest.mark.parametrize("message", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_of_a_broker_is_told_so(place: Place, message: Any) -> None:
    place.grpc.script.append(message)

    with pytest.raises(BadAnswer):
        place.hold().do(exchange)


@pytest.mark.parametrize("way", ["grpc-async", "grpc-sync"], indirect=True)
def test_a_message_that_is_too_large_is_not_read(place: Place) -> None:
    place.grpc.script.append(issued(access_token="a" * 300_000))

    with pytest.raises(BrokerError):
        place.hold(patience=Patience(attempts=1)).do(exchange)


@pytest.mark.parametrize("kind", [Broker, SyncBroker])
@pytest.mark.parametrize(
    "issuer", ["http://broker.example", "http://127.evil.test", "ftp://broker.example", "broker"]
)
def test_a_secret_is_not_sent_in_the_clear(kind: Callable[..., Any], issuer: str) -> None:
    with pytest.raises(ValueError, match=r"https|address"):
        kind(issuer, SECRET)


@pytest.mark.parametrize("target", ["127.evil.test:443", "broker.example:443", "localhost.test:1"])
def test_a_channel_off_this_machine_has_tls(target: str) -> None:
    assert channel_credentials(target, None) is not None


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_channel_on_this_machine_needs_none(target: str) -> None:
    assert channel_credentials(target, None) is None


@dataclass(frozen=True)
class Secured:
    """A server in the broker's place behind TLS, and the file of whoever vouches for it."""

    http: ScriptedServer
    grpc: ScriptedGrpc
    ca_file: str

    def ask(self, way: str, *, host: str = "127.0.0.1", **options: Any) -> Any:
        """Ask it for a token, by this name."""
        target = f"{host}:{self.grpc.port}"
        issuer = f"https://{host}:{self.http.port}"
        held = hand(way, issuer, SECRET, grpc=target, patience=Patience(attempts=1), **options)
        try:
            return held.do(exchange)
        finally:
            held.close()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    """A server whose certificate is for its address alone."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with scripted_server(certificate) as http, scripted_grpc(certificate) as grpc_server:
        http.otherwise = lambda _asked: told(GRANTED)
        yield Secured(http, grpc_server, str(tmp_path / "ca.pem"))


def test_a_broker_is_believed_by_the_authority_that_is_named(secured: Secured, way: str) -> None:
    assert secured.ask(way, ca_file=secured.ca_file).access_token == "new"


def test_a_broker_that_somebody_else_vouches_for_hears_nothing(
    secured: Secured, way: str, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))

    with pytest.raises(Unavailable):
        secured.ask(way, ca_file=str(stranger))

    assert not secured.http.asked
    assert not secured.grpc.asked


def test_a_broker_under_another_name_hears_nothing(secured: Secured, way: str) -> None:
    with pytest.raises(Unavailable):
        secured.ask(way, host="localhost", ca_file=secured.ca_file)

    assert not secured.http.asked
    assert not secured.grpc.asked


@pytest.mark.parametrize("way", ["http-async", "http-sync"], indirect=True)
def test_without_a_named_authority_those_of_the_system_count(secured: Secured, way: str) -> None:
    with pytest.raises(Unavailable):
        secured.ask(way)

    assert not secured.http.asked
