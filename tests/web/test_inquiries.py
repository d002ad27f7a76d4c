"""Introspection and revocation over HTTP: what is read of a form, and what goes back."""

from typing import Any

import pytest

from broker.errors import (
    InvalidClient,
    InvalidRequest,
    OAuthError,
    Reason,
    ServerError,
    TemporarilyUnavailable,
    UnauthorizedClient,
    UnsupportedTokenType,
)
from broker.model import ClientCredential, TokenInquiry
from tests.web.face_fakes import CANARY, Caller, FakeInquiries, Reply, fake_endpoints

PATHS = ("/introspect", "/revoke")
DOCUMENT = {"active": True, "sub": "u1", "scope": "a b", "exp": 1, "act": {"sub": "é"}}

pytestmark = pytest.mark.parametrize("path", PATHS)


def ask(path: str, body: bytes | str, **environ: Any) -> tuple[FakeInquiries, Reply]:
    inquiries = FakeInquiries({"active": False})
    raw = body if isinstance(body, bytes) else body.encode()
    return inquiries, Caller(fake_endpoints(inquiries=inquiries))("POST", path, raw, **environ)


def refusal(path: str, body: bytes | str, **environ: Any) -> Reason:
    """The reason of a refusal, which reached the audit entry and left nothing of the request."""
    inquiries, reply = ask(path, body, **environ)
    assert reply.json["error"] == "invalid_request"
    assert not inquiries.requests
    assert CANARY not in f"{reply.headers} {reply.body!r}"
    return inquiries.refusals[0].reason


@pytest.mark.requirement("INTRO-01", "REV-01")
def test_a_form_becomes_an_inquiry(path: str) -> None:
    inquiries, reply = ask(
        path,
        "token=t.t.t&token_type_hint=refresh_token&client_id=c&client_secret=s%2B"
        "&client_assertion=a&client_assertion_type=urn:j&colour=blue&scope=x",
        HTTP_AUTHORIZATION="Basic dTpw",
    )
    assert reply.status == 200
    assert inquiries.requests == [
        TokenInquiry(
            ClientCredential(
                unverified_authorization=("Basic dTpw",),
                client_id="c",
                client_secret="s+",
                client_assertion="a",
                client_assertion_type="urn:j",
            ),
            "t.t.t",
        )
    ]


def test_a_token_without_a_value_counts_as_omitted(path: str) -> None:
    assert ask(path, "token=&client_id=c")[0].requests[0].token is None


@pytest.mark.requirement("HTP-03")
@pytest.mark.parametrize("name", ["token", "token_type_hint", "client_id", "client_assertion", "x"])
def test_a_repeated_parameter_is_refused(path: str, name: str) -> None:
    assert refusal(path, f"{name}=a&token=t&{name}=a") is Reason.DUPLICATE_PARAM


@pytest.mark.requirement("CAU-10")
@pytest.mark.parametrize("name", ["token", "client_secret", "client_assertion", "token_type_hint"])
def test_nothing_is_taken_from_the_query(path: str, name: str) -> None:
    assert refusal(path, "", QUERY_STRING=f"{name}={CANARY}") is Reason.CREDENTIAL_IN_QUERY


@pytest.mark.requirement("HTP-02")
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", None])
def test_only_forms_are_read(path: str, content_type: str | None) -> None:
    assert refusal(path, '{"token":"t"}', CONTENT_TYPE=content_type) is Reason.CONTENT_TYPE


@pytest.mark.requirement("HTP-04")
def test_a_large_token_is_read_and_a_larger_one_is_not(path: str) -> None:
    inquiries, _ = ask(path, "token=" + "a" * 32_768)
    assert len(inquiries.requests[0].token) == 32_768
    assert refusal(path, "token=" + "a" * 32_769) is Reason.PARAM_TOO_LARGE
    assert refusal(path, "token=a&token_type_hint=" + "a" * 4_097) is Reason.PARAM_TOO_LARGE


@pytest.mark.requirement("HTP-04")
def test_a_body_beyond_the_limit_is_refused(path: str) -> None:
    inquiries, reply = ask(path, b"token=" + b"a" * 65_536)
    assert reply.status == 413
    assert [one.reason for one in inquiries.refusals] == [Reason.BODY_TOO_LARGE]


@pytest.mark.requirement("HTP-01")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "post"])
def test_another_verb_is_refused_and_nothing_is_parsed(path: str, method: str) -> None:
    inquiries = FakeInquiries()
    call = Caller(fake_endpoints(inquiries=inquiries))
    reply = call.unchecked(method, path, b"token=t", QUERY_STRING="token=t")
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert not inquiries.requests
    assert not inquiries.refusals


@pytest.mark.requirement("HTP-09", "INTRO-07")
@pytest.mark.parametrize("origin", ["https://evil.test", "null"])
def test_no_page_may_read_the_answer_and_nobody_may_keep_it(path: str, origin: str) -> None:
    _, reply = ask(path, "token=t", HTTP_ORIGIN=origin)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["pragma"] == "no-cache"
    assert "etag" not in reply.headers


def test_the_answer_is_what_the_endpoint_said(path: str) -> None:
    inquiries = FakeInquiries(DOCUMENT)
    reply = Caller(fake_endpoints(inquiries=inquiries))("POST", path, b"token=t")
    assert reply.status == 200
    assert reply.headers["content-length"] == str(len(reply.body))
    if path == "/introspect":
        assert reply.headers["content-type"] == "application/json"
        assert reply.json == DOCUMENT
    else:
        assert reply.body == b""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest(Reason.PARAM_MISSING, parameter="token"), 400),
        (InvalidClient(Reason.BAD_SECRET, detail=CANARY), 401),
        (UnauthorizedClient(Reason.REVOKE_NOT_OWNER), 400),
        (UnsupportedTokenType(Reason.NOT_REVOCABLE), 400),
        (TemporarilyUnavailable(Reason.REVOCATION_UNAVAILABLE), 503),
        (ServerError(Reason.INTERNAL_ERROR), 500),
    ],
)
def test_a_refusal_is_answered_as_at_the_token_endpoint(
    path: str, error: OAuthError, status: int
) -> None:
    inquiries = FakeInquiries(error)
    reply = Caller(fake_endpoints(inquiries=inquiries))("POST", path, b"token=t")
    assert reply.status == status
    assert reply.json == {"error": error.error, "error_description": error.description}
    assert ("retry-after" in reply.headers) == (status == 503)
    assert ("www-authenticate" in reply.headers) == (status == 401)


def test_a_fault_of_ours_tells_nothing(path: str) -> None:
    inquiries = FakeInquiries(ValueError(CANARY))
    reply = Caller(fake_endpoints(inquiries=inquiries))("POST", path, b"token=t")
    assert reply.status == 500
    assert CANARY.encode() not in reply.body
    assert "active" not in reply.json


def test_no_token_is_in_the_repr_of_an_inquiry(path: str) -> None:
    inquiries, _ = ask(path, f"token={CANARY}&client_secret={CANARY}")
    assert CANARY not in repr(inquiries.requests)
