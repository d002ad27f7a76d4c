"""Streams of what is withdrawn: who gets one, what it tells, and what ends it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.endpoints.watching import StreamLimits
from broker.errors import Reason
from broker.model import KeySource, Party, PartyKind, Quota, Withdrawal
from broker.oauth import CLIENT_ASSERTION_JWT_BEARER
from broker.rpc.streams import StreamListener
from broker.state.entries import revocation_unavailable, revoked_key, withdrawn_key
from broker.v1.revocation_service_pb2 import WatchRevocationsRequest
from broker.v1.token_pb2 import ClientAuthentication
from tests.e2e.patience import is_swift
from tests.idp import signer
from tests.rpc.flooding import flooded
from tests.rpc.listening import METHOD, PATIENCE, Metadata, Streaming, by_basic, until
from tests.world import NOW, WEB_SECRET, Cast, good_assertion, good_assertion_claims, jwt_client

END = NOW + 300
ALICE = Party(PartyKind.SUBJECT, "alice@acme.example")
AGENT = "agent-x"


@pytest.fixture
def streaming() -> Iterator[Streaming]:
    with Streaming().running() as running:
        yield running


def by_assertion(client_id: str = AGENT, /, **changes: Any) -> WatchRevocationsRequest:
    return with_assertion(good_assertion(client_id, **changes))


def with_assertion(assertion: str) -> WatchRevocationsRequest:
    return WatchRevocationsRequest(
        client_authentication=ClientAuthentication(
            client_assertion=assertion, client_assertion_type=CLIENT_ASSERTION_JWT_BEARER
        )
    )


def with_secret(client_id: str = "web-s", secret: str = WEB_SECRET) -> WatchRevocationsRequest:
    return WatchRevocationsRequest(
        client_authentication=ClientAuthentication(client_id=client_id, client_secret=secret)
    )


def in_metadata(assertion: str) -> Metadata:
    return (
        ("client-assertion", assertion),
        ("client-assertion-type", CLIENT_ASSERTION_JWT_BEARER),
    )


# ---- what is told


@pytest.mark.requirement("RPL-07")
def test_a_listener_is_told_everything_first_and_then_each_change(streaming: Streaming) -> None:
    streaming.state.revoke("before", END)
    streaming.state.withdraw(Withdrawal(ALICE, NOW - 60, NOW + 30, NOW + 9000))
    with streaming.listening() as listener:
        listener.until_told(withdrawn_key(ALICE))
        streaming.state.revoke("after", END)
        told = listener.next()
        while not told.revocations:
            told = listener.next()

    (change,) = told.revocations
    assert change.key == revoked_key("after")
    assert change.kept_until >= END
    assert told.HasField("as_of")


def test_what_is_withdrawn_is_told_with_its_window_and_its_end(streaming: Streaming) -> None:
    streaming.state.withdraw(Withdrawal(ALICE, NOW - 60, NOW + 30, NOW + 9000))
    with streaming.listening() as listener:
        told = [one for _ in range(2) for one in listener.next().revocations]

    (window,) = told
    assert window.key == withdrawn_key(ALICE)
    assert (window.issued_since, window.issued_until) == (NOW - 60, NOW + 30)
    assert window.kept_until >= NOW + 9000


@pytest.mark.requirement("RPL-07")
def test_a_change_reaches_every_stream_within_a_second(streaming: Streaming) -> None:
    names = (f"now-{number}" for number in count())
    with ExitStack() as closing:
        listeners = [closing.enter_context(streaming.listening()) for _ in range(8)]
        for listener in listeners:
            listener.next()

        def seconds_until_told() -> float:
            name = next(names)
            streaming.state.revoke(name, END)
            began = time.monotonic()
            for listener in listeners:
                listener.until_told(revoked_key(name))
            return time.monotonic() - began

        assert is_swift(seconds_until_told, seconds=1.0)


def test_what_does_not_fit_into_one_message_comes_in_several(streaming: Streaming) -> None:
    for number in range(1201):
        streaming.state.revoke(f"token-{number}", END)
    with Streaming(listener=streaming.listener).running() as other:
        other.journal.inner = streaming.state
        with other.listening() as listener:
            parts = [listener.next()]
            while len([one for part in parts for one in part.revocations]) < 1201:
                parts.append(listener.next())
            last = parts[-1] if parts[-1].HasField("as_of") else listener.next()

    keys = {one.key for part in parts for one in part.revocations}
    assert keys == {revoked_key(f"token-{number}") for number in range(1201)}
    assert max(len(part.revocations) for part in parts) <= 500
    assert last.HasField("as_of")
    # The view is not complete before its last part, whatever came before it.
    whole = [part for part in parts if part.revocations]
    assert not any(part.HasField("as_of") for part in whole[:-1])


def test_each_second_it_is_told_that_nothing_is_missing(streaming: Streaming) -> None:
    with streaming.listening() as listener:
        beats = [listener.next() for _ in range(3)]

        def seconds_between() -> float:
            beats.append(listener.next())
            return (beats[-1].elapsed_ms - beats[-2].elapsed_ms) / 1000

        assert is_swift(seconds_between, seconds=2.0)
        waited = time.monotonic() - listener.asked_at

    moments = [beat.elapsed_ms for beat in beats]
    assert moments == sorted(set(moments))
    assert all(beat.as_of.seconds == NOW for beat in beats)
    # The first was told at once.
    assert all(later - before > 700 for before, later in pairwise(moments[2:]))
    assert moments[-1] <= waited * 1000, "no moment is told before it has come"


def test_no_name_is_told_in_clear(streaming: Streaming) -> None:
    streaming.state.revoke("jti-of-a-token", END)
    for kind in PartyKind:
        streaming.state.withdraw(Withdrawal(Party(kind, ALICE.name), 0, NOW, END))
    with streaming.listening() as listener:
        first = listener.next()
        told = first if first.revocations else listener.next()

    assert len(told.revocations) == 5
    assert len({one.key for one in told.revocations}) == 5
    for name in (b"jti-of-a-token", b"alice", b"acme"):
        assert name not in told.SerializeToString()


# ---- who gets a stream


@pytest.mark.parametrize(
    ("request_of", "metadata", "method"),
    [
        (WatchRevocationsRequest, by_basic, "client_secret_basic"),
        (with_secret, tuple, "client_secret_post"),
        (by_assertion, tuple, "private_key_jwt"),
        (
            WatchRevocationsRequest,
            lambda: in_metadata(good_assertion(AGENT)),
            "private_key_jwt",
        ),
    ],
    ids=["basic", "post", "assertion", "assertion in metadata"],
)
def test_a_client_gets_a_stream_by_any_of_its_methods_and_is_on_record(
    streaming: Streaming,
    request_of: Callable[[], WatchRevocationsRequest],
    metadata: Callable[[], Metadata],
    method: str,
) -> None:
    with streaming.listening(request_of(), metadata=metadata()) as listener:
        listener.next()
        told = dict(listener.call.initial_metadata())

    (record,) = streaming.audit.records
    assert (record["event"], record["decision"]) == ("revocations.watch", "permit")
    assert record["auth_method"] == method
    assert record["peer"] == "127.0.0.1"
    assert record["event_id"] == told["broker-decision-id"]


NOBODIES: dict[
    str, tuple[Callable[[], WatchRevocationsRequest], Callable[[], Metadata], Reason]
] = {
    "no credential": (WatchRevocationsRequest, tuple, Reason.CLIENT_AUTH_MISSING),
    "a wrong secret": (
        WatchRevocationsRequest,
        lambda: by_basic(secret="bks_wrong"),
        Reason.BAD_SECRET,
    ),
    "an unknown client": (
        WatchRevocationsRequest,
        lambda: by_basic("nobody"),
        Reason.CLIENT_UNKNOWN,
    ),
    "a disabled client": (
        lambda: by_assertion("off-srv"),
        tuple,
        Reason.CLIENT_DISABLED,
    ),
    "an expired assertion": (
        lambda: by_assertion(iat=NOW - 300, exp=NOW - 60),
        tuple,
        Reason.TOKEN_EXPIRED,
    ),
    "an assertion for another": (
        lambda: by_assertion(aud="https://other.example"),
        tuple,
        Reason.AUD_NOT_SOLE_ISSUER,
    ),
    "a stranger's key": (
        lambda: with_assertion(signer("stranger").sign(good_assertion_claims(AGENT))),
        tuple,
        Reason.UNKNOWN_KEY,
    ),
}


@pytest.mark.requirement("CAU-01")
@pytest.mark.parametrize("who", NOBODIES)
def test_whoever_is_not_known_is_told_nothing_but_that(streaming: Streaming, who: str) -> None:
    request_of, metadata, reason = NOBODIES[who]

    refusal = streaming.refused(request_of(), metadata=metadata())

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert refusal.info.reason == "INVALID_CLIENT"
    (record,) = streaming.audit.records
    assert (record["event"], record["decision"]) == ("revocations.watch", "deny")
    assert record["reason"] == reason.code
    assert record["event_id"] == refusal.info.metadata["decision_id"]
    until(lambda: streaming.places_taken() == 0)


@pytest.mark.requirement("RPL-01")
def test_an_assertion_opens_one_stream(streaming: Streaming) -> None:
    assertion = good_assertion(AGENT)
    with streaming.listening(with_assertion(assertion)) as listener:
        listener.next()

        refusal = streaming.refused(with_assertion(assertion))

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert streaming.audit.records[-1]["reason"] == "replay"
    until(lambda: streaming.places_taken() == 0)


def test_two_credentials_at_once_are_refused(streaming: Streaming) -> None:
    refusal = streaming.refused(with_secret(), metadata=by_basic())

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert streaming.audit.records[-1]["reason"] == "multiple_client_auth"


@pytest.mark.parametrize(
    ("size", "code", "reason"),
    [
        (60_000, grpc.StatusCode.INVALID_ARGUMENT, "param_too_large"),
        (66_000, grpc.StatusCode.RESOURCE_EXHAUSTED, "body_too_large"),
    ],
)
def test_a_message_that_is_too_large_is_refused_and_recorded(
    streaming: Streaming, size: int, code: grpc.StatusCode, reason: str
) -> None:
    refusal = streaming.refused(with_secret(secret="x" * size))

    assert refusal.code is code
    assert streaming.audit.records[-1]["reason"] == reason


def test_a_message_that_cannot_be_read_is_refused_and_recorded(streaming: Streaming) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{streaming.port}") as channel:
        rpc: Any = channel.unary_stream(METHOD)
        with pytest.raises(grpc.RpcError) as caught:
            next(iter(rpc(b"\xff\xff", timeout=10)))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert streaming.audit.records[-1]["reason"] == "body_malformed"


def test_a_client_holds_so_many_streams_and_no_more() -> None:
    with (
        Streaming(limits=StreamLimits(of_one=2)).running() as streaming,
        streaming.listening() as first,
        streaming.listening() as second,
    ):
        first.next()
        second.next()

        refusal = streaming.refused()
        with streaming.listening(by_assertion()) as of_another:
            of_another.next()

        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.info.metadata["error"] == "temporarily_unavailable"
        assert refusal.retry_after == 5
        denied = [one for one in streaming.audit.records if one["decision"] == "deny"]
        assert [one["reason"] for one in denied] == ["stream_limit"]

        first.leave()
        until(lambda: streaming.places_taken() == 1)
        with streaming.listening() as third:
            third.next()


@pytest.mark.requirement("CAU-16")
def test_a_spent_assertion_beside_a_stream_too_many_takes_nothing_of_its_client_s_quota() -> None:
    terms = LimitTerms(per_client=Quota(rate=1 / 3600, burst=3))
    quotas = Limits(LocalAllowances(now=lambda: 0.0), terms, monotonic=lambda: 0.0)
    seen = by_assertion()
    with (
        Streaming(StreamLimits(of_one=1), quotas=quotas).running() as streaming,
        streaming.listening(seen) as first,
    ):
        first.next()
        for _ in range(4):
            streaming.refused(seen)
        for _ in range(3):
            streaming.refused(by_assertion())

        denied = [one["reason"] for one in streaming.audit.records if one["decision"] == "deny"]
    assert denied == ["stream_limit"] * 6 + ["client_limit"]


def test_all_together_hold_so_many_streams_and_no_more() -> None:
    limits = StreamLimits(of_one=9, of_all=2)
    with (
        Streaming(limits=limits).running() as streaming,
        streaming.listening() as first,
        streaming.listening(by_assertion()) as second,
    ):
        first.next()
        second.next()

        refusal = streaming.refused()

        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert streaming.audit.records[-1]["reason"] == "overloaded"


@pytest.mark.requirement("R-30")
def test_who_cannot_be_recorded_gets_no_stream_and_keeps_no_place(streaming: Streaming) -> None:
    streaming.audit.is_available = False

    refusal = streaming.refused()

    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    until(lambda: streaming.places_taken() == 0)


def test_an_accident_is_told_without_its_text(
    streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_client_id: str) -> None:
        raise RuntimeError("canary-71c2")

    monkeypatch.setattr(streaming.registry, "client", fail)

    refusal = streaming.refused()

    assert refusal.code is grpc.StatusCode.INTERNAL
    assert "canary" not in refusal.everything


def test_who_leaves_while_being_admitted_keeps_no_place(
    streaming: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, is_there = threading.Event(), threading.Event()
    spend = streaming.state.spend

    def wait(*arguments: Any) -> Any:
        is_there.set()
        assert may_go_on.wait(PATIENCE)
        return spend(*arguments)

    monkeypatch.setattr(streaming.state, "spend", wait)
    with streaming.listening(by_assertion()) as listener:
        assert is_there.wait(PATIENCE)
        assert streaming.places_taken() == 1
        listener.leave()
    may_go_on.set()

    until(lambda: streaming.places_taken() == 0)


# ---- what ends a stream


def disabled(client_id: str) -> Cast:
    return Cast().with_client(replace(Cast().client(client_id), is_disabled=True))


def removed(client_id: str) -> Cast:
    others = tuple(one for one in Cast().clients if one.client_id != client_id)
    return replace(Cast(), clients=others)


@pytest.mark.requirement("CAU-15")
@pytest.mark.parametrize("change", [disabled, removed])
def test_a_reload_that_takes_a_client_away_ends_its_stream_within_two_seconds(
    streaming: Streaming, change: Callable[[str], Cast]
) -> None:
    with streaming.listening() as other:
        other.next()

        def seconds_until_it_ends() -> float:
            streaming.reload(Cast())
            with streaming.listening(by_assertion()) as listener:
                listener.next()
                streaming.reload(change(AGENT))
                began = time.monotonic()
                refusal = listener.end()
                took = time.monotonic() - began
            assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
            assert refusal.info.reason == "INVALID_CLIENT"
            return took

        assert is_swift(seconds_until_it_ends, seconds=2.0)
        other.next()


def test_a_client_whose_key_was_replaced_must_authenticate_again(streaming: Streaming) -> None:
    other_key = jwt_client(AGENT, keys=KeySource(jwks=signer("another").jwks))
    with streaming.listening(by_assertion()) as listener:
        listener.next()

        streaming.reload(Cast().with_client(other_key))

        assert listener.ends_in_order()
    assert streaming.refused(by_assertion()).code is grpc.StatusCode.UNAUTHENTICATED


def test_a_reload_that_changes_others_changes_nothing(streaming: Streaming) -> None:
    with streaming.listening() as listener:
        listener.next()
        streaming.reload(disabled(AGENT))

        beats = [listener.next().elapsed_ms for _ in range(3)]

    assert beats[-1] > 1000


@pytest.mark.requirement("RPL-03")
@pytest.mark.parametrize(
    "failure", [revocation_unavailable("state: away"), RuntimeError("canary-88")]
)
def test_while_nobody_knows_nothing_is_told_and_nobody_is_admitted(
    streaming: Streaming, failure: Exception
) -> None:
    with streaming.listening() as listener:
        listener.next()
        streaming.journal.failure = failure
        until(lambda: streaming.journal.failed > 1)
        # What was looked at before it began to fail may still be on its way.
        listener.is_silent_for(0.5)
        assert listener.is_silent_for(3.0)

        refusal = streaming.refused()

        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert refusal.info.metadata["error"] == "temporarily_unavailable"
        assert streaming.audit.records[-1]["reason"] == "revocation_unavailable"

        streaming.state.revoke("meanwhile", END)
        streaming.journal.failure = None
        listener.until_told(revoked_key("meanwhile"))


def test_a_listener_that_takes_nothing_is_cut_off_and_keeps_its_place_until_it_is_gone() -> None:
    listener = StreamListener("127.0.0.1:0", write_timeout=timedelta(seconds=0.3))
    with Streaming(listener=listener).running() as streaming:
        # More than the window of HTTP/2, which stays narrow here, and the buffers of both sides hold.
        for number in range(15_000):
            streaming.state.revoke(f"token-{number}", END)
        narrow = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 16_384))
        target = f"127.0.0.1:{streaming.port}"
        with grpc.insecure_channel(target, options=narrow) as channel:
            rpc: Any = channel.unary_stream(METHOD)
            with capture_logs() as logged:
                call = rpc(b"", metadata=by_basic(), timeout=5 * PATIENCE)
                until(lambda: [one["event"] for one in logged] == ["listener_too_slow"])
            assert streaming.places_taken() == 1

            with pytest.raises(grpc.RpcError) as caught:
                for _ in call:
                    pass

            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        until(lambda: streaming.places_taken() == 0)


@pytest.mark.requirement("GRP-06")
@pytest.mark.requirement("R-37")
def test_who_opens_calls_without_messages_shuts_nobody_out(streaming: Streaming) -> None:
    with flooded(streaming.port, METHOD, connections=18):
        until_calm = time.monotonic() + 2
        while time.monotonic() < until_calm:
            with streaming.listening() as listener:
                listener.next()


def test_a_call_whose_message_does_not_come_is_given_up() -> None:
    listener = StreamListener("127.0.0.1:0", read_timeout=timedelta(seconds=0.2))
    with Streaming(listener=listener).running() as streaming:
        with grpc.insecure_channel(f"127.0.0.1:{streaming.port}") as channel:
            done = threading.Event()

            def never() -> Iterator[bytes]:
                done.wait(PATIENCE)
                yield from ()

            rpc: Any = channel.stream_stream(METHOD)
            with pytest.raises(grpc.RpcError) as caught:
                # The caller's own deadline would be told alike.
                next(iter(rpc(never(), metadata=by_basic(), timeout=5 * PATIENCE)))
            done.set()

        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert streaming.audit.records == []
