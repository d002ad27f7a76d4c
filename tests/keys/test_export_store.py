"""Keys that are taken out of Vault: only where it is allowed there, with a warning, and not for long."""

import base64
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import Reason, TemporarilyUnavailable
from broker.keys.book import KeyBook
from broker.keys.followed import FollowedKeys
from broker.keys.life import Schedule
from broker.keys.record import NoRecord
from broker.keys.vault_auth import TokenFileAuth
from broker.keys.vault_export import VaultExportKeyStore
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.tokens.own_keys import OwnKeys
from tests.harness import Clock
from tests.keys.pretend_vault import Answer, PretendVault, pretend_vault, refused
from tests.openbao import SCHEDULE, Transit, wait_until

KEY, EXPORT = "transit/keys/es", "transit/export/signing-key/es/1"
INPUT = b"header.payload"


def fault_of(store: VaultExportKeyStore) -> str:
    with pytest.raises(TemporarilyUnavailable) as raised:
        store.signing_key("ES256")
    assert raised.value.reason is Reason.SIGNER_UNAVAILABLE
    return raised.value.detail


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, none).decode()


def given_out(pem: object) -> Answer:
    return Answer({"data": {"name": "es", "type": "ecdsa-p256", "keys": {"1": pem}}})


@pytest.fixture
def vault() -> Iterator[PretendVault]:
    with pretend_vault() as vault:
        vault.scripts[KEY] = lambda _: vault.key(exportable=True)
        vault.scripts[EXPORT] = lambda _: given_out(pem_of(vault.private_key))
        yield vault


@pytest.fixture
def make_store(vault: PretendVault, tmp_path: Path) -> Iterator[Callable[[], VaultExportKeyStore]]:
    made: list[VaultExportKeyStore] = []
    (tmp_path / "token").write_text("hvs.token")

    def make() -> VaultExportKeyStore:
        server = VaultServer(vault.url, read_timeout=15)
        session = VaultSession(server, auth=TokenFileAuth(tmp_path / "token"))
        book = KeyBook(SCHEDULE, now=lambda: int(time.time()), records=NoRecord())
        keys = FollowedKeys(session, book, keys={"ES256": "es"}, mount="transit")
        made.append(VaultExportKeyStore(keys))
        return made[-1]

    yield make
    for store in made:
        store.close()


MakeStore = Callable[[], VaultExportKeyStore]


def test_the_warning_comes_at_every_start(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        make_store()
        warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert "the private keys are taken out of Vault" in warnings[0].getMessage()
        assert "PRIVATE" not in caplog.text


def test_what_was_given_out_signs_without_vault(vault: PretendVault, make_store: MakeStore) -> None:
    store = make_store()
    key = store.signing_key("ES256")

    signature = key.sign(INPUT)

    assert OwnKeys(store).key(key.kid, "ES256").verify(INPUT, signature)
    assert vault.paths("sign/es") == []


@pytest.mark.parametrize("mark", [False, None, "true", 1], ids=repr)
def test_a_key_that_is_not_marked_as_exportable_is_refused_unasked(
    vault: PretendVault, make_store: MakeStore, mark: Any
) -> None:
    vault.scripts[KEY] = lambda _: vault.key(exportable=mark)

    store = make_store()

    assert fault_of(store) == "vault: key es is not exportable"
    assert vault.paths(EXPORT) == []
    assert len(store.public_keys()) == 1


OTHER = ec.generate_private_key(ec.SECP256R1())
LIES = {
    "another key": (given_out(pem_of(OTHER)), "is not the one that is published"),
    "a key on another curve": (
        given_out(pem_of(ec.generate_private_key(ec.SECP384R1()))),
        "malformed answer",
    ),
    "no PEM": (given_out("secret"), "malformed answer"),
    "a number": (given_out(5), "malformed answer"),
    "a seed": (given_out(base64.b64encode(b"\x01" * 64).decode()), "malformed answer"),
    "nothing": (Answer({}), "malformed answer"),
    "another version": (Answer({"data": {"keys": {"2": pem_of(OTHER)}}}), "malformed answer"),
    "a refusal": (refused(), "forbidden"),
}


@pytest.mark.parametrize(("answer", "fault"), LIES.values(), ids=LIES)
def test_what_is_not_the_published_key_does_not_sign(
    vault: PretendVault, make_store: MakeStore, answer: Answer, fault: str
) -> None:
    vault.scripts[EXPORT] = lambda _: answer

    assert fault in fault_of(make_store())


def test_a_key_that_was_not_given_out_at_first_signs_once_it_is(
    vault: PretendVault, make_store: MakeStore
) -> None:
    give = vault.scripts[EXPORT]
    vault.scripts[EXPORT] = lambda _: refused()
    store = make_store()
    assert fault_of(store).startswith("vault: forbidden (needs ")

    vault.scripts[EXPORT] = give
    store.refresh()

    assert len(store.signing_key("ES256").sign(INPUT)) == 64


def test_a_closed_store_holds_no_private_key(make_store: MakeStore) -> None:
    store = make_store()

    store.close()

    assert store._private == {}
    assert fault_of(store) == "the key store is closed"


# With a real server.


@pytest.fixture
def exportable(own_transit: Transit) -> Transit:
    """A key that may be taken out, in a server of one's own."""
    own_transit.bao.create_key("open-es256", is_exportable=True)
    role = own_transit.bao.app_role("open", may_sign=("open-es256",))
    return replace(own_transit, keys={"ES256": "open-es256"}, role=role)


@pytest.mark.openbao
def test_a_key_that_openbao_does_not_give_out_signs_nothing(own_transit: Transit) -> None:
    with closing(own_transit.export_store()) as store:
        assert fault_of(store) == "vault: key own-es256 is not exportable"


@pytest.mark.openbao
def test_the_store_has_only_the_keys_that_sign_or_will(exportable: Transit) -> None:
    clock = Clock(int(time.time()) + 60)
    schedule = Schedule(timedelta(minutes=6), timedelta(minutes=30))
    rotator = exportable.rotator(now=clock, schedule=schedule)
    rotator.rotate(["ES256"])
    with closing(exportable.export_store(now=clock, schedule=schedule, is_on_record=True)) as store:
        first = store.signing_key("ES256").kid
        assert set(store._private) == {one["kid"] for one in store.public_keys()}

        clock.at += 60 * 7
        store.refresh()

        assert store.signing_key("ES256").kid != first
        assert first not in store._private


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_revoked_key_is_forgotten(exportable: Transit) -> None:
    rotator = exportable.rotator()
    rotator.tend()
    with closing(exportable.export_store(is_on_record=True)) as store:
        first = store.signing_key("ES256").kid
        rotator.revoke(first)

        store.refresh()

        assert store.signing_key("ES256").kid != first
        assert first not in store._private
        assert first not in {one["kid"] for one in store.public_keys()}


@pytest.mark.openbao
def test_a_key_taken_out_signs_through_an_outage_and_is_forgotten_after_a_long_one(
    exportable: Transit,
) -> None:
    clock = Clock(int(time.time()) + 60)
    schedule = replace(SCHEDULE, poll=timedelta(seconds=1), outage=timedelta(minutes=10))
    with closing(exportable.export_store(now=clock, schedule=schedule)) as store:
        kid = store.signing_key("ES256").kid
        exportable.bao.seal()
        # What is read now would count as read at the moment to which the clock is put.
        wait_until(lambda: store._keys.is_behind)

        clock.at += 600
        assert len(store.signing_key("ES256").sign(INPUT)) == 64
        clock.at += 1
        assert fault_of(store) == "vault: the keys have not been read for too long"
        wait_until(lambda: store._private == {})
        assert kid in {one["kid"] for one in store.public_keys()}

        exportable.bao.unseal()
        wait_until(lambda: bool(store._private))
        assert store.signing_key("ES256").kid == kid
