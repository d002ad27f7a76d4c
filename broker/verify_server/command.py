"""The ``broker-verify`` command."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from broker.verify_server.options import add_options, values_of

if TYPE_CHECKING:
    from broker.verify_server.cases import Result

_NEEDED: Final = ("httpx2", "jwt", "cryptography")
_EPILOG: Final = (
    "Exit codes: 0 the server does what it must; 1 it does not; 2 the command line is wrong, or the server "
    "does not answer."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try a server and print the report; the value is the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if not all(find_spec(name) for name in _NEEDED):
        parser.error('it needs more packages: install this package with its extra "client"')
    from broker.verify_server.report import has_failed, print_json, print_report  # noqa: PLC0415 - it needs packages.
    from broker.verify_server.server import NoAnswer  # noqa: PLC0415 - the same.

    try:
        results, issuer = _try(asked)
    except NoAnswer as error:
        waited = f"It was waited for {asked.wait:g} s (--wait)."
        print(f"broker-verify: {asked.url}: {error}. {waited}", file=sys.stderr)  # noqa: T201 - the command's own.
        return 2
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if asked.json:
        print_json(results, url=asked.url, issuer=issuer)
    else:
        print_report(results)
    return int(has_failed(results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "broker-verify",
        description="Fires good and bad tokens at a server and reports which it takes.",
        epilog=_EPILOG,
    )
    parser.add_argument("url", help="the MCP server or API, as clients call it")
    add_options(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _try(asked: Any) -> "tuple[list[Result], str]":
    """All verdicts on the server, and the issuer that it was to trust."""
    from broker.verify_server.told import issuer_of, told_of  # noqa: PLC0415 - they need packages.
    from broker.verify_server.trial import trial_of  # noqa: PLC0415 - the same.

    values = values_of(asked)
    told = told_of(asked.url, values)
    with ExitStack() as ending:
        issuer = ending.enter_context(issuer_of(values))
        print(  # noqa: T201 - whoever configures the server reads this.
            f"Issuer {issuer.url}, keys at {issuer.url.rstrip('/')}/jwks; tokens are for "
            f"{told.resource}. Waiting up to {asked.wait:g} s for the server to answer.",
            file=sys.stderr,
            flush=True,
        )
        trial = ending.enter_context(
            trial_of(told, issuer, method=values["method"], ca_file=values["ca_file"])
        )
        trial.stage.server.wait(values["wait"])
        return list(trial.play_all()), issuer.url
