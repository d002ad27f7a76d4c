"""An OpenBao with the broker's keys in it, and the settings of a broker that signs there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.setting import Document, Setting, new_setting
from tests.openbao import AppRole, OpenBao

KEYS: Final = {"ES256": "broker-es256", "RS256": "broker-rs256"}


@dataclass(frozen=True, slots=True)
class Vault:
    """A server, and a role that may sign with the broker's keys and do nothing else."""

    bao: OpenBao
    role: AppRole

    def keys(self) -> Document:
        """The settings of a broker that logs in with the role and signs here."""
        auth = {
            "method": "approle",
            "role_id_file": str(self.role.auth.role_id_file),
            "secret_id_file": str(self.role.auth.secret_id_file),
        }
        vault = {"url": self.bao.url, "keys": KEYS, "auth": auth}
        return {"store": "vault-transit", "algorithm": "ES256", "also": ["RS256"], "vault": vault}

    def setting(self, directory: Path, **sections: Any) -> Setting:
        """A broker that does so."""
        return new_setting(directory, keys=self.keys(), **sections)


@contextmanager
def running_vault(folder: Path) -> Iterator[Vault]:
    """A new server in this folder."""
    bao = OpenBao(folder)
    try:
        bao.set_up()
        bao.create_key(KEYS["ES256"])
        bao.create_key(KEYS["RS256"], kind="rsa-2048")
        role = bao.app_role("broker", may_sign=tuple(KEYS.values()))
        for file in (role.auth.role_id_file, role.auth.secret_id_file):
            file.chmod(0o600)
        yield Vault(bao, role)
    finally:
        bao.close()
