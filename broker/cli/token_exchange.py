"""``broker token exchange``: one exchange (RFC 8693) over HTTP or gRPC, as a client would do it."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.cli.exchange import ExchangeRequest, Issued, Server
from broker.cli.exchange_grpc import exchange_over_grpc
from broker.cli.exchange_http import exchange_over_http
from broker.cli.inputs import read_secret, read_token
from broker.cli.output import console, echo_json, output_option
from broker.cli.stop import Negative
from broker.cli.token_tree import draw
from broker.errors import TokenRejected
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_JWT
from broker.tokens.jws import read_token as take_apart

_TYPES: Final = {
    "access_token": TOKEN_TYPE_ACCESS_TOKEN,
    "id_token": TOKEN_TYPE_ID_TOKEN,
    "jwt": TOKEN_TYPE_JWT,
}


@click.command()
@click.option(
    "--issuer",
    envvar=["BROKER_ISSUER", "BROKER_HTTP"],
    help="The broker's issuer, at whose address its HTTP face is asked.",
)
@click.option("--grpc", envvar="BROKER_GRPC", help="Its gRPC address instead, HOST:PORT.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Authorities of the broker's TLS.")
@click.option("--client", envvar="BROKER_CLIENT_ID", required=True, help="The client that asks.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    envvar="BROKER_CLIENT_SECRET_FILE",
    help="A file with its secret; else BROKER_CLIENT_SECRET is taken.",
)
@click.option("--subject-token", default="-", show_default=True, help="@FILE, or - for stdin.")
@click.option("--subject-token-type", type=click.Choice(list(_TYPES)), default="access_token")
@click.option("--actor-token", help="@FILE, or - for standard input.")
@click.option("--actor-token-type", type=click.Choice(list(_TYPES)), default="jwt")
@click.option("--resource", "resources", multiple=True, help="The resource the token is for.")
@click.option("--audience", "audiences", multiple=True, help="The same by logical name.")
@click.option("--scope", "scopes", multiple=True, help="A scope asked for. Repeatable.")
@output_option("tree", "token", "json")
def exchange(
    *,
    client: str,
    secret_file: Path | None,
    subject_token: str,
    actor_token: str | None,
    output: str,
    **asked: Any,
) -> None:
    """
    Exchange a subject token for one that is narrower and meant for another resource.

    Tokens come from files or standard input and the secret from a file or the environment: on the
    command line others could read them.
    """
    if subject_token == "-" and actor_token == "-":
        raise click.UsageError("Only one of the two tokens can come from standard input.")
    server = Server(asked["issuer"], asked["grpc"], asked["ca_file"])
    if not server.issuer and not server.grpc:
        raise click.UsageError("Say where the broker is: --issuer URL or --grpc HOST:PORT.")
    request = ExchangeRequest(
        client_id=client,
        client_secret=read_secret(secret_file),
        subject_token=read_token(subject_token, name="--subject-token"),
        subject_token_type=_TYPES[asked["subject_token_type"]],
        actor_token=read_token(actor_token, name="--actor-token") if actor_token else None,
        actor_token_type=_TYPES[asked["actor_token_type"]] if actor_token else None,
        resources=asked["resources"],
        audiences=asked["audiences"],
        scopes=tuple(name for scope in asked["scopes"] for name in scope.split()),
    )
    call = exchange_over_grpc if server.grpc else exchange_over_http
    _print(call(server, request), output=output)


def _print(issued: Issued, *, output: str) -> None:
    if output == "json":
        echo_json(asdict(issued))
    elif output == "token":
        click.echo(issued.access_token)
    else:
        try:
            parts = take_apart(issued.access_token)
        except TokenRejected:
            raise Negative("The broker issued something that is no token.") from None
        console().print(draw(parts, (), now=int(time.time())))
