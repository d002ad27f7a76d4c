"""The people in the audit record: how they are named, and how whoever may look for them finds them."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from broker.audit.people.keys import KeysInUse, PeopleKeys
from broker.audit.people.naming import InClear, Naming, Pseudonymous
from broker.audit.people.search import People
from broker.audit.query import PeopleAway
from broker.config import Settings
from broker.errors import TemporarilyUnavailable
from broker.keys.key_files import KeyFileRefused
from broker.keys.people_files import PeopleKeyFiles

if TYPE_CHECKING:
    from broker.keys.vault_auth import VaultAuth

_FOLDER: Final = "people"

_log = structlog.get_logger("broker.people")


def open_naming(settings: Settings) -> Naming:
    """What names the people in the records of this process; made after any fork."""
    people = settings.audit.people
    if people.names == "clear":
        return InClear()
    keys = KeysInUse(open_people_keys(settings), length=people.period, now=time.time)
    return Pseudonymous(keys, issuer=settings.issuer)


def open_people(settings: Settings, *, auth: "VaultAuth | None" = None) -> People:
    """What makes the pseudonyms to search for; it logs in to Vault by ``auth``, else as the broker does."""
    return People(open_people_keys(settings, auth=auth))


def open_pseudonyms(settings: Settings) -> Callable[[str], Sequence[str]]:
    """What somebody may be called in the record, for whoever answers auditors; raises ``PeopleAway``."""
    people = open_people(settings)

    def pseudonyms_of(name: str) -> Sequence[str]:
        try:
            return people.pseudonyms_of(name)
        except (KeyFileRefused, TemporarilyUnavailable, OSError) as fault:
            # It tells files and servers of the operator's, which are for the log alone.
            _log.warning("people_keys_away", fault=getattr(fault, "detail", "") or str(fault))
            raise PeopleAway from None

    return pseudonyms_of


def open_people_keys(settings: Settings, *, auth: "VaultAuth | None" = None) -> PeopleKeys:
    """
    Where the keys of the pseudonyms are: beside the record of the signing keys in Vault, else in files.

    It starts, and recovers, while Vault is away.
    """
    vault = settings.keys.vault
    if vault is None or vault.record is None:
        return PeopleKeyFiles(settings.audit.people.directory)
    # What it takes is loaded where it is used: embedded keys do without.
    from broker.keys.people_vault import VaultPeopleKeys  # noqa: PLC0415 - see above.
    from broker.keys.vault_session import VaultSession  # noqa: PLC0415 - the same.
    from broker.signing_vault import vault_auth, vault_server  # noqa: PLC0415 - the same.

    return VaultPeopleKeys(
        VaultSession(vault_server(vault), auth=auth or vault_auth(vault.auth)),
        mount=vault.record.mount,
        path=f"{vault.record.path}/{_FOLDER}",
    )
