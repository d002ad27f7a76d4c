"""The embedded audit key: made once, its owner's alone, and refused when it is anything else."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.audit.log_id import make_log_id, origin_of, read_log_id
from broker.audit.notes import NoteKey
from broker.audit.seal.keys import NamedSigner
from broker.audit.segments import AuditLogRefused
from broker.keys.audit_file import AuditKeyFile
from broker.keys.key_files import KeyFileRefused
from tests.audit.seal.signers import ORIGIN


def test_the_key_is_made_once_and_signs_in_every_process(tmp_path: Path) -> None:
    signer = NamedSigner(AuditKeyFile(tmp_path / "keys"), origin=ORIGIN)
    (key,) = signer.keys()
    path = tmp_path / "keys" / "audit-key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = NamedSigner(AuditKeyFile(tmp_path / "keys"), origin=ORIGIN)
    (same,) = again.keys()
    assert same.text == key.text
    key.public_key.verify(again.sign(b"text", key=again.key_after(key)), b"text")
    assert NoteKey.read(key.text).id == key.id


@pytest.mark.parametrize("what", ["rubbish", "another kind", "open", "link"])
def test_what_is_no_private_ed25519_key_is_refused_and_stays(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    path = folder / "audit-key.pem"
    kind = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    if what == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes(kind if what == "another kind" else b"rubbish")
        path.chmod(0o644 if what == "open" else 0o600)
    with pytest.raises(KeyFileRefused, match=r"audit-key\.pem"):
        AuditKeyFile(folder).versions()


def test_the_name_of_a_record_is_made_once(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    directory.mkdir(mode=0o700)
    assert read_log_id(directory) is None
    log_id = make_log_id(directory)
    assert make_log_id(directory) == log_id == read_log_id(directory)
    assert origin_of("https://broker.example/eu/", log_id) == f"broker.example/eu/audit/{log_id}"
    assert [path.name for path in directory.iterdir()] == ["log.id"]


@pytest.mark.parametrize("content", ["", "xyz", "0123456789abcdef0\n", "0123456789ABCDEF\n"])
def test_a_damaged_name_of_a_record_is_refused_and_not_replaced(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "log.id"
    path.write_text(content)
    with pytest.raises(AuditLogRefused, match="put back"):
        make_log_id(tmp_path)
    assert path.read_text() == content
