"""``broker token get``: a client's own token (RFC 6749 4.4), over HTTP or gRPC."""

from typing import Any

import rich_click as click

from broker.cli.connection import connection_from, connection_options
from broker.cli.issued import Issued
from broker.cli.output import output_option
from broker.oauth import GRANT_CLIENT_CREDENTIALS
from broker.v1.token_service_pb2 import IssueClientTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub


@click.command()
@connection_options
@click.option("--resource", help="The resource the token is for; the broker's default if unset.")
@click.option("--scope", "scopes", multiple=True, help="A scope asked for. Repeatable.")
@output_option("tree", "token", "json")
def get(*, resource: str | None, scopes: tuple[str, ...], output: str, **asked: Any) -> None:
    """
    Get a token for a client itself, as an agent does that acts for nobody in particular.

    The secret comes from a file or the environment: on the command line others could read it.
    """
    connection = connection_from(**asked)
    names = [name for scope in scopes for name in scope.split()]
    if connection.grpc:
        message = IssueClientTokenRequest(resources=[resource] if resource else [], scopes=names)
        with connection.channel() as channel:
            response = connection.call(TokenServiceStub(channel).IssueClientToken, message)
        issued = Issued.of(response.issued_token)
    else:
        form = [
            ("grant_type", GRANT_CLIENT_CREDENTIALS),
            ("resource", resource),
            ("scope", " ".join(names)),
        ]
        issued = Issued.read(connection.post("token", form))
    issued.print(output=output)
