import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

import grpc
import pytest
import structlog

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms, no_limits
from broker.errors import (
    InsufficientUserAuthentication,
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    OAuthError,
    Reason,
    RequestTooLarge,
    ServerError,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from broker.model import (
    Explanation,
    NearestMiss,
    PolicyReference,
    Quota,
    ScopeExplanation,
    TokenInquiry,
    TokenRequest,
    Verdict,
    WithdrawalRequest,
)
from broker.rpc.boundary import Boundary, CallLimits
from broker.rpc.reading import MessageReads
from broker.rpc.token_service import TokenService
from broker.v1 import (
    admin_service_pb2,
    discovery_service_pb2,
    policy_service_pb2,
    token_pb2,
    token_service_pb2,
)
from broker.v1.discovery_service_pb2 import GetKeySetRequest, GetServerMetadataRequest
from broker.v1.policy_service_pb2 import ExplainDecisionRequest
from broker.v1.token_service_pb2 import ExchangeTokenRequest
from tests.e2e.patience import until
from tests.rpc.calling import EXCHANGE, EXPLAIN, Client, connected, refusal_of, serving
from tests.web.face_fakes import (
    CANARY,
    ISSUED,
    JWK,
    METADATA,
    FakeDiscovery,
    FakeExplain,
    FakeInquiries,
    FakeToken,
    fake_endpoints,
)

OUR_FILES = (token_service_pb2, discovery_service_pb2, policy_service_pb2, admin_service_pb2)


@pytest.fixture
def token() -> FakeToken:
    return FakeToken()


@pytest.fixture
def client(token: FakeToken) -> Iterator[Client]:
    with serving(fake_endpoints(token)) as (_, client):
        yield client


def test_an_issued_token_becomes_a_message(client: Client) -> None:
    answer = client.token.ExchangeToken(ExchangeTokenRequest(subject_token="s"))
    assert answer.issued_token == token_pb2.IssuedToken(
        access_token=ISSUED.token,
        issued_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
        token_type="Bearer",
        expires_in=300,
        scopes=["b:read", "b:write"],
        resource="https://api.test/v1",
    )


def test_the_core_is_told_who_asks(client: Client, token: FakeToken) -> None:
    client.token.ExchangeToken(ExchangeTokenRequest(subject_token="s"))
    context = token.contexts[0]
    assert (context.face, context.peer) == ("grpc", "127.0.0.1")
    assert uuid.UUID(context.request_id).version == 7


def test_the_decision_id_is_told_with_a_token_and_with_a_refusal(
    client: Client, token: FakeToken
) -> None:
    _, call = client.token.ExchangeToken.with_call(ExchangeTokenRequest())
    assert dict(call.trailing_metadata())["broker-decision-id"] == token.contexts[0].request_id
    token.answer = InvalidTarget(Reason.TARGET_UNKNOWN)
    refused = client.refused(EXCHANGE)
    assert refused.trailers["broker-decision-id"] == token.contexts[1].request_id
    assert refused.info.metadata["decision_id"] == token.contexts[1].request_id


ERRORS = [
    (InvalidRequest(Reason.PARAM_MISSING, detail=CANARY), "INVALID_ARGUMENT"),
    (RequestTooLarge(Reason.BODY_TOO_LARGE), "RESOURCE_EXHAUSTED"),
    (InvalidClient(Reason.BAD_SECRET, detail=CANARY), "UNAUTHENTICATED"),
    (InvalidGrant(Reason.TOKEN_EXPIRED), "INVALID_ARGUMENT"),
    (UnauthorizedClient(Reason.GRANT_NOT_ALLOWED), "PERMISSION_DENIED"),
    (UnsupportedGrantType(Reason.GRANT_UNSUPPORTED), "INVALID_ARGUMENT"),
    (InvalidScope(Reason.SCOPE_UNKNOWN, parameter="scope"), "PERMISSION_DENIED"),
    (InvalidTarget(Reason.POLICY_FORBIDDEN, parameter="resource"), "PERMISSION_DENIED"),
    (InsufficientUserAuthentication(Reason.STEP_UP_REQUIRED), "FAILED_PRECONDITION"),
    (TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE), "UNAVAILABLE"),
    (ServerError(Reason.INTERNAL_ERROR), "INTERNAL"),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_every_refusal_has_its_status_and_exactly_one_error_info(
    client: Client, token: FakeToken, error: OAuthError, code: str
) -> None:
    token.answer = error
    refused = client.refused(EXCHANGE)
    assert refused.code is grpc.StatusCode[code]
    assert refused.message == error.reason.sentence
    assert refused.info.reason == error.error.upper()
    assert refused.info.domain == "delegation-broker"
    assert set(refused.info.metadata) == {"error", "decision_id"}
    assert refused.info.metadata["error"] == error.error
    assert refused.violations == {}
    assert CANARY not in refused.everything


def test_an_invalid_request_names_the_parameter(client: Client, token: FakeToken) -> None:
    token.answer = InvalidRequest(Reason.PARAM_MISSING, parameter="subject_token")
    assert client.refused(EXCHANGE).violations == {
        "subject_token": "A required parameter is missing."
    }


def test_who_may_come_again_is_told_when(client: Client, token: FakeToken) -> None:
    token.answer = TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, retry_after=7)
    assert client.refused(EXCHANGE).retry_after == 7


def test_a_step_up_says_which_login_would_do(client: Client, token: FakeToken) -> None:
    token.answer = InsufficientUserAuthentication(
        Reason.STEP_UP_REQUIRED, acr_values="urn:mfa", max_age=60
    )
    metadata = client.refused(EXCHANGE).info.metadata
    assert (metadata["acr_values"], metadata["max_age"]) == ("urn:mfa", "60")


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize(
    "failure",
    [ValueError(CANARY), RecursionError(CANARY), MemoryError(CANARY), grpc.RpcError(CANARY)],
)
def test_a_fault_of_ours_is_answered_with_a_fixed_text_and_logged_without_its_message(
    client: Client, token: FakeToken, failure: Exception
) -> None:
    token.answer = failure
    with structlog.testing.capture_logs() as logs:
        refused = client.refused(EXCHANGE)
    assert refused.code is grpc.StatusCode.INTERNAL
    assert refused.message == "The request could not be completed."
    assert refused.info.reason == "SERVER_ERROR"
    assert CANARY not in refused.everything
    (line,) = logs
    assert line["kind"] == type(failure).__name__
    assert line["request_id"] == refused.info.metadata["decision_id"]
    assert CANARY not in str(logs)


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize("method", ["GetServerMetadata", "GetKeySet"])
def test_a_fault_behind_a_public_document_stays_behind_it(method: str) -> None:
    discovery = FakeDiscovery(failure=KeyError(CANARY))
    with serving(fake_endpoints(discovery=discovery)) as (_, client):
        refused = client.refused(f"/broker.v1.DiscoveryService/{method}")
    assert refused.code is grpc.StatusCode.INTERNAL
    assert CANARY not in refused.everything


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize(
    "broken",
    [replace(ISSUED, expires_in=2**70), replace(ISSUED, scopes=(CANARY, 1)), None],  # type: ignore[arg-type] # As a fault would.
)
def test_an_answer_that_cannot_be_written_is_a_fault_too(
    client: Client, token: FakeToken, broken: Any
) -> None:
    token.answer = broken
    refused = client.refused(EXCHANGE)
    assert refused.code is grpc.StatusCode.INTERNAL
    assert refused.info.reason == "SERVER_ERROR"
    assert CANARY not in refused.everything


@pytest.mark.requirement("GRP-12")
def test_a_method_that_is_not_implemented_says_so(client: Client, token: FakeToken) -> None:
    token.answer = NotImplementedError(CANARY)
    refused = client.refused(EXCHANGE)
    assert refused.code is grpc.StatusCode.UNIMPLEMENTED
    assert CANARY not in refused.everything


@pytest.mark.parametrize("method", ["/broker.v1.TokenService/Nothing", "/x.Y/Z", "/", "//"])
def test_an_unknown_method_is_unimplemented(client: Client, method: str) -> None:
    assert client.refused(method).code is grpc.StatusCode.UNIMPLEMENTED


def authenticate(request: TokenRequest | TokenInquiry | WithdrawalRequest) -> None:
    if not request.credential.unverified_authorization:
        raise InvalidClient(Reason.CLIENT_AUTH_MISSING)


@pytest.mark.requirement("GRP-04")
def test_every_described_method_is_served_and_all_but_discovery_ask_who_is_there() -> None:
    """The list comes from the descriptors, so that a method added later is in it."""

    class Asking(FakeToken):
        def issue(self, _context: Any, read: Any) -> Any:
            authenticate(read())

        def issue_all(self, _context: Any, read: Any) -> Any:
            authenticate(read().common)

    class AskingExplain(FakeExplain):
        def explain(self, _context: Any, read: Any) -> Any:
            authenticate(read().exchange)

    methods = [
        method
        for file in OUR_FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]

    class AskingInquiries(FakeInquiries):
        def ask(self, _context: Any, read: Any) -> Any:
            authenticate(read())

        introspect = revoke = withdraw = ask

    endpoints = fake_endpoints(Asking(), explain=AskingExplain(), inquiries=AskingInquiries())
    with serving(endpoints) as (_, client):
        for method in methods:
            name = f"/{method.containing_service.full_name}/{method.name}"
            if method.containing_service.name == "DiscoveryService":
                client.call(name)
            else:
                assert client.refused(name).code is grpc.StatusCode.UNAUTHENTICATED, name


@pytest.mark.requirement("GRP-10")
@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x02\xff\xfe",
        b"\x0a\x03\xed\xa0\x80",
        b"\x0a\xff",
        b"\x0a\x05ab",
        b"\x0b",
        b"\xff" * 40,
        b"\x4a\x04\x12\x02\xff\xfe",
    ],
)
def test_a_message_that_cannot_be_read_is_refused_and_recorded(
    client: Client, token: FakeToken, data: bytes
) -> None:
    refused = client.refused(EXCHANGE, data)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.info.metadata["error"] == "invalid_request"
    assert token.refusals[0].reason is Reason.BODY_MALFORMED
    assert token.contexts[0].request_id == refused.info.metadata["decision_id"]


@pytest.mark.requirement("GRP-10")
def test_unknown_fields_are_ignored(client: Client, token: FakeToken) -> None:
    client.call(EXCHANGE, b"\xfa\x07\x03abc")
    assert token.requests[0].present == {"grant_type"}


@pytest.mark.requirement("GRP-01")
def test_a_message_a_little_too_large_is_refused_and_recorded(
    client: Client, token: FakeToken
) -> None:
    refused = client.refused(EXCHANGE, b"\x0a\xfd\xff\x03" + b"a" * 65_533)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.info.metadata["error"] == "invalid_request"
    assert token.refusals[0].reason is Reason.BODY_TOO_LARGE
    # One byte less is only too large for its field.
    client.refused(EXCHANGE, b"\x0a\xfc\xff\x03" + b"a" * 65_532)
    assert token.refusals[1].reason is Reason.PARAM_TOO_LARGE


@pytest.mark.requirement("GRP-01")
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_far_too_large_is_not_taken_in(
    client: Client, token: FakeToken, compression: grpc.Compression | None
) -> None:
    message = ExchangeTokenRequest(subject_token="a" * 5_000_000)
    refused = client.refused(EXCHANGE, message, compression=compression)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not token.contexts


@pytest.mark.requirement("GRP-02")
@pytest.mark.parametrize(
    "metadata",
    [
        [("x-large", "a" * 17_000)],
        [(f"x-{number}", "a") for number in range(1_000)],
        [("x-large-bin", b"\xff" * 17_000)],
    ],
)
def test_too_much_metadata_is_not_taken_in(
    client: Client, token: FakeToken, metadata: list[tuple[str, str | bytes]]
) -> None:
    refused = client.refused(EXCHANGE, metadata=metadata)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not token.contexts


@pytest.mark.requirement("GRP-02")
@pytest.mark.requirement("GRP-03")
def test_metadata_reaches_the_core_as_credentials_only(client: Client, token: FakeToken) -> None:
    metadata: list[tuple[str, str | bytes]] = [
        ("authorization", "Basic a"),
        ("authorization", "Basic b"),
        ("x-forwarded-user", "root"),
        ("junk-bin", b"\xff\x00"),
    ]
    client.call(EXCHANGE, metadata=metadata)
    assert token.requests[0].credential.unverified_authorization == ("Basic a", "Basic b")
    assert token.requests[0].present == {"grant_type"}


@pytest.mark.requirement("GRP-09")
@pytest.mark.parametrize(
    ("timeout", "longest"), [(None, 70.0), (86_400 * 3650, 70.0), (30.0, 30.0)]
)
def test_the_deadline_is_the_callers_or_ours(timeout: float | None, longest: float) -> None:
    token = FakeToken()
    limits = CallLimits(timeout=timedelta(seconds=70))
    with serving(fake_endpoints(token), limits=limits) as (_, client):
        before = time.monotonic()
        client.call(EXCHANGE, timeout=timeout)
    deadline = token.contexts[0].deadline
    assert deadline is not None
    assert before + longest - 1 < deadline <= time.monotonic() + longest


@pytest.mark.requirement("GRP-09")
def test_no_work_is_begun_once_nobody_waits_any_more() -> None:
    busy, leave = threading.Event(), threading.Event()

    def stay() -> None:
        busy.set()
        leave.wait(60)

    token = FakeToken(while_issuing=stay)
    with serving(fake_endpoints(token), limits=CallLimits(threads=1)) as (server, client):
        first = threading.Thread(target=lambda: client.call(EXCHANGE))
        first.start()
        busy.wait(60)
        with connected(server) as other:
            refused = other.refused(EXCHANGE, timeout=0.05)
        assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
        token.while_issuing = lambda: None
        leave.set()
        first.join(60)
        client.call(EXCHANGE)
    assert len(token.contexts) == 2


class EndedCall:
    """A call whose caller has stopped waiting, as gRPC would present it."""

    def __init__(self, *, remaining: float, is_active: bool) -> None:
        self._remaining = remaining
        self._is_active = is_active

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float:
        return self._remaining

    def is_active(self) -> bool:
        return self._is_active

    def set_trailing_metadata(self, metadata: object) -> None: ...

    def abort(self, code: grpc.StatusCode, _details: str) -> None:
        raise ConnectionAbortedError(code.name)


@pytest.mark.requirement("GRP-09")
@pytest.mark.parametrize(
    "ended",
    [EndedCall(remaining=0.0, is_active=True), EndedCall(remaining=9e18, is_active=False)],
)
def test_a_call_that_has_ended_already_never_reaches_the_core(ended: EndedCall) -> None:
    token = FakeToken()
    limits = CallLimits()
    reads = MessageReads(limits.read_timeout)
    boundary = Boundary(reads, limits, no_limits(), proof_origin="https://sts.test:*")
    answer = boundary._behaviour(EXCHANGE, TokenService(cast("Any", token)).rpcs()["ExchangeToken"])
    with pytest.raises(ConnectionAbortedError, match="DEADLINE_EXCEEDED"):
        answer(iter([b""]), cast("Any", ended))
    assert not token.contexts


def test_more_calls_than_allowed_are_turned_away_with_a_hint() -> None:
    arrived, leave = threading.Barrier(3), threading.Event()

    def stay() -> None:
        arrived.wait(60)
        leave.wait(60)

    token = FakeToken(while_issuing=stay)
    limits = CallLimits(threads=2, max_concurrent=2)
    with serving(fake_endpoints(token), limits=limits) as (_, client):
        threads = [threading.Thread(target=lambda: client.call(EXCHANGE)) for _ in range(2)]
        for thread in threads:
            thread.start()
        arrived.wait(60)
        with structlog.testing.capture_logs() as logs:
            refused = [client.refused(EXCHANGE) for _ in range(30)]
        for one in refused:
            assert one.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert dict(one.info.metadata) == {"error": "temporarily_unavailable"}
            assert one.retry_after in {1, 2}
            # There is no record of it, so none is named.
            assert "broker-decision-id" not in one.trailers
        assert logs[0] == {"event": "requests_turned_away", "log_level": "warning", "count": 1}
        assert len(logs) < len(refused)
        leave.set()
        for thread in threads:
            thread.join(60)
        token.while_issuing = lambda: None
        client.call(EXCHANGE)


@contextlib.contextmanager
def calls_without_a_message(client: Client, method: str, number: int) -> Iterator[list[Any]]:
    """Calls that open and then say nothing."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(120)
        yield from ()

    open_call: Any = client.channel.stream_unary(method)
    try:
        yield [open_call.future(nothing()) for _ in range(number)]
    finally:
        over.set()


@pytest.mark.requirement("HTP-13")
@pytest.mark.parametrize("method", [EXCHANGE, EXPLAIN, "/grpc.health.v1.Health/Check"])
def test_calls_that_never_send_their_message_hold_nobody_up_and_are_given_up(method: str) -> None:
    """More of them than there are threads to work, so that each must cost none."""
    token = FakeToken()
    limits = CallLimits(threads=2, max_concurrent=4, read_timeout=timedelta(seconds=0.4))
    with serving(fake_endpoints(token), limits=limits) as (server, client):  # noqa: SIM117 - The calls need the client.
        with calls_without_a_message(client, method, 16) as silent, connected(server) as other:
            # Its message may be late by itself, on a machine that is busy.
            until(partial(is_answered, other), seconds=30, what="another is served")
            codes = {call.exception(timeout=30).code() for call in silent}
            assert codes == {grpc.StatusCode.CANCELLED}
    assert len(token.contexts) == 1


def is_answered(client: Client) -> bool:
    with contextlib.suppress(grpc.RpcError):
        return bool(client.call(EXCHANGE, timeout=30))
    return False


@pytest.mark.requirement("DOS-01")
def test_a_source_beyond_its_quota_is_turned_away_before_its_message_comes() -> None:
    quotas = Limits(LocalAllowances(), LimitTerms(per_source=Quota(rate=1 / 3600, burst=1)))
    token = FakeToken()
    endpoints = replace(fake_endpoints(token), limits=quotas)
    for _ in range(2):
        quotas.charge("127.0.0.1")
    with (
        serving(endpoints, limits=CallLimits(read_timeout=timedelta(minutes=5))) as (_, client),
        calls_without_a_message(client, EXCHANGE, 3) as silent,
    ):
        codes = {call.exception(timeout=60).code() for call in silent}
        assert client.discovery.GetServerMetadata(GetServerMetadataRequest()).issuer

    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert not token.contexts


def test_a_call_that_ends_without_a_message_is_refused_and_recorded(
    client: Client, token: FakeToken
) -> None:
    call: Any = client.channel.stream_unary(EXCHANGE)
    with pytest.raises(grpc.RpcError) as ended:
        call(iter(()), timeout=10)
    refused = refusal_of(ended.value)
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert token.refusals[0].reason is Reason.BODY_MALFORMED
    assert token.contexts[0].request_id == refused.info.metadata["decision_id"]


def test_only_the_first_message_counts(client: Client, token: FakeToken) -> None:
    messages = [ExchangeTokenRequest(subject_token=one).SerializeToString() for one in "ab"]
    call: Any = client.channel.stream_unary(EXCHANGE)
    call(iter(messages), timeout=10)
    assert [request.subject_token for request in token.requests] == ["a"]


def test_the_metadata_is_told_by_its_names_and_as_the_document() -> None:
    with serving(fake_endpoints()) as (_, client):
        answer = client.discovery.GetServerMetadata(GetServerMetadataRequest())
    assert answer.issuer == METADATA["issuer"]
    assert answer.token_endpoint == METADATA["token_endpoint"]
    assert answer.jwks_uri == METADATA["jwks_uri"]
    assert list(answer.grant_types_supported) == METADATA["grant_types_supported"]
    assert answer.document_json.startswith('{"issuer":"https://sts.test"')


@pytest.mark.requirement("META-10")
def test_keys_are_told_with_public_members_only() -> None:
    discovery = FakeDiscovery(keys=({**JWK, "d": CANARY, "x5c": "y"},))
    with serving(fake_endpoints(discovery=discovery)) as (_, client):
        answer = client.discovery.GetKeySet(GetKeySetRequest())
    (key,) = answer.keys
    assert (key.kty, key.kid, key.use, key.alg, key.crv) == ("EC", "k1", "sig", "ES256", "P-256")
    assert (key.x, key.y, key.n, key.e) == ("eA", "eQ", "", "")
    assert answer.max_age == 120
    assert CANARY not in str(answer)


def test_an_explanation_becomes_a_message() -> None:
    policy = PolicyReference("permit-read", "exchange.cedar", 7)
    explanation = Explanation(
        is_permitted=False,
        policy_digest="ab" * 32,
        error="invalid_target",
        reason="policy_no_permit",
        scopes=(
            ScopeExplanation("b:read", Verdict.PERMIT, policies=(policy,)),
            ScopeExplanation(
                "b:write",
                Verdict.NO_PERMIT,
                nearest_misses=(NearestMiss(policy, ("principal in x",), "Add it."),),
            ),
            ScopeExplanation("b:own", Verdict.FORBIDDEN),
            ScopeExplanation("b:odd", Verdict.ERROR, errors=("overflow",)),
        ),
    )
    explain = FakeExplain(explanation)
    with serving(fake_endpoints(explain=explain)) as (_, client):
        answer = client.policy.ExplainDecision(
            ExplainDecisionRequest(
                exchange=ExchangeTokenRequest(subject_token="s"), client_id="agent-x"
            )
        )
    assert explain.requests[0].client_id == "agent-x"
    assert explain.requests[0].exchange.subject_token == "s"
    assert (answer.is_permitted, answer.error, answer.reason) == (
        False,
        "invalid_target",
        "policy_no_permit",
    )
    assert answer.claims_json == ""
    verdicts = [policy_service_pb2.PolicyVerdict.Name(one.verdict) for one in answer.scopes]
    assert verdicts == [
        "POLICY_VERDICT_PERMIT",
        "POLICY_VERDICT_NO_PERMIT",
        "POLICY_VERDICT_FORBIDDEN",
        "POLICY_VERDICT_ERROR",
    ]
    assert answer.scopes[0].policies[0].line == 7
    assert answer.scopes[1].nearest_misses[0].change == "Add it."
    assert list(answer.scopes[3].errors) == ["overflow"]


def test_what_would_be_minted_is_explained_as_json() -> None:
    explanation = Explanation(
        is_permitted=True,
        policy_digest="",
        claims={"sub": "u1", "act": {"sub": "c"}},
        expires_in=300,
        lifetime_limit="policy",
    )
    with serving(fake_endpoints(explain=FakeExplain(explanation))) as (_, client):
        answer = client.policy.ExplainDecision(ExplainDecisionRequest())
    assert answer.claims_json == '{"sub":"u1","act":{"sub":"c"}}'
    assert (answer.expires_in, answer.lifetime_limit) == (300, "policy")


def test_a_stop_lets_calls_finish() -> None:
    busy, leave = threading.Event(), threading.Event()

    def stay() -> None:
        busy.set()
        leave.wait(60)

    answers: list[bytes] = []
    with serving(fake_endpoints(FakeToken(while_issuing=stay))) as (server, client):
        call = threading.Thread(target=lambda: answers.append(client.call(EXCHANGE)))
        call.start()
        busy.wait(60)
        stop = threading.Thread(target=lambda: server.stop(10))
        stop.start()
        leave.set()
        call.join(60)
        stop.join(60)
        assert not server.wait(60)
    assert len(answers) == 1
