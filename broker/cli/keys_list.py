"""``broker keys list``: the public keys that an issuer's tokens verify with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import rich_click as click

from broker.cli.fetching import Fetcher
from broker.cli.inputs import config_option, settings_from
from broker.cli.output import echo_json, output_option, plain, print_columns
from broker.cli.stop import Negative
from broker.cli.token_checks import read_keys

_COLUMNS: Final = ("kid", "alg", "kty", "crv", "use")


@click.command("list")
@click.option("--issuer", help="The issuer whose keys to list; that of the settings if unset.")
@click.option("--jwks", type=click.Path(path_type=Path), help="List the keys in this file instead.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Authorities of the issuer's TLS.")
@config_option()
@output_option("table", "json")
def list_keys(
    issuer: str | None, jwks: Path | None, ca_file: Path | None, config: Path, output: str
) -> None:
    """List the public keys that an issuer publishes, as verifiers see them."""
    if jwks is not None:
        document = read_keys(jwks)
    else:
        issuer = issuer or settings_from(config).issuer
        document = Fetcher(ca_file=ca_file).key_set(issuer)
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
        raise Negative("What was read is not a key set.")
    _print(keys, output=output)


def _print(keys: list[Mapping[str, Any]], *, output: str) -> None:
    if output == "json":
        echo_json({"keys": keys})
        return
    heading = [plain(name, "dim") for name in _COLUMNS]
    print_columns([heading, *([plain(key.get(name, "")) for name in _COLUMNS] for key in keys)])
