"""``broker token revoke``: a client withdraws a token that was issued to it (RFC 7009)."""

from typing import Any

import rich_click as click

from broker.cli.connection import connection_from, connection_options
from broker.cli.inputs import read_token
from broker.v1.token_service_pb2 import RevokeTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub


@click.command()
@click.argument("token", default="-")
@connection_options
def revoke(*, token: str, **asked: Any) -> None:
    """
    Withdraw TOKEN, which is @FILE or - for standard input, and all that was derived from it.

    It must have been issued to the client that asks. What is no token, or none any more, is answered
    like one that was withdrawn.
    """
    connection = connection_from(**asked)
    withdrawn = read_token(token, name="TOKEN")
    if connection.grpc:
        with connection.channel() as channel:
            stub = TokenServiceStub(channel)
            connection.call(stub.RevokeToken, RevokeTokenRequest(token=withdrawn))
    else:
        connection.post("revoke", [("token", withdrawn)])
    click.echo("The token does not count any more.")
