"""The set-up of Vault that the documents give is enough for the broker, and gives it nothing more."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from broker.config import Settings, load_settings
from broker.config.settings import VaultAuthSettings, VaultSettings
from broker.errors import TemporarilyUnavailable
from broker.keys.vault_auth import AppRoleAuth, TokenFileAuth
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore
from broker.people import open_people_keys
from broker.signing import open_key_store, open_rotator
from tests.docs.markdown import ROOT, blocks
from tests.docs.shell import run
from tests.openbao import OpenBao

pytestmark = [pytest.mark.openbao, pytest.mark.usefixtures("patience_with_vault")]


@dataclass(frozen=True)
class SetUp:
    """A server of one's own after the commands of the front page, and the front page's settings."""

    bao: OpenBao
    folder: Path
    settings: Settings

    @property
    def vault(self) -> VaultSettings:
        """How the settings reach it."""
        assert self.settings.keys.vault is not None
        return self.settings.keys.vault

    def as_root(self, command: str) -> str:
        """What a command prints that is run with the rights of root."""
        as_root = {"BAO_ADDR": self.bao.url, "BAO_TOKEN": self.bao.root_token}
        return run(command, folder=self.folder, **as_root)


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SetUp]:
    """The set-up as its page tells it, from an empty server on."""
    folder = tmp_path_factory.mktemp("set-up")
    bao = OpenBao(folder)
    bao.set_up()
    try:
        bao.call("DELETE", "sys/mounts/transit")
        bao.call("DELETE", "sys/mounts/kv")
        bao.call("DELETE", "sys/auth/approle")
        page = blocks(ROOT / "docs" / "vault.md")
        for block in page:
            if block.noted("needs") == "openbao":
                as_root = {"BAO_ADDR": bao.url, "BAO_TOKEN": bao.root_token}
                run(block.text, folder=folder, **as_root)
        text = next(block.text for block in page if block.language == "yaml")
        config = folder / "broker.yaml"
        config.write_text(text.replace("https://vault.example:8200", bao.url))
        yield SetUp(bao, folder, load_settings(config, {}))
    finally:
        bao.close()


def test_the_broker_signs_with_what_the_set_up_gives_it(set_up: SetUp) -> None:
    store = open_key_store(set_up.settings)
    try:
        for algorithm in ("ES256", "RS256"):
            key = store.signing_key(algorithm)
            assert key.sign(b"anything")
            assert key.kid in [jwk["kid"] for jwk in store.public_keys()]
    finally:
        store.close()


def test_the_broker_makes_and_lists_the_keys_of_pseudonyms_and_changes_none(set_up: SetUp) -> None:
    keys = open_people_keys(set_up.settings)

    assert keys.held() == {}
    made = keys.obtain("2026-11")

    assert keys.held() == {"2026-11": made}
    with pytest.raises(TemporarilyUnavailable, match="signer_unavailable"):
        keys.destroy("2026-11")
    refused = refusal(
        set_up.vault.url,
        set_up.vault.auth,
        "kv/data/broker/keys/people/2026-11",
        {"data": {"key": "A" * 43}},
    )
    assert refused.startswith("vault: forbidden (needs ")

    made_token = set_up.as_root("bao token create -field=token -policy=broker-forgetting")
    (set_up.folder / "forgetting").write_text(made_token)
    forgetting = open_people_keys(set_up.settings, auth=TokenFileAuth(set_up.folder / "forgetting"))
    assert forgetting.destroy("2026-11")
    assert keys.held() == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("transit/sign/broker-es256", {"batch_input": [{"input": "YQ=="}]}),
        ("transit/sign/broker-es256", {"key_version": 1, "input": "YQ=="}),
        ("transit/sign/broker-es256", {"key_version": 1, "marshaling_algorithm": "asn1"}),
        ("transit/sign/broker-rs256", {"key_version": 1, "signature_algorithm": "pss"}),
        ("transit/keys/broker-es256/rotate", {}),
        ("transit/keys/another", {"type": "ecdsa-p256"}),
        ("transit/keys/broker-es256/config", {"min_encryption_version": 1}),
        ("kv/data/broker/keys/record", {"data": {"keys": []}}),
        ("auth/approle/role/broker/secret-id", {}),
    ],
)
def test_the_broker_may_do_nothing_else(set_up: SetUp, path: str, body: dict[str, object]) -> None:
    assert refusal(set_up.vault.url, set_up.vault.auth, path, body).startswith(
        "vault: forbidden (needs "
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("transit/sign/broker-es256", {"key_version": 1, "batch_input": [{"input": "YQ=="}]}),
        ("transit/keys/broker-es256/config", {"exportable": True}),
        ("transit/keys/broker-es256/config", {"deletion_allowed": True}),
        ("transit/keys/another", {"type": "ecdsa-p256"}),
        ("kv/data/another", {"data": {}}),
        ("auth/approle/role/broker/secret-id", {}),
    ],
)
def test_the_rotator_may_neither_sign_nor_take_a_key_out(
    set_up: SetUp, path: str, body: dict[str, object]
) -> None:
    assert set_up.vault.rotator is not None
    assert refusal(set_up.vault.url, set_up.vault.rotator, path, body).startswith(
        "vault: forbidden (needs "
    )


def refusal(url: str, auth: VaultAuthSettings, path: str, body: dict[str, object]) -> str:
    """Why a write with this login is refused."""
    assert auth.role_id_file
    assert auth.secret_id_file
    session = VaultSession(
        VaultServer(url, read_timeout=15),
        auth=AppRoleAuth(auth.role_id_file, auth.secret_id_file),
        login_cooldown=0,
    )
    with closing(session), pytest.raises(TemporarilyUnavailable) as refused:
        session.post(path, body)
    return refused.value.detail


def test_the_rotation_of_the_documents_publishes_versions_that_do_not_sign_yet(
    set_up: SetUp,
) -> None:
    store = open_key_store(set_up.settings)
    assert isinstance(store, VaultTransitKeyStore)
    try:
        signing = store.signing_key("ES256").kid
        for block in blocks(ROOT / "docs" / "operations.md"):
            if block.noted("needs") == "openbao":
                printed = run(block.text, folder=set_up.folder, BROKER_CONFIG="broker.yaml")
        store.refresh()

        published = [jwk["kid"] for jwk in store.public_keys() if jwk["alg"] == "ES256"]
        # What signs, what follows it, and a spare.
        assert len(published) == 3
        assert store.signing_key("ES256").kid == signing
        assert "begins to sign" in printed
    finally:
        store.close()


def test_keys_in_memory_are_certified_with_what_the_set_up_gives(set_up: SetUp) -> None:
    page = blocks(ROOT / "docs" / "vault.md")
    first, second = (YAML(typ="safe").load(one.text) for one in page if one.language == "yaml")
    vault = first["keys"]["vault"] | second["keys"]["vault"] | {"url": set_up.vault.url}
    document = first | {"keys": first["keys"] | second["keys"] | {"vault": vault}}
    file = set_up.folder / "ephemeral.yaml"
    file.write_text(json.dumps(document))
    settings = load_settings(file, {})

    with closing(open_key_store(settings)) as store:
        assert isinstance(store, VaultEphemeralKeyStore)
        in_vault = open_rotator(settings).look()
        in_memory = {key["kid"] for key in store.public_keys()} - {
            entry.kid for entry in in_vault.keys
        }
        assert len(in_memory) == 2
        assert {one.statement.kid for one in open_rotator(settings).stated()} == in_memory
