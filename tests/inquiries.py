"""Asking about tokens and withdrawing them on a stage, with the checks that hold for every answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import grpc

from broker.model import PartyKind
from broker.oauth import TOKEN_TYPE_ID_TOKEN
from broker.v1 import admin_service_pb2, admin_service_pb2_grpc
from broker.v1.admin_service_pb2 import RevokedParty
from tests.harness import Answer, Broker, GrpcFace, HttpFace, client_authentication, grpc_refusal
from tests.idp import encode
from tests.stage import Stage
from tests.world import RES_1, Parameters, by_assertion, exchange_parameters, good_id_token

INACTIVE = {"active": False}

_PARTIES = {
    PartyKind.SUBJECT: admin_service_pb2.REVOKED_PARTY_SUBJECT,
    PartyKind.CLIENT: admin_service_pb2.REVOKED_PARTY_CLIENT,
    PartyKind.MCP_SERVER: admin_service_pb2.REVOKED_PARTY_MCP_SERVER,
    PartyKind.ISSUER: admin_service_pb2.REVOKED_PARTY_ISSUER,
}


@dataclass(frozen=True)
class _Asking:
    """A face of which one other method than ``exchange`` is asked."""

    face: HttpFace | GrpcFace
    method: str

    @property
    def name(self) -> str:
        return self.face.name

    def exchange(
        self, parameters: Parameters, *authorization: str, proofs: Sequence[str] = ()
    ) -> Answer:
        assert not proofs
        answer: Answer = getattr(self.face, self.method)(parameters, *authorization)
        return answer


def asking(stage: Stage, method: str) -> Stage:
    """The stage with its refusals checked at ``introspect`` or ``revoke``."""
    return replace(stage, face=cast("Any", _Asking(stage.face, method)))


def about(token: str, by: str = "mcp1-srv", /, **changes: str | None) -> Parameters:
    """The parameters of a question about a token, or of its withdrawal."""
    parameters = {"token": token, **by_assertion(by), **changes}
    return {name: value for name, value in parameters.items() if value is not None}


def told(stage: Stage, token: str, by: str = "mcp1-srv") -> dict[str, Any]:
    """What is told of a token that must be active, with one record of it as permitted."""
    answer, record = _inquired(stage, "introspect", about(token, by))
    assert answer.fields["active"] is True, record
    assert record["decision"] == "permit"
    return dict(answer.fields)


def untold(stage: Stage, token: str, by: str = "mcp1-srv", /, *, reason: str) -> Answer:
    """The answer about a token of which nothing is told, the reason being in the record alone."""
    answer, record = _inquired(stage, "introspect", about(token, by))
    assert answer.fields == INACTIVE
    assert (record["decision"], record["reason"]) == ("deny", reason)
    assert "error" not in record
    return answer


def revoke(stage: Stage, token: str, by: str) -> None:
    """Withdraw a token, which must be there to be withdrawn."""
    answer, record = _inquired(stage, "revoke", about(token, by))
    assert (answer.error, answer.fields) == ("", {})
    assert record["decision"] == "permit", record


def revoke_nothing(stage: Stage, token: str, by: str, /, *, reason: str) -> Answer:
    """Withdraw what is nothing to withdraw: the answer is the same, the record tells why."""
    answer, record = _inquired(stage, "revoke", about(token, by))
    assert (answer.error, answer.fields) == ("", {})
    assert (record["decision"], record["reason"]) == ("deny", reason)
    return answer


def _inquired(stage: Stage, method: str, parameters: Parameters) -> tuple[Answer, dict[str, Any]]:
    before, spent = len(stage.broker.records()), stage.broker.spent_count()
    answer: Answer = getattr(stage.face, method)(parameters)
    (record,) = stage.broker.records()[before:]
    assert answer.status == ("OK" if stage.face.name == "grpc" else "200"), answer.error
    assert record["event"] == f"token.{method}"
    assert stage.broker.spent_count() == spent + 1
    if stage.face.name == "http":
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
    return answer, record


def withdraw(
    broker: Broker, kind: PartyKind | int, name: str, by: str = "operator", /, *, since: int = 0
) -> Any:
    """Withdraw for a party as an operator does, over gRPC: the answer, or the refusal."""
    now = broker.clock.at
    credential = by_assertion(by, iat=now, exp=now + 60) if by else {}
    message = admin_service_pb2.RevokeIssuedTokensRequest(
        party=_PARTIES[kind] if isinstance(kind, PartyKind) else RevokedParty.ValueType(kind),
        name=name,
        issued_since=since,
        client_authentication=client_authentication(credential),
    )
    face = GrpcFace(broker)
    try:
        stub = admin_service_pb2_grpc.AdminServiceStub(face.channel)
        return stub.RevokeIssuedTokens(message, timeout=20)
    except grpc.RpcError as error:
        return grpc_refusal(error)
    finally:
        face.close()


def first_token(stage: Stage, **claims: Any) -> str:
    """The user's token for the MCP server, which the agent gets for an ID token."""
    return stage.grant(login(**claims)).token


def login(**claims: Any) -> Parameters:
    """The parameters by which the agent gets it."""
    parameters = exchange_parameters(
        good_id_token(**claims),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read b:read",
    )
    return parameters | by_assertion("agent-x")


def exchanged(token: str, by: str, /, **changes: str | None) -> Parameters:
    """The parameters by which a party exchanges a token of the broker's."""
    return exchange_parameters(token, **changes) | by_assertion(by)


def signed_by_broker(stage: Stage, claims: Mapping[str, Any], *, typ: str = "at+jwt") -> str:
    """A token with the broker's own signature, whatever it says."""
    key = stage.broker.key_store.signing_key("ES256")
    header = json.dumps({"alg": "ES256", "typ": typ, "kid": key.kid}).encode()
    signing_input = encode(header) + b"." + encode(json.dumps(claims).encode())
    return (signing_input + b"." + encode(key.sign(signing_input))).decode()
