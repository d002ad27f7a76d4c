"""The embedded key store: one key wins, and nobody else may read it."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.errors import TemporarilyUnavailable
from broker.keys.dev import DEV_SCHEDULE, DevKeySmith, DevKeyStore
from broker.keys.key_files import KeyFileRefused
from broker.keys.published import KeyUnfit
from broker.keys.record_file import FileRecord
from broker.keys.rotator import Rotator
from tests.harness import Clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


def pem(key: Any, *, password: bytes | None = None) -> bytes:
    encryption = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    data: bytes = key.private_bytes(serialization.Encoding.PEM, form, encryption)
    return data


def put(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


@pytest.mark.requirement("CFG-04")
def test_a_new_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    DevKeyStore(tmp_path / "a" / "keys", algorithms=("ES256", "RS256"))

    assert (tmp_path / "a" / "keys").stat().st_mode & 0o777 == 0o700
    files = sorted((tmp_path / "a" / "keys").iterdir())
    assert [(file.name, file.stat().st_mode & 0o777) for file in files] == [
        ("es256.pem", 0o600),
        ("rs256.pem", 0o600),
    ]


def test_the_key_stays_the_same_when_the_store_is_opened_again(folder: Path) -> None:
    first, second = DevKeyStore(folder), DevKeyStore(folder)

    assert first.public_keys() == second.public_keys()


def test_a_key_is_kept_in_pkcs8(folder: Path) -> None:
    DevKeyStore(folder)

    assert (folder / "es256.pem").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_several_processes_that_start_at_once_use_one_key(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from broker.keys.dev import DevKeyStore\n"
        "sys.stdin.read()\n"
        "print(DevKeyStore(Path(sys.argv[1])).signing_key('ES256').kid)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None

    kids = {process.communicate(timeout=240)[0] for process in started}

    assert kids == {DevKeyStore(folder).signing_key("ES256").kid.encode() + b"\n"}
    assert [file.name for file in folder.iterdir()] == ["es256.pem"]


def test_who_comes_second_uses_the_key_of_who_came_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process puts its key there between our look and our link."""
    link, theirs = os.link, pem(ec.generate_private_key(ec.SECP256R1()))

    def link_after_them(*args: Any, **kwargs: Any) -> None:
        put(folder / "es256.pem", theirs)
        link(*args, **kwargs)

    monkeypatch.setattr(os, "link", link_after_them)
    DevKeyStore(folder)

    assert (folder / "es256.pem").read_bytes() == theirs
    assert [file.name for file in folder.iterdir()] == ["es256.pem"]


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o601])
def test_a_key_file_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    DevKeyStore(folder)
    (folder / "es256.pem").chmod(mode)

    with pytest.raises(KeyFileRefused, match=rf"es256\.pem has mode {mode:04o}"):
        DevKeyStore(folder)


@pytest.mark.requirement("CFG-04")
@pytest.mark.parametrize("mode", [0o750, 0o705, 0o755, 0o711, 0o770])
def test_a_directory_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)

    with pytest.raises(KeyFileRefused, match=f"has mode {mode:04o}"):
        DevKeyStore(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.requirement("CFG-04")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("what", [".", "es256.pem"])
def test_what_belongs_to_somebody_else_is_refused(folder: Path, what: str) -> None:
    DevKeyStore(folder)
    os.chown(folder / what, 12345, -1)

    with pytest.raises(KeyFileRefused, match="belongs to another user"):
        DevKeyStore(folder)


def test_a_link_instead_of_a_key_file_is_refused(folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere.pem", pem(ec.generate_private_key(ec.SECP256R1())))
    (folder / "es256.pem").symlink_to(tmp_path / "elsewhere.pem")

    with pytest.raises(KeyFileRefused, match="cannot be opened"):
        DevKeyStore(folder)


def test_a_named_pipe_instead_of_a_key_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "es256.pem", 0o600)

    with pytest.raises(KeyFileRefused, match="not a regular file"):
        DevKeyStore(folder)


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")

    with pytest.raises(KeyFileRefused, match="cannot be opened"):
        DevKeyStore(tmp_path / "keys")


def damaged(*names: str) -> bytes:
    """An RSA key in whose file some of its numbers have a wrong bit."""
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for name in names:
        right = getattr(numbers, name)
        size = (right.bit_length() + 7) // 8
        wrong = right ^ 16
        assert der.count(right.to_bytes(size, "big")) == 1
        der = der.replace(right.to_bytes(size, "big"), wrong.to_bytes(size, "big"))
    text = base64.encodebytes(der)
    return b"-----BEGIN PRIVATE KEY-----\n" + text + b"-----END PRIVATE KEY-----\n"


UNFIT: dict[str, tuple[str, bytes]] = {
    "nothing": ("ES256", b""),
    "no PEM": ("ES256", b"secret"),
    "half a key": ("ES256", pem(ec.generate_private_key(ec.SECP256R1()))[:100]),
    "a huge file": ("ES256", pem(ec.generate_private_key(ec.SECP256R1())).rjust(40_000, b"\n")),
    "a password": ("ES256", pem(ec.generate_private_key(ec.SECP256R1()), password=b"x")),
    "P-384": ("ES256", pem(ec.generate_private_key(ec.SECP384R1()))),
    "secp256k1": ("ES256", pem(ec.generate_private_key(ec.SECP256K1()))),
    "Ed25519": ("ES256", pem(ed25519.Ed25519PrivateKey.generate())),
    "RSA for ES256": ("ES256", pem(rsa.generate_private_key(65537, 2048))),
    "EC for RS256": ("RS256", pem(ec.generate_private_key(ec.SECP256R1()))),
    "RSA of 1024 bits": ("RS256", pem(rsa.generate_private_key(65537, 1024))),  # noqa: S505 -- it is to be refused.
    "RSA with a wrong prime": ("RS256", damaged("p")),
    "RSA with wrong primes": ("RS256", damaged("p", "q")),
    "RSA with wrong exponents": ("RS256", damaged("d", "dmp1")),
    "RSA with nothing right": ("RS256", damaged("p", "q", "d", "dmp1", "dmq1", "iqmp")),
    "RSA with a small exponent": ("RS256", pem(rsa.generate_private_key(3, 2048))),
}


@pytest.mark.parametrize(("algorithm", "content"), UNFIT.values(), ids=UNFIT)
def test_a_file_that_holds_no_fit_key_is_refused_and_left_as_it_is(
    folder: Path, algorithm: str, content: bytes
) -> None:
    path = folder / f"{algorithm.lower()}.pem"
    put(path, content)

    with pytest.raises(KeyFileRefused) as refused:
        DevKeyStore(folder, algorithms=(algorithm,))

    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("algorithm", ["HS256", "none", "PS256", "../../etc/passwd"])
def test_no_key_is_made_for_an_algorithm_that_the_broker_does_not_sign_with(
    folder: Path, algorithm: str
) -> None:
    with pytest.raises(KeyUnfit):
        DevKeyStore(folder, algorithms=(algorithm,))
    assert list(folder.iterdir()) == []


def test_a_key_that_cannot_be_written_leaves_no_draft(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(KeyFileRefused, match=r"es256\.pem cannot be written: No space left"):
        DevKeyStore(folder)
    assert list(folder.iterdir()) == []


# Keys that are rotated.


def rotator(folder: Path) -> Rotator:
    return Rotator(
        FileRecord(folder),
        DevKeySmith(folder),
        algorithms=("ES256",),
        schedule=DEV_SCHEDULE,
        now=lambda: int(time.time()),
    )


@pytest.mark.requirement("SGN-02")
def test_a_store_sees_a_change_of_its_directory_at_the_next_call(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = DevKeyStore(folder)
    first = store.signing_key("ES256").kid

    rotator(folder).rotate(["ES256"])
    assert len(store.public_keys()) == 3
    assert store.signing_key("ES256").kid == first

    rotator(folder).revoke(first)
    assert store.signing_key("ES256").kid != first
    assert first not in [key["kid"] for key in store.public_keys()]
    successor = store.signing_key("ES256").kid
    assert [line for line in caplog.messages if "published" not in line] == [
        f"ES256 is signed with key {successor}"
    ]
    assert f"key {successor} is published" in caplog.messages
    assert f"key {first} is published no more" in caplog.messages


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the record is gone": lambda folder: (folder / "record.json").unlink(),
    "the record is none": lambda folder: (folder / "record.json").write_text("{}"),
    "the record is open to others": lambda folder: (folder / "record.json").chmod(0o644),
    "a key is none": lambda folder: put(folder / "es256-9.pem", b"secret"),
    "the directory is open to others": lambda folder: folder.chmod(0o755),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_directory_that_is_damaged_under_a_store_stops_it_and_what_it_published_stays(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    store = DevKeyStore(folder)
    rotator(folder).tend()
    published = store.public_keys()

    damage(folder)

    with pytest.raises(TemporarilyUnavailable):
        store.signing_key("ES256")
    assert store.public_keys() == published


@pytest.mark.requirement("SGN-02")
def test_a_store_whose_directory_stays_damaged_publishes_nothing_once_its_tokens_are_dead(
    folder: Path,
) -> None:
    """What is on record since could say that a key was revoked."""
    clock = Clock(int(time.time()))
    store = DevKeyStore(folder, now=clock)
    rotator(folder).tend()
    record = (folder / "record.json").read_bytes()
    published = store.public_keys()
    (folder / "record.json").unlink()

    clock.at += int(DEV_SCHEDULE.keep_published.total_seconds())
    assert (store.public_keys(), store.fresh_for()) == (published, 0)
    clock.at += 1
    assert store.public_keys() == []

    put(folder / "record.json", record)
    assert store.public_keys() == published
    assert store.fresh_for() > 0


def test_a_store_signs_again_once_its_directory_is_mended(folder: Path) -> None:
    store = DevKeyStore(folder)
    rotator(folder).tend()
    assert store.public_keys()
    record = (folder / "record.json").read_bytes()
    (folder / "record.json").unlink()
    with pytest.raises(TemporarilyUnavailable):
        store.signing_key("ES256")

    put(folder / "record.json", record)

    assert len(store.signing_key("ES256").sign(b"a.b")) == 64
