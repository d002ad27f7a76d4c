"""The people in the audit record: how they are named, and how whoever may look for them finds them."""

import time
from typing import TYPE_CHECKING, Final

from broker.audit.people.keys import KeysInUse, PeopleKeys
from broker.audit.people.naming import InClear, Naming, Pseudonymous
from broker.audit.people.search import People
from broker.config import Settings
from broker.keys.people_files import PeopleKeyFiles

if TYPE_CHECKING:
    from broker.keys.vault_auth import VaultAuth

_FOLDER: Final = "people"


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
