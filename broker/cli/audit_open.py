"""``broker audit open``: a one-time link to the auditor's pages."""

import webbrowser
from pathlib import Path

import rich_click as click

from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option
from broker.cli.stop import Misconfigured, Stop
from broker.web.review.links import FOLDER, LIFETIME, Links, LinksRefused
from broker.web.review.place import Place


@click.command("open")
@config_option()
@click.option("--browser", "is_shown", is_flag=True, help="Open it in a browser as well.")
@output_option("text", "json")
def open_pages(config: Path, output: str, *, is_shown: bool) -> None:
    """
    Print a link that lets one browser read the audit record, once, within two minutes.

    Run it on the broker's machine, as the account that the broker runs as. Who used the link is recorded as
    that account.
    """
    settings = settings_from(config)
    review = settings.audit.review
    if review is None:
        raise Misconfigured(
            f"{config}: audit.review is not set, so there are no pages. Add `audit: {{review: {{}}}}`."
        )
    try:
        secret = Links(settings.state.directory / FOLDER).issue()
    except LinksRefused as refused:
        raise Stop(f"No link was made: {refused}.") from None
    except OSError as error:
        raise Stop(f"No link was made: {error.filename}: {error.strerror}.") from None
    url = Place(review.url).url(f"/login/link/{secret}")
    if output == "json":
        echo_json({"url": url, "expires_in": LIFETIME})
    else:
        click.echo(url)
        click.echo(f"It works once, within {LIFETIME} seconds.", err=True)
    if is_shown and not webbrowser.open(url):
        raise Stop("No browser could be opened; open the link yourself.")
