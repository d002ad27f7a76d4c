"""Sealing with a key in a real OpenBao, which rotates it, limits it, exports it, and goes away."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.audit.notes import open_note
from broker.audit.seal.anchor import Anchor, AnchorConflict, anchored_note
from broker.audit.seal.keys import NamedSigner
from broker.audit.seal.sealer import Sealer
from broker.audit.seal.store import CheckpointStore, Kept
from broker.audit.telling.handover import NotSigned, SignedHandover
from broker.audit.telling.manifest import Manifest, Standing, opened
from broker.errors import TemporarilyUnavailable
from broker.keys.record_vault import VaultDocument
from broker.keys.vault_audit import VaultAuditKey
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from tests.audit.seal.logs import Log
from tests.audit.seal.signers import ORIGIN
from tests.openbao import AppRole, OpenBao, started

MANIFEST = Manifest(
    origin=ORIGIN,
    format="csv",
    query="{}",
    count=0,
    first=None,
    last=None,
    file="audit.csv",
    size=0,
    sha256="0" * 64,
    checkpoint=None,
    unread={},
    time="2026-11-22T08:00:00.000000Z",
    by="olga, on the auditor's pages",
)
LOG = "kv/data/broker/keys/checkpoint/0123456789abcdef"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    yield from started(tmp_path_factory.mktemp("openbao"))


@pytest.fixture(scope="module")
def role(bao: OpenBao) -> AppRole:
    """The rights of a broker: to sign with the key, and to read and write its anchor."""
    return bao.app_role("broker", may_sign=())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "audit")
    yield made
    made.close()


def signer_in(bao: OpenBao, role: AppRole, name: str) -> NamedSigner:
    session = VaultSession(
        VaultServer(bao.url, read_timeout=15), auth=role.auth, login_cooldown=0.1
    )
    return NamedSigner(VaultAuditKey(session, name=name), origin=ORIGIN)


def sealer_with(log: Log, signer: NamedSigner) -> Sealer:
    return Sealer(log.directory, signer, origin=ORIGIN, now=log.clock)


def sealed(log: Log, sealer: Sealer) -> Kept:
    log.write("a", 1)
    kept = sealer.step()
    assert kept is not None
    return kept


@pytest.mark.requirement("R-01")
def test_vault_signs_goes_away_comes_back_and_changes_its_key(
    bao: OpenBao, role: AppRole, log: Log
) -> None:
    signer = signer_in(bao, role, "broker-audit")
    sealer = sealer_with(log, signer)
    first = sealed(log, sealer)
    (key,) = signer.keys()
    open_note(first.note, [key])

    bao.seal()
    log.write("a", 1)
    with pytest.raises(TemporarilyUnavailable):
        sealer.step()
    bao.unseal()
    bao.rotate_key("broker-audit")
    sealer.close()

    # A new version changes nothing for those who hold the key of the old one.
    signer = signer_in(bao, role, "broker-audit")
    sealer = sealer_with(log, signer)
    open_note(sealed(log, sealer).note, [key])

    bao.call("POST", "transit/keys/broker-audit/config", min_encryption_version=2)
    log.write("a", 1)
    with pytest.raises(TemporarilyUnavailable):
        sealer.step()
    last = sealed(log, sealer)
    newest, oldest = signer.keys()
    assert oldest.text == key.text
    open_note(last.note, [newest])
    sealer.close()
    assert len(log.checkpoints()) == 3


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("exported", "can be exported"),
        ("p256", "not of type"),
        ("nobody", "not_found|missing|forbidden"),
    ],
)
def test_a_key_that_is_not_fit_to_seal_seals_nothing(
    bao: OpenBao, log: Log, name: str, why: str
) -> None:
    if name != "nobody":
        kind = "ecdsa-p256" if name == "p256" else "ed25519"
        bao.create_key(name, kind=kind, is_exportable=name == "exported")
    role = bao.app_role("unfit", may_sign=(name,))
    sealer = sealer_with(log, signer_in(bao, role, name))
    with pytest.raises(TemporarilyUnavailable) as raised:
        sealer.step()
    assert raised.value.detail
    assert name == "nobody" or why in raised.value.detail
    assert log.checkpoints() == []
    sealer.close()


def test_the_newest_checkpoint_is_in_the_key_value_engine_and_nothing_else_is_overwritten(
    bao: OpenBao, role: AppRole, log: Log
) -> None:
    session = VaultSession(VaultServer(bao.url, read_timeout=15), auth=role.auth)
    document = VaultDocument(session, mount="kv", path=LOG.removeprefix("kv/data/"))
    signer = signer_in(bao, role, "broker-audit")
    sealer = sealer_with(log, signer)
    anchor = Anchor(document, CheckpointStore(log.directory), signer)
    assert anchored_note(document) is None
    for _ in range(2):
        last = sealed(log, sealer)
        anchor.step(last)
        assert bao.call("GET", LOG)["data"]["data"] == {"note": last.note}
    bao.call("POST", LOG, data={"note": "somebody else's"})
    with pytest.raises(AnchorConflict):
        anchor.step(sealed(log, sealer))
    assert anchored_note(document) == "somebody else's"
    sealer.close()


def test_vault_signs_what_is_handed_over_and_nothing_is_while_it_is_away(
    bao: OpenBao, role: AppRole, log: Log
) -> None:
    signer = signer_in(bao, role, "broker-audit")
    sealer = sealer_with(log, signer)
    kept = sealed(log, sealer)
    sealer.close()
    handover = SignedHandover(log.directory, signer_in(bao, role, "broker-audit"))
    terms = handover.signing_terms()
    told = replace(MANIFEST, checkpoint=terms.checkpoint)
    assert opened(handover.signed_manifest(told, terms), signer.keys()) == told
    assert terms.checkpoint == Standing(kept.checkpoint.digest, kept.checkpoint.size)

    bao.seal()
    try:
        # Which keys there are is known for a minute, so it is the signature that fails first.
        with pytest.raises(NotSigned, match="vault: sealed"):
            handover.signed_manifest(told, terms)
        with pytest.raises(NotSigned, match="vault: sealed"):
            handover.signing_terms()
    finally:
        bao.unseal()
