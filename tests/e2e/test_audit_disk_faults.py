"""A disk that takes no more records: nothing is answered without one, and it mends by itself."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from broker.oauth import GRANT_TOKEN_EXCHANGE
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import audit_section, exchange, new_setting
from tests.e2e.wires import UNABLE, Wire, settled, wire
from tests.world import Parameters

BLOCK: Final = 4096
REFUSED: Final[Parameters] = {"grant_type": GRANT_TOKEN_EXCHANGE, "client_id": "nobody"}
"""A request that would be refused if anything could be recorded."""


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system for the records alone."""
    place = tmp_path_factory.mktemp("volume")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(place)]
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a file system to fill")
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this system does not let root mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def _on_volume(volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    directory = tmp_path_factory.mktemp("on-volume")
    broker = RunningBroker(new_setting(directory, audit=audit_section(volume / "audit")))
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


@pytest.fixture
def disk_broker(_on_volume: RunningBroker) -> RunningBroker:
    """A ready broker whose records are on a file system of their own."""
    _on_volume.wait_until_ready()
    return _on_volume


@pytest.fixture
def disk_faces(disk_broker: RunningBroker) -> Iterator[tuple[Wire, Wire]]:
    with wire("http", disk_broker.setting) as http, wire("grpc", disk_broker.setting) as grpc:
        for face in (http, grpc):
            assert settled(face, lambda: exchange(disk_broker.setting)).is_granted
        yield http, grpc


@contextmanager
def filled(volume: Path) -> Iterator[None]:
    """Take all the space that is left, until the block is over."""
    ballast = volume / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        yield
    finally:
        ballast.unlink()


@contextmanager
def replaced(directory: Path) -> Iterator[None]:
    """Have a file where the directory was, until the block is over."""
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.write_bytes(b"")
    try:
        yield
    finally:
        directory.unlink()
        aside.rename(directory)


def assert_nothing_is_decided(faces: tuple[Wire, Wire], broker: RunningBroker) -> None:
    for face in faces:
        # What was allotted to the file before the disk was full may still hold a record or two.
        until(partial(is_unable, face, broker), seconds=30, what="the disk is noticed")
        for parameters in (exchange(broker.setting), REFUSED) * 3:
            answer = face.exchange(parameters)
            assert answer.error == UNABLE
            assert answer.status in {"503", "UNAVAILABLE"}


def is_unable(face: Wire, broker: RunningBroker) -> bool:
    return face.exchange(exchange(broker.setting)).error == UNABLE


def is_able(face: Wire, broker: RunningBroker) -> bool:
    return face.exchange(exchange(broker.setting)).is_granted


def assert_it_says_why_and_serves_what_needs_no_record(broker: RunningBroker) -> None:
    until(
        lambda: all(f"[-]{one}/audit failed" in broker.findings() for one in ("grpc-0", "http-0")),
        seconds=30,
        what="readiness names the audit check",
    )
    assert not broker.is_ready()
    assert broker.key_set()["keys"]
    assert broker.document("/.well-known/oauth-authorization-server")["issuer"]
    assert broker.page("/livez") == "ok\n"


def assert_it_recovers_by_itself(faces: tuple[Wire, Wire], broker: RunningBroker) -> None:
    for face in faces:
        until(partial(is_able, face, broker), seconds=30, what="tokens are issued again")
    broker.wait_until_ready()
    whole = broker.verify_audit()
    assert whole.returncode == 0, whole.stdout + whole.stderr


@pytest.mark.requirement("R-30")
@pytest.mark.requirement("P-A")
@pytest.mark.requirement("R-38")
def test_on_a_full_disk_nothing_is_decided_until_there_is_space_again(
    volume: Path, disk_broker: RunningBroker, disk_faces: tuple[Wire, Wire]
) -> None:
    with filled(volume):
        assert_nothing_is_decided(disk_faces, disk_broker)
        assert_it_says_why_and_serves_what_needs_no_record(disk_broker)
    assert_it_recovers_by_itself(disk_faces, disk_broker)


@pytest.mark.requirement("R-30")
@pytest.mark.requirement("P-A")
def test_without_its_directory_nothing_is_decided_until_it_is_back(
    disk_broker: RunningBroker, disk_faces: tuple[Wire, Wire]
) -> None:
    with replaced(disk_broker.setting.audit_directory):
        assert_nothing_is_decided(disk_faces, disk_broker)
        assert_it_says_why_and_serves_what_needs_no_record(disk_broker)
    assert_it_recovers_by_itself(disk_faces, disk_broker)
