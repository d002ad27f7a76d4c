"""The index is derived: whatever happens to it, it is made anew; what happens to the record is named."""

import itertools
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.audit.index.location import Busy, sole_writer
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.index.tail import Tail
from broker.audit.query import Query, QueryRefused, RecordChanged
from tests.audit.index.lives import NOW, Life, ids, issue

ISSUED = Query(events=("token.issue",))


def numbered(*numbers: int) -> list[str]:
    return [f"event-{number}" for number in numbers]


def sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def overwrite(path: Path, offset: int, data: bytes) -> None:
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def settled(life: Life) -> Path:
    """The file of the index with everything in it, and nobody who holds it."""
    life.reader.close()
    sql(life.reader.path, "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = WAL")
    return life.reader.path


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA user_version = 99",
        "PRAGMA application_id = 1",
        "UPDATE meta SET value = 'ffffffffffffffff' WHERE name = 'log'",
        "DROP TABLE event",
        "UPDATE chain SET seq = seq + 5, prev = 'x'",
        "UPDATE chain SET offset = offset - 1",
        "UPDATE chain SET number = 7",
    ],
)
def test_an_index_that_is_not_of_this_record_is_made_anew(life: Life, statement: str) -> None:
    (life.directory / "log.id").write_text("0123456789abcdef\n")
    life.tell(*(issue(number) for number in range(5)))
    path = settled(life)
    sql(path, statement)
    reader = SqliteAuditReader(life.directory)
    life.write(issue(5))
    caught = reader.catch_up()
    assert not caught.faults
    assert ids(reader.find(ISSUED).found) == numbered(5, 4, 3, 2, 1, 0)
    reader.close()


@pytest.mark.parametrize("place", [0, 100, 4_096, 12_000])
def test_a_damaged_index_is_made_anew(life: Life, place: int) -> None:
    life.tell(*(issue(number) for number in range(300)))
    path = settled(life)
    overwrite(path, place, os.urandom(3_000))
    reader = SqliteAuditReader(life.directory)
    sqlite_checks_all(path)
    reader.catch_up()
    assert len(reader.find(ISSUED, limit=1_000).found) == 300
    reader.close()


def sqlite_checks_all(path: Path) -> None:
    """Let the next who opens the index read it as a whole, where that can still be told."""
    try:
        sql(path, "UPDATE meta SET value = 0 WHERE name = 'checked'")
    except sqlite3.Error:
        return


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 8_192])
def test_a_file_that_is_no_index_is_made_one(life: Life, content: bytes) -> None:
    life.write(issue(1))
    (life.directory / "index.sqlite").write_bytes(content)
    life.reader.catch_up()
    assert ids(life.reader.find(ISSUED).found) == numbered(1)


def test_an_index_in_which_records_are_missing_is_found_out_when_it_is_checked(life: Life) -> None:
    life.tell(*(issue(number) for number in range(5)))
    path = settled(life)
    sql(
        path,
        "DELETE FROM place WHERE number = 3",
        "UPDATE meta SET value = 0 WHERE name = 'checked'",
    )
    reader = SqliteAuditReader(life.directory)
    reader.catch_up()
    assert len(reader.find(ISSUED).found) == 5
    reader.close()


def test_an_index_from_which_somebody_took_a_record_is_thrown_away_on_request(life: Life) -> None:
    life.tell(issue(1), issue(2))
    sql(life.reader.path, "DELETE FROM event WHERE place = 2")
    assert ids(life.reader.find(ISSUED).found) == numbered(2)
    life.reader.throw_away()
    life.reader.catch_up()
    assert ids(life.reader.find(ISSUED).found) == numbered(2, 1)


def test_an_index_that_is_lost_while_it_is_asked_is_made_anew(life: Life) -> None:
    reader = life.tell(issue(1), issue(2))
    assert len(reader.find(ISSUED).found) == 2
    reader.path.unlink()
    with pytest.raises(OSError, match="no index"):
        reader.find(ISSUED)
    reader.catch_up()
    assert ids(reader.find(ISSUED).found) == numbered(2, 1)


def test_a_record_that_the_index_knows_and_the_files_do_not_is_not_believed(life: Life) -> None:
    life.tell(*(issue(number) for number in range(5)))
    life.close()
    segment = life.directory / "w1.000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:3]))
    reader = SqliteAuditReader(life.directory)
    assert reader.find(ISSUED).changed
    caught = reader.catch_up()
    assert "ends before record" in caught.faults["w1"]
    assert ids(reader.find(ISSUED).found) == numbered(1, 0)
    reader.close()


def test_a_record_that_was_changed_is_named_and_not_shown(life: Life) -> None:
    reader = life.tell(*(issue(number, subject="ann") for number in range(5)))
    segment = life.directory / "w1.000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"event-2", b"event-9"))
    page = reader.find(ISSUED)
    assert ids(page.found) == numbered(4, 3, 1, 0)
    assert len(page.changed) == 1
    (place,) = reader.extent().faults
    assert place == "w1.000001.jsonl:4"
    assert page.changed[0].startswith(f"{place}: ")
    assert "changed after it was indexed" in page.changed[0]
    with pytest.raises(RecordChanged, match="changed"):
        reader.get("event-2")
    assert reader.get("event-9") is None
    assert ids(reader.newer(ISSUED, than="00000000-0-0", limit=1)) == numbered(0)


def test_places_that_were_changed_are_named_as_verification_names_them(life: Life) -> None:
    reader = life.tell(*(issue(number) for number in range(6)))
    segment = life.directory / "w1.000001.jsonl"
    segment.write_bytes(re.sub(rb"event-([024])", rb"event-x", segment.read_bytes()))
    # The newest comes first, so that lines are counted backwards.
    assert [one.partition(": ")[0] for one in reader.find(ISSUED).changed] == [
        f"w1.000001.jsonl:{line}" for line in (6, 4, 2)
    ]
    assert reader.changed().keys() == {f"w1.000001.jsonl:{line}" for line in (2, 4, 6)}


def test_what_was_put_back_is_wrong_no_more_and_is_looked_at_once_in_a_while(
    tmp_path: Path,
) -> None:
    clock = [0.0]
    life = Life(tmp_path / "audit", monotonic=lambda: clock[0])
    reader = life.tell(issue(1), issue(2))
    segment = life.directory / "w1.000001.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b"event-2", b"event-9"))
    assert reader.find(ISSUED).changed
    assert reader.changed()
    segment.write_bytes(whole)
    clock[0] += 4.9
    assert reader.extent().faults
    clock[0] += 0.1
    assert not reader.extent().faults
    assert not reader.changed()
    life.close()


def test_a_segment_that_is_gone_or_cannot_be_read_stays_named(tmp_path: Path) -> None:
    clock = [0.0]
    life = Life(tmp_path / "audit", monotonic=lambda: clock[0])
    reader = life.tell(issue(1))
    segment = life.directory / "w1.000001.jsonl"
    segment.unlink()
    assert reader.find(ISSUED).changed == ["w1.000001.jsonl: the file is gone"]
    clock[0] += 5
    assert reader.changed() == {"w1.000001.jsonl": "the file is gone"}
    segment.mkdir()
    clock[0] += 5
    assert reader.changed() == {"w1.000001.jsonl": "the file is gone"}
    life.close()


def test_a_torn_last_line_is_waited_for(life: Life) -> None:
    life.tell(issue(1))
    life.close()
    (life.directory / "w1.head").unlink()
    segment = life.directory / "w1.000001.jsonl"
    whole = segment.read_bytes()
    with segment.open("ab") as file:
        file.write(b'{"half a record')
    reader = SqliteAuditReader(life.directory)
    assert not reader.catch_up().faults
    before = reader.extent().records
    segment.write_bytes(whole)
    assert not reader.catch_up().faults
    assert reader.extent().records == before
    reader.close()


def test_a_chain_with_a_fault_is_known_up_to_it_and_the_others_wholly(life: Life) -> None:
    life.write(*(issue(number) for number in range(5)))
    life.write(issue(10), writer="w2")
    segment = life.directory / "w1.000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b"event-2", b"event-9"))
    caught = life.reader.catch_up()
    assert "w1.000001.jsonl" in caught.faults["w1"]
    assert life.reader.extent().faults == caught.faults
    # The changed record itself still fits; the one after it remembers another.
    assert ids(life.reader.find(ISSUED).found) == ["event-10", "event-9", "event-1", "event-0"]
    life.write(issue(11), writer="w2")
    assert life.reader.catch_up().records == 1


def test_records_of_another_version_are_counted_and_told(life: Life) -> None:
    life.write(issue(1))
    life.close()
    segment = life.directory / "w1.000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    (life.directory / "w1.head").unlink()
    segment.write_bytes(lines[0][:-2] + b',"zz_new":1}\n')
    reader = SqliteAuditReader(life.directory)
    reader.catch_up()
    assert reader.extent().records == 1
    assert "not known here" in reader.extent().faults["index"]
    assert reader.find(Query()).found == []
    reader.close()


def test_two_who_catch_up_at_once_enter_every_record_once(life: Life) -> None:
    for writer in ("w1", "w2", "w3"):
        life.write(*(issue(n, event_id=f"{writer}-{n}") for n in range(200)), writer=writer)
    readers = [SqliteAuditReader(life.directory) for _ in range(4)]

    def work(reader: SqliteAuditReader) -> int:
        return sum(reader.catch_up().records for _ in range(5))

    with ThreadPoolExecutor(len(readers)) as threads:
        counts = [threads.submit(work, reader) for reader in readers]
        for more in range(20):
            life.write(issue(1_000 + more), writer="w1")
        entered = sum(count.result() for count in counts)
    entered += life.reader.catch_up().records
    found = ids(life.reader.find(ISSUED, limit=1_000).found)
    assert len(found) == len(set(found)) == 620
    assert entered == 623
    for reader in readers:
        reader.close()


def test_another_process_and_this_one_catch_up_together(life: Life) -> None:
    life.write(*(issue(number) for number in range(50)))
    program = (
        "import sys; from pathlib import Path\n"
        "from broker.audit.index.reader import SqliteAuditReader\n"
        "print(SqliteAuditReader(Path(sys.argv[1])).catch_up().records)"
    )
    command = [sys.executable, "-c", program, str(life.directory)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    here = life.reader.catch_up().records
    told = [int(one.communicate(timeout=240)[0]) for one in others]
    assert [one.returncode for one in others] == [0, 0]
    assert sorted([here, *told]) == [0, 0, 51]
    assert len(life.reader.find(ISSUED).found) == 50


def test_who_waits_for_another_does_not_wait_for_ever(life: Life) -> None:
    life.tell(issue(1))
    with sole_writer(life.reader.path, patience=1.0), pytest.raises(Busy):
        life.reader.catch_up(patience=0.0)
    assert life.reader.catch_up().records == 0


def test_an_interrupted_making_goes_on_where_it_was(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.audit.index.catching._BATCH", 100)
    life.write(*(issue(number) for number in range(900)))

    def stop(_known: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        life.reader.catch_up(progress=stop)
    part = life.reader.extent().records
    assert 0 < part < 901
    steps: list[tuple[int, int]] = []
    assert life.reader.catch_up(progress=lambda known, total: steps.append((known, total))).records
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1]
    assert life.reader.extent().records == 901


_AS_SOMEBODY = """
import os, sys
from pathlib import Path
from broker.audit.index.reader import SqliteAuditReader
from broker.audit.query import Query
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54321)
copy, cache = Path(sys.argv[1]), Path(sys.argv[2])
os.environ["XDG_CACHE_HOME"] = str(cache)
reader = SqliteAuditReader(copy)
reader.catch_up()
print(len(reader.find(Query(events=("token.issue",))).found), reader.path.relative_to(cache))
print(oct(reader.path.stat().st_mode), oct(reader.path.parent.stat().st_mode))
reader.close()
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder into which everybody may look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("has_index", [False, True])
def test_a_copy_that_cannot_be_written_is_indexed_in_a_private_place(
    life: Life, open_folder: Path, *, has_index: bool
) -> None:
    life.write(issue(1))
    life.close()
    copy, cache = open_folder / "copy", open_folder / "cache"
    shutil.copytree(life.directory, copy)
    for path in copy.iterdir():
        path.chmod(0o444)
    if has_index:
        (copy / "index.sqlite").write_bytes(b"whatever somebody else put here")
    cache.mkdir()
    cache.chmod(0o777)
    copy.chmod(0o555)
    command = [sys.executable, "-c", _AS_SOMEBODY, str(copy), str(cache)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    copy.chmod(0o755)
    assert told.stderr == ""
    first, modes = told.stdout.splitlines()
    assert first.startswith("1 broker/audit-index/")
    assert modes == "0o100600 0o40700"
    assert (copy / "index.sqlite").exists() == has_index


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser makes files for others")
def test_an_index_that_the_superuser_makes_belongs_to_who_writes_the_record(life: Life) -> None:
    life.write(issue(1))
    life.close()
    os.chown(life.directory, 54321, 54321)
    reader = SqliteAuditReader(life.directory)
    reader.catch_up()
    assert ids(reader.find(ISSUED).found) == numbered(1)
    made = [path for path in life.directory.iterdir() if path.name.startswith("index.sqlite")]
    assert len(made) >= 2
    assert {path.stat().st_uid for path in made} == {54321}
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    reader.close()


def test_a_link_in_the_place_of_the_index_is_not_followed(life: Life, tmp_path: Path) -> None:
    life.write(issue(1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    (life.directory / "index.sqlite").symlink_to(elsewhere)
    reader = SqliteAuditReader(life.directory, cache=tmp_path / "cache")
    reader.catch_up()
    assert ids(reader.find(ISSUED).found) == numbered(1)
    assert reader.path.parent == tmp_path / "cache"
    assert elsewhere.read_bytes() == b""
    reader.close()


def test_waiting_gives_every_record_once_while_others_are_added(life: Life) -> None:
    life.tell(issue(0))
    tail = Tail(life.reader, ISSUED)
    assert tail.more() == []
    seen: list[str] = []
    for number in range(1, 8):
        life.tell(
            issue(number), issue(100 - number, event_id=f"late-{number}"), writer=f"w{number % 2}"
        )
        seen += itertools.chain.from_iterable(
            ids(found) for found in iter(lambda: tail.more(limit=1), [])
        )
    assert sorted(seen) == sorted([*numbered(*range(1, 8)), *(f"late-{n}" for n in range(1, 8))])
    assert tail.more() == []


def test_waiting_goes_on_after_the_index_was_made_anew(life: Life) -> None:
    life.tell(issue(1))
    tail = Tail(life.reader, ISSUED)
    life.reader.throw_away()
    life.tell(issue(2))
    assert ids(tail.more()) == numbered(2)
    assert tail.more() == []
    life.tell(issue(3))
    assert ids(tail.more()) == numbered(3)


def test_what_is_hostile_is_found_as_it_stands(life: Life) -> None:
    names = [
        "=1+1",
        "<b>",
        "\x1b[31mred",
        "\u202eevil",
        "a'b\"c;--",
        "%",
        "x" * 1_000,
        "\n",
        "ann\0b",
    ]
    reader = life.tell(*(issue(n, subject=name) for n, name in enumerate(names)))
    for number, name in enumerate(names):
        assert ids(reader.find(Query(people=(name,))).found) == numbered(number)


def test_there_is_no_answer_before_there_is_an_index(tmp_path: Path) -> None:
    reader = SqliteAuditReader(tmp_path / "nowhere")
    with pytest.raises(OSError, match="nowhere"):
        reader.find(Query())
    with pytest.raises(OSError, match="nowhere"):
        reader.catch_up()
    empty = SqliteAuditReader(tmp_path)
    assert empty.catch_up().records == 0
    assert empty.find(Query()).found == []
    assert empty.newer(Query(), than=empty.latest()) == []
    assert empty.get("x") is None
    assert empty.extent().records == 0
    assert empty.extent().latest == 0.0
    with pytest.raises(QueryRefused, match="kind"):
        empty.party("planet", "x")
    empty.close()


def test_a_time_beyond_all_others_breaks_nothing(life: Life) -> None:
    times = ("9999-12-31T23:59:59.999999Z", "1969-01-01T00:00:00.000000Z", "0001-01-01T00:00:00Z")
    reader = life.tell(*(issue(n, time=time) for n, time in enumerate(times)), issue(3, at=NOW))
    assert len(reader.find(ISSUED).found) == 4
    assert reader.extent().records == 5
