"""``broker audit open``: a one-time link to the auditor's pages."""

import time
import webbrowser
from pathlib import Path
from typing import Final

import rich_click as click

from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option
from broker.cli.page import tell
from broker.cli.stop import Misconfigured, Stop
from broker.config.durations import write_duration
from broker.web.review.links import FOLDER, LIFETIME, Links, LinksRefused
from broker.web.review.place import Place

_LOOK_EVERY: Final = 0.2


@click.command("open")
@config_option()
@click.option("--browser", "is_shown", is_flag=True, help="Open it in a browser as well.")
@output_option("text", "json")
def open_pages(config: Path, output: str, *, is_shown: bool) -> None:
    """
    Print a link that lets one browser read the audit record, once, within two minutes.

    Run it on the broker's machine, as the account that the broker runs as. Who used the link is recorded as
    that account. A browser is led there by a file that no other account can read, so that the link stands in
    no list of processes; the command ends when the link is used or over.
    """
    settings = settings_from(config)
    review = settings.audit.review
    if review is None:
        raise Misconfigured(
            f"{config}: audit.review is not set, so there are no pages. Add `audit: {{review: {{}}}}`."
        )
    links = Links(settings.state.directory / FOLDER)
    try:
        secret = links.issue()
    except LinksRefused as refused:
        raise Stop(f"No link was made: {refused}.") from None
    except OSError as error:
        raise Stop(f"No link was made: {error.filename}: {error.strerror}.") from None
    url = Place(review.url).url(f"/login/link/{secret}")
    if output == "json":
        echo_json({"url": url, "expires_in": LIFETIME})
    else:
        click.echo(url)
        lasts = write_duration(review.session_lifetime)
        tell(
            f"It opens the auditor's pages and logs one browser in, once, within two minutes. "
            f"The login lasts {lasts}, or {write_duration(review.idle_timeout)} without use."
        )
    if is_shown:
        _show(links, secret, url)


def _show(links: Links, secret: str, url: str) -> None:
    """Open a browser, and wait until it has used the link."""
    try:
        with links.page_to(url) as page:
            if not webbrowser.open(page.as_uri()):
                raise Stop("No browser could be opened; open the link yourself.")
            click.echo("Waiting until the browser has used it.", err=True)
            over_at = time.monotonic() + LIFETIME
            while links.is_open(secret) and time.monotonic() < over_at:
                time.sleep(_LOOK_EVERY)
    except OSError as error:
        raise Stop(f"No browser was opened: {error.filename}: {error.strerror}.") from None
