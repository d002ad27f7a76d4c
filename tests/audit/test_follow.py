"""Whoever follows the chains gets every durable line once, and is told where one does not fit."""

from pathlib import Path

from broker.audit.chain import Head
from broker.audit.diagnosis import Place, Wrong
from broker.audit.disk import DiskChain
from broker.audit.durable import DurableHead, head_path, read_head
from broker.audit.follow import Follower
from broker.audit.segments import find_segments
from tests.audit.chains import NOW, record, write_chain


def numbers(follower: Follower, writer: str = "w1") -> list[int]:
    return [line.seq for line in follower.lines(writer)]


def test_every_line_of_all_segments_is_given_once(tmp_path: Path) -> None:
    write_chain(tmp_path)
    follower = Follower(tmp_path)
    told = read_head(tmp_path, "w1")
    assert follower.writers() == ["w1"]
    assert told is not None
    assert numbers(follower) == list(range(told.seq))
    assert numbers(follower) == []
    assert not follower.faults
    assert not follower.short
    assert Follower(tmp_path, follower.positions).positions["w1"].head == told


def test_a_copy_without_the_words_of_its_writers_is_read_to_its_last_whole_line(
    tmp_path: Path,
) -> None:
    write_chain(tmp_path)
    head_path(tmp_path, "w1").unlink()
    newest = list(find_segments(tmp_path)["w1"].values())[-1]
    count = len(numbers(Follower(tmp_path)))
    with newest.open("ab") as file:
        file.write(b'{"half')
    follower = Follower(tmp_path)
    assert len(numbers(follower)) == count
    assert not follower.faults


def test_what_is_added_later_is_read_later(tmp_path: Path) -> None:
    chain = DiskChain(tmp_path, writer="w1", now=lambda: float(NOW))
    chain.open("start")
    follower = Follower(tmp_path)
    assert numbers(follower) == [0]
    chain.append([record(1), record(2)])
    assert numbers(follower) == [1, 2]
    chain.close()
    assert numbers(follower) == [3]


def test_a_line_that_its_writer_has_not_told_to_be_durable_is_not_read(tmp_path: Path) -> None:
    chain = DiskChain(tmp_path, writer="w1", now=lambda: float(NOW))
    chain.open("start")
    before = read_head(tmp_path, "w1")
    assert before is not None
    chain.append([record(1)])
    DurableHead(tmp_path, writer="w1").tell(before)
    assert numbers(Follower(tmp_path)) == [0]
    chain.close()


def test_what_an_opening_disowns_is_passed_over(tmp_path: Path) -> None:
    write_chain(tmp_path, segment_bytes=1_000_000)
    first = tmp_path / "w1.000001.jsonl"
    with first.open("ab") as file:
        file.write(b'{"torn')
    write_chain(tmp_path, segment_bytes=1_000_000)
    follower = Follower(tmp_path)
    told = read_head(tmp_path, "w1")
    assert told is not None
    assert numbers(follower) == list(range(told.seq))
    assert not follower.faults


def test_a_changed_line_ends_the_chain_for_its_followers(tmp_path: Path) -> None:
    write_chain(tmp_path)
    path = tmp_path / "w1.000002.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    number = next(n for n, one in enumerate(lines, start=1) if b'"permit"' in one)
    path.write_bytes(path.read_bytes().replace(b'"permit"', b'"denied"', 1))
    follower = Follower(tmp_path)
    read = numbers(follower)
    assert 0 < len(read) < 30
    assert follower.faults["w1"].wrong is Wrong.CHANGED
    # The line after it remembers another one, and the line after that remembers this one.
    assert follower.faults["w1"].place == Place(path, number)
    assert numbers(follower) == []


def test_a_chain_that_ends_before_what_its_writer_told_is_short(tmp_path: Path) -> None:
    write_chain(tmp_path, segment_bytes=1_000_000)
    path = tmp_path / "w1.000001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    follower = Follower(tmp_path)
    assert len(numbers(follower)) == 5
    assert follower.short == {"w1": read_head(tmp_path, "w1")}


def test_a_segment_that_was_read_and_is_gone_is_missed(tmp_path: Path) -> None:
    write_chain(tmp_path)
    follower = Follower(tmp_path)
    lines = follower.lines("w1")
    next(lines)
    (tmp_path / "w1.000001.jsonl").unlink()
    assert numbers(follower) == []
    assert follower.faults["w1"].wrong is Wrong.MISSING


def test_a_word_that_is_damaged_or_half_written_says_nothing(tmp_path: Path) -> None:
    head = DurableHead(tmp_path, writer="w1")
    head.tell(Head(7, "a" * 64))
    head.close()
    path = head_path(tmp_path, "w1")
    whole = path.read_bytes()
    assert read_head(tmp_path, "w1") == Head(7, "a" * 64)
    for damaged in (whole[:-1], b"", whole.replace(b"7", b"8", 1), whole + b"x", b"\0" * 102):
        path.write_bytes(damaged)
        assert read_head(tmp_path, "w1") is None
    path.unlink()
    assert read_head(tmp_path, "w1") is None
