"""``broker token exchange``: one exchange (RFC 8693) over HTTP or gRPC, as a client would do it."""

from typing import Any, Final

import rich_click as click

from broker.cli.connection import Connection, connection_from, connection_options
from broker.cli.inputs import read_token
from broker.cli.issued import TYPE_NUMBERS, Issued
from broker.cli.output import output_option
from broker.oauth import (
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
)
from broker.v1.token_service_pb2 import ExchangeTokenRequest
from broker.v1.token_service_pb2_grpc import TokenServiceStub

_TYPES: Final = {
    "access_token": TOKEN_TYPE_ACCESS_TOKEN,
    "id_token": TOKEN_TYPE_ID_TOKEN,
    "jwt": TOKEN_TYPE_JWT,
}
_REQUESTED: Final = {"access_token": None, "id_jag": TOKEN_TYPE_ID_JAG}


@click.command()
@connection_options
@click.option("--subject-token", default="-", show_default=True, help="@FILE, or - for stdin.")
@click.option("--subject-token-type", type=click.Choice(list(_TYPES)), default="access_token")
@click.option("--actor-token", help="@FILE, or - for standard input.")
@click.option("--actor-token-type", type=click.Choice(list(_TYPES)), default="jwt")
@click.option(
    "--requested-token-type",
    type=click.Choice(list(_REQUESTED)),
    default="access_token",
    help="`id_jag` asks for an identity assertion; --audience then names the authorization server.",
)
@click.option("--resource", "resources", multiple=True, help="The resource the token is for.")
@click.option("--audience", "audiences", multiple=True, help="The same by logical name.")
@click.option("--scope", "scopes", multiple=True, help="A scope asked for. Repeatable.")
@output_option("tree", "token", "json")
def exchange(*, subject_token: str, actor_token: str | None, output: str, **asked: Any) -> None:
    """
    Exchange a subject token for one that is narrower and meant for another resource.

    Tokens come from files or standard input and the secret from a file or the environment: on the
    command line others could read them.
    """
    if subject_token == "-" and actor_token == "-":
        raise click.UsageError("Only one of the two tokens can come from standard input.")
    connection = connection_from(**asked)
    parameters = {
        "subject_token": read_token(subject_token, name="--subject-token"),
        "subject_token_type": _TYPES[asked["subject_token_type"]],
        "actor_token": read_token(actor_token, name="--actor-token") if actor_token else None,
        "actor_token_type": _TYPES[asked["actor_token_type"]] if actor_token else None,
        "requested_token_type": _REQUESTED[asked["requested_token_type"]],
    }
    ask = _over_grpc if connection.grpc else _over_http
    ask(connection, parameters, asked).print(output=output)


def _scopes(asked: dict[str, Any]) -> list[str]:
    return [name for scope in asked["scopes"] for name in scope.split()]


def _over_http(
    connection: Connection, parameters: dict[str, str | None], asked: dict[str, Any]
) -> Issued:
    form = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        *parameters.items(),
        *(("resource", resource) for resource in asked["resources"]),
        *(("audience", audience) for audience in asked["audiences"]),
        ("scope", " ".join(_scopes(asked))),
    ]
    return Issued.read(connection.post("token", form))


def _over_grpc(
    connection: Connection, parameters: dict[str, str | None], asked: dict[str, Any]
) -> Issued:
    message = ExchangeTokenRequest(
        subject_token=parameters["subject_token"] or "",
        subject_token_type=TYPE_NUMBERS[parameters["subject_token_type"]],
        actor_token=parameters["actor_token"] or "",
        actor_token_type=TYPE_NUMBERS[parameters["actor_token_type"]],
        requested_token_type=TYPE_NUMBERS[parameters["requested_token_type"]],
        resources=asked["resources"],
        audiences=asked["audiences"],
        scopes=_scopes(asked),
    )
    with connection.channel() as channel:
        response = connection.call(TokenServiceStub(channel).ExchangeToken, message)
    return Issued.of(response.issued_token)
