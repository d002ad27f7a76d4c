"""``broker audit people``: the periods whose people can be found, and how somebody is called in them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import rich_click as click
from rich.text import Text

from broker.audit.people.periods import is_current
from broker.audit.people.search import People
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option, plain, print_table, print_wrapped
from broker.cli.people_keys import people_keys, token_file_option

_LONGEST_NAME: Final = 2048
_NO_KEYS: Final = {
    "clear": "People have their names in it (`audit.people.names: clear`): there are no keys of pseudonyms.",
    "pseudonym": "There is no key of pseudonyms: nobody can be found by name.",
}


@click.command()
@click.option("--name", default="", help="Show the pseudonyms of who has this subject as well.")
@token_file_option
@config_option()
@output_option("table", "json")
def people(name: str, token_file: Path | None, config: Path, output: str) -> None:
    """
    List the periods whose people can be found in the audit record, because their key is still there.

    In records of other periods nobody finds them any more.
    """
    if len(name) > _LONGEST_NAME:
        raise click.UsageError("--name is too long for a subject.")
    settings = settings_from(config)
    with people_keys(settings, token_file) as keys:
        found = People(keys)
        periods, pseudonyms = found.periods(), found.pseudonyms_of(name)
    now = time.time()
    facts: list[dict[str, Any]] = [
        {
            "period": period,
            "is_current": is_current(period, now),
            "pseudonyms": [one for one in pseudonyms if one.startswith(f"~{period}~")],
        }
        for period in periods
    ]
    if output == "json":
        echo_json({"periods": facts})
        return
    if not facts:
        print_wrapped(plain(_NO_KEYS[settings.audit.people.names]))
        return
    _print(facts, has_name=bool(name))


def _print(facts: Sequence[Mapping[str, Any]], *, has_name: bool) -> None:
    """A row for each period, and for each pseudonym where a period has several."""
    rows = [
        [plain("period", "dim"), Text(), plain("pseudonym" if has_name else "", "dim")],
        *(
            [plain(period["period"]), plain("now" if period["is_current"] else ""), plain(one)]
            for period in facts
            for one in period["pseudonyms"] or ("",)
        ),
    ]
    print_table(rows)
