"""``broker run``: starts a local program, such as an MCP server over stdio, with a token that is renewed."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import rich_click as click

from broker.cli.child import Child, private_folder
from broker.cli.connection import Connection, connection_from, connection_options
from broker.cli.inputs import read_token
from broker.cli.issued import Issued
from broker.cli.renewal import TokenFile
from broker.cli.requests import client_token, exchanged_token

TOKEN: Final = "BROKER_TOKEN"
TOKEN_FILE: Final = "BROKER_TOKEN_FILE"
_OURS: Final = ("BROKER_CLIENT_SECRET", "BROKER_CLIENT_SECRET_FILE", "BROKER_CLIENT_KEY_FILE")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@connection_options
@click.option("--resource", required=True, help="The resource the token is for.")
@click.option("--scope", "scopes", multiple=True, help="A scope asked for. Repeatable.")
@click.option(
    "--subject-token",
    help="@FILE with a token to exchange; without it the client gets one for itself.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    *,
    resource: str,
    scopes: tuple[str, ...],
    subject_token: str | None,
    command: tuple[str, ...],
    **asked: Any,
) -> None:
    """
    Start COMMAND with a token in its environment (BROKER_TOKEN), and keep a fresh one in the file that
    BROKER_TOKEN_FILE names.

    The client's secret is not passed on. The command's exit status is returned; its standard input and
    output are its own.
    """
    connection = connection_from(**asked)
    if subject_token == "-":
        raise click.UsageError("Standard input is the command's; give --subject-token as @FILE.")
    names = [name for scope in scopes for name in scope.split()]

    def fetch() -> Issued:
        return _fetch(connection, subject_token, resource=resource, scopes=names)

    child = Child()
    with child.signals_passed_on(), private_folder() as folder:
        token_file = TokenFile(folder / "token", fetch)
        issued = token_file.renew()
        environment = {name: text for name, text in os.environ.items() if name not in _OURS}
        environment |= {TOKEN: issued.access_token, TOKEN_FILE: str(token_file.path)}
        status = child.run(command, environment, lambda: _renew(token_file))
    sys.exit(status)


def _renew(token_file: TokenFile) -> None:
    problem = token_file.renew_if_due()
    if problem:
        # Nobody may be there any more to read it, and the program goes on with the token it has.
        with suppress(OSError):
            click.echo(f"The token could not be renewed: {problem}", err=True)


def _fetch(
    connection: Connection, subject_token: str | None, *, resource: str, scopes: Sequence[str]
) -> Issued:
    if subject_token is None:
        return client_token(connection, resource=resource, scopes=scopes)
    # The file is read each time, since whoever logs the user in may renew it.
    token = read_token(subject_token, name="--subject-token")
    return exchanged_token(connection, token, resource=resource, scopes=scopes)
