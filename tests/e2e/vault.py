"""An OpenBao with the broker's keys in it, and the settings of a broker that signs there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.setting import Document, Setting, new_setting
from tests.openbao import AppRole, OpenBao

CERTIFIER: Final = "broker-certifier"
KEYS: Final = {"ES256": "broker-es256", "RS256": "broker-rs256"}


@dataclass(frozen=True, slots=True)
class Vault:
    """
    A server, a role that may sign with the broker's keys, and one that may rotate them.

    Neither may do anything else.
    """

    bao: OpenBao
    role: AppRole
    rotator: AppRole

    def keys(self) -> Document:
        """The settings of a broker that logs in with the role and signs here."""
        vault = {"url": self.bao.url, "keys": KEYS, "auth": login(self.role)}
        return {"store": "vault-transit", "algorithm": "ES256", "also": ["RS256"], "vault": vault}

    def rotating_keys(self, **settings: Any) -> Document:
        """The same of a broker that rotates its keys as well."""
        return self.recorded_keys({"rotator": login(self.rotator)}, **settings)

    def recorded_keys(self, vault: Document, **settings: Any) -> Document:
        """The same with a record, and with further settings of Vault and of the keys."""
        keys = self.keys() | settings
        record = {"mount": "kv", "path": "broker/keys"}
        return keys | {"vault": keys["vault"] | {"record": record} | vault}

    def setting(self, directory: Path, **sections: Any) -> Setting:
        """A broker that does so."""
        return new_setting(directory, keys=self.keys(), **sections)


def login(role: AppRole) -> Document:
    """The settings of a login with a role."""
    return {
        "method": "approle",
        "role_id_file": str(role.auth.role_id_file),
        "secret_id_file": str(role.auth.secret_id_file),
    }


@contextmanager
def running_vault(folder: Path, *, is_exportable: bool = False) -> Iterator[Vault]:
    """A new server in this folder."""
    folder.mkdir(exist_ok=True)
    bao = OpenBao(folder, is_audited=True)
    try:
        bao.set_up()
        yield with_keys(bao, is_exportable=is_exportable)
    finally:
        bao.close()


def with_keys(bao: OpenBao, *, is_exportable: bool = False) -> Vault:
    """A server that was just set up, with the keys and the roles in it now."""
    bao.create_key(KEYS["ES256"], is_exportable=is_exportable)
    bao.create_key(KEYS["RS256"], kind="rsa-2048", is_exportable=is_exportable)
    bao.create_key(CERTIFIER)
    role = bao.app_role("broker", may_sign=(*KEYS.values(), CERTIFIER))
    rotator = bao.rotator_role("rotator", may_rotate=(*KEYS.values(), CERTIFIER))
    for one in (role, rotator):
        for file in (one.auth.role_id_file, one.auth.secret_id_file):
            file.chmod(0o600)
    return Vault(bao, role, rotator)
