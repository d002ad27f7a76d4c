"""What the commands about people in the audit record share: reaching the keys of their pseudonyms."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rich_click as click

from broker.audit.people.keys import PeopleKeys
from broker.cli.stop import Negative
from broker.config import Settings
from broker.config.files import UnusableFile, check_secret
from broker.errors import Reason, TemporarilyUnavailable
from broker.keys.key_files import KeyFileRefused
from broker.keys.vault_auth import TokenFileAuth
from broker.people import open_people_keys

_UNRECORDED = "Nothing was destroyed, because it cannot be recorded in `audit.directory`"

# How the fault of a call to Vault names the right that the call needs.
_NEEDED = re.compile(r"\(needs ([^()]+)\)")

token_file_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="A file with a Vault token to do it with; else it is done as `keys.vault.auth`.",
)
"""The option by which an operator uses rights in Vault that the broker does not have."""


@contextmanager
def people_keys(settings: Settings, token_file: Path | None) -> Iterator[PeopleKeys]:
    """The keys of these settings; what is in the way of reading or destroying them ends the command."""
    if token_file is not None:
        try:
            check_secret(token_file)
        except UnusableFile as unusable:
            raise click.UsageError(f"--token-file: {token_file} {unusable}.") from None
    auth = TokenFileAuth(token_file) if token_file is not None else None
    try:
        yield open_people_keys(settings, auth=auth)
    except KeyFileRefused as refused:
        raise Negative(f"{refused}.") from None
    except TemporarilyUnavailable as error:
        if error.reason == Reason.AUDIT_UNAVAILABLE:
            raise Negative(f"{_UNRECORDED}: {error.detail}.") from None
        told = f"The keys of pseudonyms cannot be reached: {error.detail}."
        raise Negative(f"{told}\n{what_helps(error.detail)}") from None


def what_helps(detail: str) -> str:
    """What to do about a fault, by what is told of it: somebody else may have a right that is missing."""
    missing = _NEEDED.search(detail)
    if missing is None:
        return "Put that right first."
    return (
        f"Vault's policy lacks the right to {missing[1]}: use the token of somebody who has it, by "
        "--token-file FILE."
    )
