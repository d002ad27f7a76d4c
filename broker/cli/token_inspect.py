"""``broker token inspect``: what a token says, which of it is proved, and the delegation as a tree."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from broker.cli.fetching import Fetcher
from broker.cli.inputs import read_token
from broker.cli.output import console, echo_json, output_option
from broker.cli.stop import Negative
from broker.cli.token_checks import Check, check_token, read_keys
from broker.cli.token_tree import draw
from broker.errors import TokenRejected
from broker.jws import UnverifiedToken
from broker.jws import read_token as take_apart

_BANNER = "UNVERIFIED: nobody has proved any of this. Do not rely on it."


@dataclass(frozen=True, slots=True)
class Trust:
    """What the caller trusts: an issuer, or the keys in a file; ``audience`` when it must match."""

    issuer: str | None
    jwks: Path | None
    audience: str | None
    ca_file: Path | None
    is_unverified: bool

    def keys(self) -> Any:
        """The keys to verify with, as they are published. Nothing in the token chooses them."""
        if self.jwks is not None:
            return read_keys(self.jwks)
        if self.issuer is None:
            raise click.UsageError(
                "Say whom you trust: --issuer URL, --jwks FILE, or --unverified to only look."
            )
        return Fetcher(ca_file=self.ca_file).key_set(self.issuer)


@click.command()
@click.argument("token", default="-")
@click.option(
    "--issuer", envvar="BROKER_ISSUER", help="The issuer you trust; its keys are fetched."
)
@click.option("--jwks", type=click.Path(path_type=Path), help="A file with the keys you trust.")
@click.option("--audience", help="The audience that the token must have.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Authorities of the issuer's TLS.")
@click.option("--unverified", is_flag=True, help="Show it without verifying anything.")
@output_option("tree", "json")
def inspect(*, token: str, output: str, unverified: bool, **trusted: Any) -> None:
    """
    Verify TOKEN, which is @FILE or - for standard input, and draw the delegation it carries.

    The person stands at the top; under it the actors, the newest first, and what the token is for.
    The keys are those of the issuer you name, never of the one that the token names.
    """
    trust = Trust(**trusted, is_unverified=unverified)
    try:
        parts = take_apart(read_token(token, name="TOKEN"))
    except TokenRejected as rejected:
        raise Negative(f"This is no sound token: {rejected.reason.sentence}") from None
    checks = _checks(parts, trust)
    _print(parts, checks, output=output)
    if not all(check.is_passed for check in checks):
        raise Negative("The token is not acceptable.")


def _checks(parts: UnverifiedToken, trust: Trust) -> tuple[Check, ...]:
    if trust.is_unverified:
        return ()
    return check_token(
        parts, trust.keys(), issuer=trust.issuer, audience=trust.audience, now=int(time.time())
    )


def _print(parts: UnverifiedToken, checks: tuple[Check, ...], *, output: str) -> None:
    if output == "json":
        is_verified = bool(checks) and all(check.is_passed for check in checks)
        echo_json(
            {
                "is_verified": is_verified,
                "checks": [asdict(check) for check in checks],
                "header": asdict(parts.header),
                "claims": parts.unverified_claims,
            }
        )
        return
    screen = console()
    if not checks:
        screen.print(_BANNER, style="bold white on red")
    screen.print(draw(parts, checks, now=int(time.time())))
