"""The token requests that several commands make, over whichever face the connection names."""

from collections.abc import Sequence

from broker.cli.connection import Connection
from broker.cli.issued import TYPE_NUMBERS, Issued
from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_TOKEN_EXCHANGE, TOKEN_TYPE_ACCESS_TOKEN
from broker.v1.token_service_pb2 import ExchangeTokenRequest, IssueClientTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub


def client_token(connection: Connection, *, resource: str | None, scopes: Sequence[str]) -> Issued:
    """A client's own token (RFC 6749 4.4)."""
    if connection.grpc:
        message = IssueClientTokenRequest(resources=[resource] if resource else [], scopes=scopes)
        with connection.channel() as channel:
            response = connection.call(TokenServiceStub(channel).IssueClientToken, message)
        return Issued.of(response.issued_token)
    form = [
        ("grant_type", GRANT_CLIENT_CREDENTIALS),
        ("resource", resource),
        ("scope", " ".join(scopes)),
    ]
    return Issued.read(connection.post("token", form))


def exchanged_token(
    connection: Connection, subject_token: str, *, resource: str, scopes: Sequence[str]
) -> Issued:
    """A token made of another access token (RFC 8693)."""
    if connection.grpc:
        message = ExchangeTokenRequest(
            subject_token=subject_token,
            subject_token_type=TYPE_NUMBERS[TOKEN_TYPE_ACCESS_TOKEN],
            resources=[resource],
            scopes=scopes,
        )
        with connection.channel() as channel:
            response = connection.call(TokenServiceStub(channel).ExchangeToken, message)
        return Issued.of(response.issued_token)
    form = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        ("subject_token", subject_token),
        ("subject_token_type", TOKEN_TYPE_ACCESS_TOKEN),
        ("resource", resource),
        ("scope", " ".join(scopes)),
    ]
    return Issued.read(connection.post("token", form))
