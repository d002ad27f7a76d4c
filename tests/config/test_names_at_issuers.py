"""Client ids at other issuers."""

from pathlib import Path

import pytest

from broker.config import ConfigError, load_settings

_FILE = """\
issuer: http://127.0.0.1:8080
issuers: [{issuer: 'https://i.example', purposes: [user], algorithms: [ES256]}]
clients:
  - id: agent-one
    auth: {method: client_secret_basic, secrets: [{hash: 'sha256:%(hash)s'}]}
    grants: [token_exchange]
  - id: desk-two
    auth: {method: client_secret_basic, secrets: [{hash: 'sha256:%(hash)s'}]}
    grants: [token_exchange]
    issuer_client_ids: {'https://i.example': %(name)s}
"""


def _write(directory: Path, name: str) -> Path:
    file = directory / "broker.yaml"
    file.write_text(_FILE % {"hash": "0" * 64, "name": name})
    return file


@pytest.mark.requirement("CFG-01", "TX-19")
def test_two_clients_cannot_have_one_id_at_one_issuer(tmp_path: Path) -> None:
    """Each could present the ID tokens of the other."""
    with pytest.raises(ConfigError, match="'agent-one' is the id of 'agent-one' too"):
        load_settings(_write(tmp_path, "agent-one"), {})


def test_an_id_of_its_own_is_fine(tmp_path: Path) -> None:
    settings = load_settings(_write(tmp_path, "0oa-7"), {})
    assert settings.clients[1].issuer_client_ids == {"https://i.example": "0oa-7"}
