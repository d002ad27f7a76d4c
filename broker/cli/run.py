"""``broker run``: starts a local program, such as an MCP server over stdio, with a token that is renewed."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import rich_click as click

from broker.cli.connection import Connection, connection_from, connection_options
from broker.cli.inputs import read_token
from broker.cli.issued import Issued
from broker.cli.renewal import TokenFile
from broker.cli.requests import client_token, exchanged_token
from broker.cli.stop import Stop

TOKEN: Final = "BROKER_TOKEN"
TOKEN_FILE: Final = "BROKER_TOKEN_FILE"
_OURS: Final = ("BROKER_CLIENT_SECRET", "BROKER_CLIENT_SECRET_FILE")
_TICK: Final = 0.5
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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

    with tempfile.TemporaryDirectory(prefix="broker-run-") as folder:
        token_file = TokenFile(Path(folder) / "token", fetch)
        issued = token_file.renew()
        environment = {name: text for name, text in os.environ.items() if name not in _OURS}
        environment |= {TOKEN: issued.access_token, TOKEN_FILE: str(token_file.path)}
        status = supervise(command, environment, token_file)
    sys.exit(status)


def _fetch(
    connection: Connection, subject_token: str | None, *, resource: str, scopes: Sequence[str]
) -> Issued:
    if subject_token is None:
        return client_token(connection, resource=resource, scopes=scopes)
    # The file is read each time, since whoever logs the user in may renew it.
    token = read_token(subject_token, name="--subject-token")
    return exchanged_token(connection, token, resource=resource, scopes=scopes)


def supervise(command: Sequence[str], environment: Mapping[str, str], token_file: TokenFile) -> int:
    """Run the command to its end and keep its token fresh; returns its exit status."""
    try:
        process = subprocess.Popen(command, env=dict(environment))
    except OSError as error:
        raise Stop(f"{command[0]} cannot be started: {error.strerror}.") from None

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        process.send_signal(signum)

    before = {one: signal.signal(one, pass_on) for one in _PASSED_ON}
    try:
        return _wait(process, token_file)
    except BaseException:
        # Nothing is left behind with a token that nobody renews.
        process.terminate()
        process.wait()
        raise
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _wait(process: subprocess.Popen[bytes], token_file: TokenFile) -> int:
    while True:
        try:
            ended = process.wait(_TICK)
        except subprocess.TimeoutExpired:
            problem = token_file.renew_if_due()
            if problem:
                click.echo(f"The token could not be renewed: {problem}", err=True)
        else:
            # A shell tells of a signal by a status above 128.
            return ended if ended >= 0 else 128 - ended
