import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import chain

import pytest
import structlog

from broker.errors import (
    InsufficientUserAuthentication,
    InvalidAuthorizationDetails,
    InvalidClient,
    InvalidDpopProof,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    NotYet,
    OAuthError,
    RateLimited,
    Reason,
    RecordDamaged,
    RequestTooLarge,
    ServerError,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedGrantType,
    UnsupportedTokenType,
)
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN
from broker.web.responses import granted
from tests.web.face_fakes import (
    CANARY,
    ISSUED,
    JWK,
    METADATA,
    Caller,
    FakeDiscovery,
    FakeToken,
    Reply,
    fake_endpoints,
)

TENANT = "https://sts.test/tenant"
WELL_KNOWN = (
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
)
METHODS = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "POST")


def caller(answer: object = ISSUED, **options: object) -> Caller:
    return Caller(fake_endpoints(FakeToken(answer)), **options)  # type: ignore[arg-type] # As told.


@pytest.mark.requirement("TX-12")
@pytest.mark.requirement("RES-05")
def test_an_issued_token_is_answered_with_all_that_a_client_needs() -> None:
    reply = caller().post("grant_type=g")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "access_token": ISSUED.token,
        "issued_token_type": TOKEN_TYPE_ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "b:read b:write",
        "resource": "https://api.test/v1",
    }


def test_a_token_without_scopes_is_answered_without_scope() -> None:
    assert "scope" not in caller(replace(ISSUED, scopes=())).post("grant_type=g").json


def test_the_decision_id_is_the_id_of_the_record() -> None:
    token = FakeToken()
    replies = [Caller(fake_endpoints(token)).post(body) for body in ("grant_type=g", b"\xff")]
    ids = [reply.headers["broker-decision-id"] for reply in replies]
    assert [context.request_id for context in token.contexts] == ids
    assert [uuid.UUID(one).version for one in ids] == [7, 7]


def test_the_core_is_told_who_asks_and_until_when() -> None:
    token = FakeToken()
    before = time.monotonic()
    Caller(fake_endpoints(token), request_timeout=timedelta(seconds=3)).post("grant_type=g")
    context = token.contexts[0]
    assert context.face == "http"
    assert context.peer == "192.0.2.7"
    assert context.deadline is not None
    assert before + 3 <= context.deadline <= time.monotonic() + 3


@pytest.mark.requirement("HTP-01")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "POST"])
def test_another_verb_on_the_token_endpoint_is_refused_and_nothing_is_parsed(method: str) -> None:
    token = FakeToken()
    call = Caller(fake_endpoints(token))
    reply = call.unchecked(method, "/token", b"grant_type=g", QUERY_STRING="%ff")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert not token.contexts


@pytest.mark.requirement("HTP-01")
@pytest.mark.parametrize("path", ["/jwks", "/authorize", *WELL_KNOWN])
def test_public_documents_cannot_be_posted_to(path: str) -> None:
    reply = caller()("POST", path, b"a=b")
    assert reply.status == 405
    assert reply.headers["allow"].startswith("GET, HEAD")


@pytest.mark.requirement("HTP-08")
@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//token",
        "/token/",
        "/TOKEN",
        "/token;x",
        "/token;",
        "/./token",
        "/x/../token",
        "/token%2e",
        "/tok%65n",
        "/token%00",
        "/token\x00",
        "/token ",
        "/tok\u00e9n",
        "/introspect/",
        "/Revoke",
        "*",
        "/tenant/token",
        "/.well-known",
        "/.well-known/jwks.json",
    ],
)
def test_a_path_is_one_of_ours_byte_for_byte_or_not_found(path: str) -> None:
    token = FakeToken()
    reply = Caller(fake_endpoints(token)).unchecked("POST", path, b"grant_type=g")
    assert reply.status == 404
    assert not token.contexts


@pytest.mark.requirement("HTP-07")
@pytest.mark.parametrize(
    "host", ["", "a b", "a,b", "sts.test, evil.test", "user@sts.test", "a/b", "[::1", "a:b", "a:"]
)
def test_a_host_that_is_none_is_refused(host: str) -> None:
    token = FakeToken()
    reply = Caller(fake_endpoints(token)).post("grant_type=g", HTTP_HOST=host)
    assert reply.status == 400
    assert not token.contexts


@pytest.mark.requirement("HTP-07")
@pytest.mark.parametrize("host", ["evil.test", "sts.test:8443", "[2001:db8::1]:443", "127.0.0.1"])
def test_nothing_is_derived_from_the_host(host: str) -> None:
    plain, other = (caller()("GET", WELL_KNOWN[0], HTTP_HOST=one) for one in ("sts.test", host))
    assert (other.status, other.body) == (plain.status, plain.body)


@pytest.mark.requirement("META-02")
@pytest.mark.requirement("META-03")
@pytest.mark.parametrize(
    ("issuer", "paths"),
    [
        ("https://sts.test", WELL_KNOWN),
        ("https://sts.test/", WELL_KNOWN),
        (
            TENANT,
            (
                "/.well-known/oauth-authorization-server/tenant",
                "/.well-known/openid-configuration/tenant",
                "/tenant/.well-known/openid-configuration",
            ),
        ),
    ],
)
def test_the_metadata_is_the_same_at_every_well_known_place(
    issuer: str, paths: tuple[str, ...]
) -> None:
    replies = [caller(issuer=issuer)("GET", path) for path in paths]
    assert {reply.status for reply in replies} == {200}
    assert len({reply.body for reply in replies}) == 1
    assert replies[0].json == METADATA
    assert replies[0].headers["content-type"] == "application/json"


def test_all_paths_follow_the_path_of_the_issuer() -> None:
    call = caller(issuer=TENANT)
    assert call("POST", "/tenant/token", b"grant_type=g").status == 200
    assert call("POST", "/tenant/introspect", b"token=t").status == 200
    assert call("POST", "/tenant/revoke", b"token=t").status == 200
    assert call("GET", "/tenant/jwks").status == 200
    assert call("GET", "/tenant/authorize").status == 400
    for path in ("/token", "/introspect", "/revoke"):
        assert call("POST", path, b"grant_type=g").status == 404
    assert call("GET", WELL_KNOWN[0]).status == 404


@pytest.mark.requirement("META-10")
@pytest.mark.requirement("HTP-10")
def test_the_key_set_may_be_kept_as_long_as_it_says() -> None:
    reply = caller()("GET", "/jwks")
    assert reply.json == {"keys": [JWK]}
    assert reply.headers["cache-control"] == "public, max-age=120"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/jwks", *WELL_KNOWN])
def test_a_known_document_is_not_sent_again(path: str) -> None:
    first = caller()("GET", path)
    etag = first.headers["etag"]
    for offered in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = caller()("GET", path, HTTP_IF_NONE_MATCH=offered)
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == first.headers["cache-control"]
    assert caller()("GET", path, HTTP_IF_NONE_MATCH='"other"').body == first.body


def test_another_key_set_has_another_etag() -> None:
    other = FakeDiscovery(keys=({**JWK, "kid": "k2"},))
    replies = (caller()("GET", "/jwks"), Caller(fake_endpoints(discovery=other))("GET", "/jwks"))
    assert len({reply.headers["etag"] for reply in replies}) == 2


@pytest.mark.parametrize("path", ["/jwks", "/authorize", *WELL_KNOWN])
def test_a_head_request_gets_the_head_alone(path: str) -> None:
    got, head = caller()("GET", path), caller()("HEAD", path)
    assert (head.status, head.headers, head.body) == (got.status, got.headers, b"")


@pytest.mark.requirement("HTP-09")
@pytest.mark.parametrize("origin", ["https://evil.test", "null"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
def test_no_page_of_another_origin_may_read_the_token_endpoint(method: str, origin: str) -> None:
    reply = caller()(
        method,
        "/token",
        b"grant_type=g",
        HTTP_ORIGIN=origin,
        HTTP_ACCESS_CONTROL_REQUEST_METHOD="POST",
    )
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.requirement("HTP-09")
@pytest.mark.parametrize("path", ["/jwks", *WELL_KNOWN])
def test_any_page_may_read_a_public_document_but_not_with_credentials(path: str) -> None:
    for method, status in (("GET", 200), ("OPTIONS", 204)):
        reply = caller()(method, path, HTTP_ORIGIN="https://app.test")
        assert reply.status == status
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in reply.headers


@pytest.mark.requirement("HTP-10")
@pytest.mark.requirement("OPS-02")
def test_nothing_but_public_documents_may_be_kept() -> None:
    call = caller(InvalidClient(Reason.CLIENT_UNKNOWN))
    replies = (
        caller().post("grant_type=g"),
        call.post("grant_type=g"),
        call("GET", "/token"),
        call("GET", "/nowhere"),
        call("GET", "/authorize"),
        caller(ValueError(CANARY)).post("grant_type=g"),
        caller().post(b"\xff"),
    )
    for reply in replies:
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["pragma"] == "no-cache"
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.requirement("META-04")
def test_who_is_sent_here_to_log_in_learns_that_there_is_no_login() -> None:
    query = f"response_type=code&redirect_uri=https://evil.test&state=<script>{CANARY}"
    reply = caller()("GET", "/authorize", QUERY_STRING=query)
    assert reply.status == 400
    assert b"unsupported_response_type" in reply.body
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "location" not in reply.headers
    assert CANARY.encode() not in reply.body


ERRORS = [
    (InvalidRequest(Reason.PARAM_MISSING, parameter="subject_token", detail=CANARY), 400),
    (RequestTooLarge(Reason.BODY_TOO_LARGE), 413),
    (InvalidClient(Reason.BAD_SECRET, detail=CANARY), 401),
    (InvalidGrant(Reason.TOKEN_EXPIRED), 400),
    (UnauthorizedClient(Reason.GRANT_NOT_ALLOWED), 400),
    (UnsupportedGrantType(Reason.GRANT_UNSUPPORTED), 400),
    (InvalidScope(Reason.SCOPE_UNKNOWN), 400),
    (InvalidTarget(Reason.POLICY_FORBIDDEN, detail=CANARY), 400),
    (InvalidAuthorizationDetails(Reason.RAR_INVALID), 400),
    (InvalidDpopProof(Reason.POP_STALE, detail=CANARY), 400),
    (UnsupportedTokenType(Reason.NOT_REVOCABLE), 400),
    (InsufficientUserAuthentication(Reason.STEP_UP_REQUIRED), 400),
    (TemporarilyUnavailable(Reason.AUDIT_UNAVAILABLE), 503),
    (RateLimited(Reason.FETCH_LIMIT), 429),
    (NotFound(Reason.EVENT_UNKNOWN), 404),
    (NotYet(Reason.EVENT_NOT_SEALED), 409),
    (RecordDamaged(Reason.EVENT_CHANGED), 500),
    (ServerError(Reason.INTERNAL_ERROR), 500),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
def test_every_refusal_has_its_code_its_status_and_a_fixed_sentence(
    error: OAuthError, status: int
) -> None:
    reply = caller(error).post("grant_type=g")
    assert reply.status == status
    assert reply.json == {"error": error.error, "error_description": error.reason.sentence}
    assert CANARY.encode() not in reply.body


def test_every_class_of_refusal_was_tried() -> None:
    def below(error: type[OAuthError]) -> Iterator[type[OAuthError]]:
        return chain([error], *(below(one) for one in error.__subclasses__()))

    ours = {one for one in below(OAuthError) if one.__module__ == "broker.errors"} - {OAuthError}
    assert {type(error) for error, _ in ERRORS} == ours


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Reason.TARGET_UNKNOWN, Reason.POLICY_FORBIDDEN),
        (Reason.TARGET_REFUSED, Reason.POLICY_NO_PERMIT),
    ],
)
def test_an_unknown_and_a_forbidden_target_are_answered_with_the_same_bytes(
    one: Reason, other: Reason
) -> None:
    replies = [caller(InvalidTarget(reason)).post("grant_type=g") for reason in (one, other)]
    first, second = [
        (reply.status, reply.body, {**reply.headers, "broker-decision-id": ""}) for reply in replies
    ]
    assert first == second


def test_a_failed_authentication_names_the_scheme() -> None:
    reply = caller(InvalidClient(Reason.BAD_SECRET)).post(
        "grant_type=g", HTTP_AUTHORIZATION="Basic dTpw"
    )
    assert reply.headers["www-authenticate"].startswith("Basic realm=")


def test_who_may_come_again_is_told_when() -> None:
    error = TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE, retry_after=7)
    assert caller(error).post("grant_type=g").headers["retry-after"] == "7"


def test_a_step_up_says_which_login_would_do() -> None:
    error = InsufficientUserAuthentication(
        Reason.STEP_UP_REQUIRED, acr_values="urn:mfa", max_age=60
    )
    members = caller(error).post("grant_type=g").json
    assert (members["acr_values"], members["max_age"]) == ("urn:mfa", 60)


@pytest.mark.requirement("HTP-11")
@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", "%0d%0aSet-Cookie:%20a=b", "\"}'\\", "%00%1b[31m", CANARY],
)
def test_no_input_comes_back(hostile: str) -> None:
    call = caller(InvalidRequest(Reason.PARAM_MISSING))
    for reply in (
        call.post(f"grant_type={hostile}&scope={hostile}&{hostile}=1"),
        call.post(f"scope={hostile}&scope={hostile}"),
        call.post("a=b", QUERY_STRING=f"client_secret={hostile}"),
    ):
        assert reply.headers["content-type"] == "application/json"
        assert reply.body.isascii()
        assert hostile.encode() not in reply.body
        assert "set-cookie" not in reply.headers


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize(
    "failure", [ValueError(CANARY), RecursionError(CANARY), KeyError(CANARY), MemoryError(CANARY)]
)
def test_a_fault_of_ours_is_answered_with_a_fixed_text_and_logged_without_its_message(
    failure: Exception,
) -> None:
    with structlog.testing.capture_logs() as logs:
        reply = caller(failure).post("grant_type=g")
    assert reply.status == 500
    assert reply.json == {
        "error": "server_error",
        "error_description": "The request could not be completed.",
    }
    (line,) = logs
    assert line["event"] == "request_failed"
    assert line["kind"] == type(failure).__name__
    assert line["request_id"] == reply.headers["broker-decision-id"]
    assert CANARY not in str(logs)


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize("path", ["/jwks", *WELL_KNOWN])
def test_a_fault_behind_a_public_document_stays_behind_it(path: str) -> None:
    discovery = FakeDiscovery(failure=ValueError(CANARY))
    reply = Caller(fake_endpoints(discovery=discovery))("GET", path)
    assert reply.status == 500
    assert CANARY.encode() not in reply.body
    assert reply.headers["cache-control"] == "no-store"


def test_a_body_that_cannot_be_read_at_all_is_no_reason_to_tell_why() -> None:
    class Broken:
        def read(self, _size: int) -> bytes:
            raise OSError(CANARY)

    reply = caller().unchecked("POST", "/token", b"grant_type=g", **{"wsgi.input": Broken()})
    assert reply.status == 500
    assert CANARY.encode() not in reply.body


def test_who_comes_while_all_places_are_taken_waits_for_one() -> None:
    arrived, leave = threading.Barrier(3), threading.Event()
    token = FakeToken(while_issuing=lambda: (arrived.wait(60), leave.wait(60)))
    call = Caller(fake_endpoints(token), max_concurrent=2)
    replies: list[Reply] = []
    threads = [
        threading.Thread(target=lambda: replies.append(call.post("grant_type=g"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    arrived.wait(60)
    token.while_issuing = lambda: None
    third = threading.Thread(target=lambda: replies.append(call.post("grant_type=g")))
    third.start()
    assert len(token.contexts) == 2
    leave.set()
    for thread in (*threads, third):
        thread.join(60)
    assert [reply.status for reply in replies] == [200, 200, 200]


def test_who_waits_too_long_for_a_place_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.web.app._QUEUE_SECONDS", 0.01)
    arrived, leave = threading.Event(), threading.Event()

    def stay() -> None:
        arrived.set()
        leave.wait(60)

    call = Caller(fake_endpoints(FakeToken(while_issuing=stay)), max_concurrent=1)
    thread = threading.Thread(target=lambda: call.post("grant_type=g"))
    thread.start()
    arrived.wait(60)
    reply = call.post("grant_type=g")
    assert (reply.status, reply.json["error"]) == (503, "temporarily_unavailable")
    assert reply.headers["retry-after"] in {"1", "2"}
    # There is no record of it, so none is named.
    assert "broker-decision-id" not in reply.headers
    assert call("GET", "/jwks").status == 200
    leave.set()
    thread.join(60)
    assert call.post("grant_type=g").status == 200


def test_a_place_is_given_back_after_a_fault() -> None:
    call = caller(ValueError(CANARY), max_concurrent=1)
    assert [call.post("grant_type=g").status for _ in range(3)] == [500, 500, 500]


def test_no_secret_is_in_the_repr_of_a_response() -> None:
    response = granted(ISSUED, "id")
    assert ISSUED.token not in repr(response)
    assert json.loads(response.body)["access_token"] == ISSUED.token
