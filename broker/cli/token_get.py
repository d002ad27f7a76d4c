"""``broker token get``: a client's own token (RFC 6749 4.4), over HTTP or gRPC."""

from typing import Any

import rich_click as click

from broker.cli.connection import connection_from, connection_options
from broker.cli.output import output_option
from broker.cli.requests import client_token


@click.command()
@connection_options
@click.option("--resource", help="The resource the token is for; the broker's default if unset.")
@click.option("--scope", "scopes", multiple=True, help="A scope asked for. Repeatable.")
@output_option("tree", "token", "json", "env", "header")
def get(*, resource: str | None, scopes: tuple[str, ...], output: str, **asked: Any) -> None:
    """
    Get a token for a client itself, as an agent does that acts for nobody in particular.

    The secret comes from a file or the environment: on the command line others could read it. `env` prints
    a line for a shell to evaluate, `header` one for curl's `-H @-`.
    """
    names = [name for scope in scopes for name in scope.split()]
    client_token(connection_from(**asked), resource=resource, scopes=names).print(output=output)
