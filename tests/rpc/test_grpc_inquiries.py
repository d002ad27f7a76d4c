"""Introspection, revocation and withdrawal over gRPC: what is read of a message, and what goes back."""

import json
from typing import Any

import pytest

from broker.errors import InvalidRequest, Reason, UnauthorizedClient
from broker.model import (
    ClientCredential,
    Party,
    PartyKind,
    TokenInquiry,
    Withdrawal,
    WithdrawalRequest,
)
from broker.rpc.call import CallMetadata
from broker.rpc.token_inquiries import read_inquiry
from broker.v1.admin_service_pb2 import RevokedParty, RevokeIssuedTokensRequest
from broker.v1.token_pb2 import ClientAuthentication
from broker.v1.token_service_pb2 import (
    IntrospectTokenRequest,
    IntrospectTokenResponse,
    RevokeTokenRequest,
)
from tests.rpc.calling import serving
from tests.web.face_fakes import CANARY, FakeInquiries, fake_endpoints

INTROSPECT = "/broker.v1.TokenService/IntrospectToken"
REVOKE = "/broker.v1.TokenService/RevokeToken"
WITHDRAW = "/broker.v1.AdminService/RevokeIssuedTokens"
UNKNOWN = RevokedParty.ValueType(99)
MESSAGES: tuple[Any, ...] = (IntrospectTokenRequest, RevokeTokenRequest)

DOCUMENT: dict[str, Any] = {
    "active": True,
    "token_type": "DPoP",
    "iss": "https://sts.test",
    "sub": "u1",
    "aud": "https://mcp1.test/mcp",
    "client_id": "agent-x",
    "scope": "a:read b:read",
    "iat": 1,
    "exp": 2,
    "jti": "jti-1",
    "act": {"sub": "agent-x"},
}


@pytest.mark.requirement("INTRO-01", "REV-01")
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_becomes_an_inquiry(message: Any) -> None:
    sent = message(
        token="t.t.t",
        token_type_hint="refresh_token",
        client_authentication=ClientAuthentication(client_id="c", client_secret="s"),
    )
    metadata = CallMetadata.read([("authorization", "Basic a"), ("x-forwarded-user", "root")])
    assert read_inquiry(sent, metadata) == TokenInquiry(
        ClientCredential(unverified_authorization=("Basic a",), client_id="c", client_secret="s"),
        "t.t.t",
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_an_empty_token_counts_as_omitted(message: Any) -> None:
    assert read_inquiry(message(), CallMetadata()) == TokenInquiry(ClientCredential())


@pytest.mark.requirement("GRP-01")
@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize(("name", "longest"), [("token", 32_768), ("token_type_hint", 4_096)])
def test_a_field_is_bounded_as_the_parameter_is(message: Any, name: str, longest: int) -> None:
    read_inquiry(message(**{name: "a" * longest}), CallMetadata())

    with pytest.raises(InvalidRequest) as caught:
        read_inquiry(message(**{name: "a" * (longest + 1)}), CallMetadata())

    assert (caught.value.reason, caught.value.parameter) == (Reason.PARAM_TOO_LARGE, name)


@pytest.mark.requirement("INTRO-03")
def test_what_is_told_of_a_token_becomes_a_message() -> None:
    with serving(fake_endpoints(inquiries=FakeInquiries(DOCUMENT))) as (_, client):
        answer = client.token.IntrospectToken(IntrospectTokenRequest(token="t"))

    assert json.loads(answer.document_json) == DOCUMENT
    answer.ClearField("document_json")
    assert answer == IntrospectTokenResponse(
        active=True,
        iss="https://sts.test",
        sub="u1",
        aud="https://mcp1.test/mcp",
        client_id="agent-x",
        scopes=["a:read", "b:read"],
        iat=1,
        exp=2,
        jti="jti-1",
        token_type="DPoP",
    )


@pytest.mark.requirement("INTRO-02", "ITR-03")
def test_of_a_token_that_does_not_count_the_message_is_empty() -> None:
    with serving(fake_endpoints(inquiries=FakeInquiries({"active": False}))) as (_, client):
        assert client.call(INTROSPECT, IntrospectTokenRequest(token="t")) == b""
        assert client.call(REVOKE, RevokeTokenRequest(token="t")) == b""


@pytest.mark.requirement("REV-06")
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (RevokedParty.REVOKED_PARTY_UNSPECIFIED, None),
        (RevokedParty.REVOKED_PARTY_SUBJECT, PartyKind.SUBJECT),
        (RevokedParty.REVOKED_PARTY_CLIENT, PartyKind.CLIENT),
        (RevokedParty.REVOKED_PARTY_MCP_SERVER, PartyKind.MCP_SERVER),
        (RevokedParty.REVOKED_PARTY_ISSUER, PartyKind.ISSUER),
    ],
)
def test_an_order_to_withdraw_is_read_and_answered(
    number: RevokedParty.ValueType, kind: PartyKind | None
) -> None:
    inquiries = FakeInquiries(Withdrawal(Party(PartyKind.SUBJECT, "u1"), 7, 99, 1000))
    message = RevokeIssuedTokensRequest(party=number, name="u1", issued_since=7)
    with serving(fake_endpoints(inquiries=inquiries)) as (_, client):
        answer = client.admin.RevokeIssuedTokens(message)

    assert answer.issued_until == 99
    assert inquiries.requests == [WithdrawalRequest(ClientCredential(), kind, "u1", 7)]


def test_no_sort_of_party_was_forgotten() -> None:
    assert len(RevokedParty.values()) == len(PartyKind) + 1


@pytest.mark.requirement("GRP-10")
def test_an_unknown_sort_of_party_is_refused_and_recorded() -> None:
    inquiries = FakeInquiries()
    with serving(fake_endpoints(inquiries=inquiries)) as (_, client):
        refused = client.refused(WITHDRAW, RevokeIssuedTokensRequest(party=UNKNOWN, name="u1"))

    assert list(refused.violations) == ["party"]
    assert [one.reason for one in inquiries.refusals] == [Reason.PARAM_MALFORMED]


@pytest.mark.requirement("GRP-12")
@pytest.mark.parametrize("method", [INTROSPECT, REVOKE, WITHDRAW])
def test_neither_refusals_nor_faults_tell_more_than_they_may(method: str) -> None:
    inquiries = FakeInquiries(UnauthorizedClient(Reason.PERMISSION_MISSING, detail=CANARY))
    with serving(fake_endpoints(inquiries=inquiries)) as (_, client):
        refused = client.refused(method)
        inquiries.answer = ValueError(CANARY)
        failed = client.refused(method)

    assert refused.info.metadata["error"] == "unauthorized_client"
    assert failed.info.metadata["error"] == "server_error"
    assert CANARY not in refused.everything + failed.everything
