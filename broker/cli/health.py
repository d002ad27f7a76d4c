"""``broker health``: whether a running broker is ready, as a probe inside its container asks."""

from pathlib import Path

import rich_click as click

from broker.cli.fetching import Fetcher
from broker.cli.inputs import config_option, settings_from
from broker.cli.stop import Negative
from broker.config.problems import printable

_SECONDS = 5.0


@click.command()
@click.option(
    "--admin", envvar="BROKER_ADMIN", help="The admin port's URL; the settings' if unset."
)
@config_option()
def health(admin: str | None, config: Path) -> None:
    """Ask a running broker whether it is ready; exit code 0 says yes."""
    base = admin or f"http://{settings_from(config).listen.admin}"
    answer = Fetcher(timeout=_SECONDS).get(base.rstrip("/") + "/readyz", verbose="")
    for line in answer.text.splitlines():
        click.echo(printable(line))
    if answer.status != 200:
        raise Negative(f"The broker is not ready (status {answer.status}).")
