"""``broker keys list``: our own keys and where in their lives they are, or what an issuer publishes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.cli.fetching import Fetcher
from broker.cli.inputs import config_option, settings_from
from broker.cli.key_lives import facts_in_memory, facts_of, print_lives, rotating, token_file_option
from broker.cli.output import echo_json, output_option, plain, print_columns
from broker.cli.stop import Negative
from broker.cli.token_checks import read_keys

_COLUMNS: Final = ("kid", "alg", "kty", "crv", "use")


@click.command("list")
@click.option("--issuer", help="List what this issuer publishes instead, as verifiers see it.")
@click.option("--jwks", type=click.Path(path_type=Path), help="List the keys in this file instead.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Authorities of the issuer's TLS.")
@token_file_option
@config_option()
@output_option("table", "json")
def list_keys(
    *,
    issuer: str | None,
    jwks: Path | None,
    ca_file: Path | None,
    token_file: Path | None,
    config: Path,
    output: str,
) -> None:
    """List the signing keys: in which state they are, how old, and what happens to them next."""
    if jwks is not None:
        _print_published(read_keys(jwks), output=output)
        return
    if issuer is not None:
        _print_published(Fetcher(ca_file=ca_file).key_set(issuer), output=output)
        return
    with rotating(settings_from(config), token_file, is_changing=False) as rotator:
        record = rotator.look()
        if output == "json":
            echo_json(
                {
                    "keys": facts_of(rotator, record),
                    "in_memory": facts_in_memory(rotator, record),
                }
            )
        else:
            print_lives(rotator, record)


def _print_published(document: Any, *, output: str) -> None:
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
        raise Negative("What was read is not a key set.")
    if output == "json":
        echo_json({"keys": keys})
        return
    heading = [plain(name, "dim") for name in _COLUMNS]
    print_columns([heading, *([plain(key.get(name, "")) for name in _COLUMNS] for key in keys)])
