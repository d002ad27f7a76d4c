"""What any place for the record of the keys must do, shown on each of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from broker.keys.key_files import KeyFileRefused
from broker.keys.life import KeyEntry
from broker.keys.record import (
    MOST_ENTRIES,
    MOST_REVOKED_AT_ONCE,
    Claim,
    HeldRecord,
    KeyRecord,
    RecordFull,
    RecordStore,
    RevokedKey,
)
from broker.keys.record_file import FileRecord
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from tests.openbao import OpenBao, vault_record

ENTRY = KeyEntry("ES256", 1, "k" * 43, published_at=1)
RECORD = KeyRecord((ENTRY,))

MakeRecords = Callable[[], RecordStore]


@pytest.fixture(params=["file", pytest.param("vault", marks=pytest.mark.openbao)])
def make_records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeRecords]:
    """Reach the same place each time, as another process would."""
    sessions: list[VaultSession] = []

    def make() -> RecordStore:
        if request.param == "file":
            return FileRecord(tmp_path / "keys")
        bao: OpenBao = request.getfixturevalue("own_openbao")
        role = bao.rotator_role("rotator", may_rotate=())
        sessions.append(VaultSession(VaultServer(bao.url, read_timeout=60), auth=role.auth))
        return vault_record(sessions[-1])

    yield make
    for session in sessions:
        session.close()


@pytest.fixture
def records(make_records: MakeRecords) -> RecordStore:
    return make_records()


def claimed_by(name: str) -> KeyRecord:
    return KeyRecord((ENTRY,), Claim(name, 5))


def test_nothing_is_on_record_at_first(records: RecordStore) -> None:
    held = records.read()

    assert (held.record, held.version) == (KeyRecord(), 0)


def test_what_one_wrote_another_reads(make_records: MakeRecords) -> None:
    assert make_records().write(RECORD, over=0)

    held = make_records().read()
    assert (held.record, held.version) == (RECORD, 1)


def test_each_write_is_over_the_one_before(records: RecordStore) -> None:
    assert records.write(RECORD, over=0)
    assert records.write(claimed_by("me"), over=1)

    held = records.read()
    assert (held.record, held.version) == (claimed_by("me"), 2)


@pytest.mark.parametrize("over", [0, 1, 3, 99])
def test_a_write_over_anything_but_the_newest_changes_nothing(
    records: RecordStore, over: int
) -> None:
    records.write(RECORD, over=0)
    records.write(claimed_by("first"), over=1)

    assert not records.write(claimed_by("second"), over=over)
    assert records.read().record == claimed_by("first")


def crowded(number: int) -> tuple[KeyEntry, ...]:
    return tuple(
        KeyEntry("ES256", n, str(n).rjust(43, "k"), 1, 2, 3, 4) for n in range(1, number + 1)
    )


def forgotten(number: int) -> tuple[RevokedKey, ...]:
    return tuple(RevokedKey(str(n).rjust(43, "r"), 1, 2) for n in range(number))


@pytest.mark.parametrize(
    "record",
    [
        KeyRecord(crowded(MOST_ENTRIES + 1)),
        KeyRecord(revoked=forgotten(MOST_REVOKED_AT_ONCE + 1)),
        KeyRecord((*crowded(1), *crowded(1))),
        KeyRecord((ENTRY,), Claim("n" * 65, 5)),
    ],
)
def test_what_could_not_be_read_again_is_not_written(
    records: RecordStore, record: KeyRecord
) -> None:
    records.write(RECORD, over=0)

    with pytest.raises(RecordFull, match="Nothing was changed"):
        records.write(record, over=1)
    assert records.read() == HeldRecord(RECORD, 1)


def test_as_much_as_can_be_read_is_written(records: RecordStore) -> None:
    full = KeyRecord(crowded(MOST_ENTRIES), Claim("n" * 64, 5), forgotten(MOST_REVOKED_AT_ONCE))

    assert records.write(full, over=0)
    assert records.read().record == full


def test_of_many_who_write_at_once_exactly_one_is_told_yes(make_records: MakeRecords) -> None:
    writers = [make_records() for _ in range(8)]
    together = Barrier(len(writers))

    def write(number: int) -> bool:
        together.wait()
        return writers[number].write(claimed_by(f"writer {number}"), over=version)

    with ThreadPoolExecutor(len(writers)) as pool:
        for version in range(10):
            answers = list(pool.map(write, range(len(writers))))
            assert answers.count(True) == 1
            held = writers[0].read()
            assert held.record == claimed_by(f"writer {answers.index(True)}")
            assert held.version == version + 1


def test_a_reader_never_sees_half_a_record(make_records: MakeRecords) -> None:
    writer, reader = make_records(), make_records()
    entries = [KeyEntry("ES256", n, str(n).rjust(43, "k"), 1) for n in range(1, 40)]
    written = [KeyRecord(tuple(entries[:count])) for count in range(40)]

    def write_all() -> None:
        for version, one in enumerate(written):
            assert writer.write(one, over=version)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(write_all)
        while not done.done():
            held = reader.read()
            assert len(held.record.keys) == max(0, held.version - 1)
        done.result()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version": 0, "keys": []}',
        b'{"version": "1", "keys": []}',
        b'{"version": 1, "keys": [], "keys": []}',
        b'{"version": 1, "keys": 5}',
        b" " * 70_000,
    ],
)
def test_a_file_that_holds_no_record_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    records = FileRecord(tmp_path / "keys")
    records.write(RECORD, over=0)
    file = tmp_path / "keys" / "record.json"
    file.write_bytes(content)

    for use in (records.read, lambda: records.write(RECORD, over=1)):
        with pytest.raises(KeyFileRefused, match="does not hold a record of keys"):
            use()
    assert file.read_bytes() == content
    assert [one.name for one in file.parent.iterdir()] == ["record.json"]


@pytest.mark.requirement("CFG-04")
def test_a_record_that_others_can_reach_is_refused(tmp_path: Path) -> None:
    records = FileRecord(tmp_path / "keys")
    records.write(RECORD, over=0)
    file = tmp_path / "keys" / "record.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)

    with pytest.raises(KeyFileRefused, match="has mode 0644"):
        records.read()
