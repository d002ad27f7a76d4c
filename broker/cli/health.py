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
@click.option(
    "--live", "is_live", is_flag=True, help="Ask whether it lives, whatever it is waiting for."
)
@config_option()
def health(admin: str | None, config: Path, *, is_live: bool) -> None:
    """Ask a running broker whether it is ready; exit code 0 says yes."""
    base = (admin or f"http://{settings_from(config).listen.admin}").rstrip("/")
    fetcher = Fetcher(timeout=_SECONDS)
    answer = fetcher.get(f"{base}/livez") if is_live else fetcher.get(f"{base}/readyz", verbose="")
    for line in answer.text.splitlines():
        click.echo(printable(line))
    if answer.status != 200:
        missing = "alive" if is_live else "ready"
        raise Negative(f"The broker is not {missing} (status {answer.status}).")
