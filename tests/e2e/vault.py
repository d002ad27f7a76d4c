"""A broker whose keys are in an OpenBao, which stays the test's to seal."""

from pathlib import Path
from typing import Any

from tests.e2e.setting import Setting, new_setting
from tests.openbao import AppRole, OpenBao

KEYS = {"ES256": "broker-es256", "RS256": "broker-rs256"}


def prepared(folder: Path) -> tuple[OpenBao, AppRole]:
    """A new OpenBao with both keys, and a role that may sign with them and nothing else."""
    bao = OpenBao(folder)
    bao.set_up()
    bao.create_key(KEYS["ES256"])
    bao.create_key(KEYS["RS256"], kind="rsa-2048")
    role = bao.app_role("broker", may_sign=tuple(KEYS.values()))
    for file in (role.auth.role_id_file, role.auth.secret_id_file):
        file.chmod(0o600)
    return bao, role


def vault_setting(directory: Path, bao: OpenBao, role: AppRole, **sections: Any) -> Setting:
    """A broker that logs in with this role and signs with these keys."""
    auth = {
        "method": "approle",
        "role_id_file": str(role.auth.role_id_file),
        "secret_id_file": str(role.auth.secret_id_file),
    }
    vault = {"url": bao.url, "keys": KEYS, "auth": auth}
    keys = {"store": "vault-transit", "algorithm": "ES256", "also": ["RS256"], "vault": vault}
    return new_setting(directory, keys=keys, **sections)
