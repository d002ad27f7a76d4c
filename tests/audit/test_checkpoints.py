"""Checkpoints: one way to write each, and no other text is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import GENESIS, Head
from broker.audit.checkpoints import MOST_CHAINS, Checkpoint, CheckpointRefused
from broker.audit.merkle import leaf_hash

ROOT = leaf_hash(b"records")
HEADS = {"http-0": Head(7, "ab" * 32), "control": Head(2, "cd" * 32)}
FIRST = Checkpoint("broker.example/audit", ROOT, HEADS, "2026-01-02T03:04:05.000006Z")


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    assert FIRST.size == 9
    assert FIRST.text.splitlines()[:2] == ["broker.example/audit", "9"]
    assert FIRST.text.splitlines()[5:] == [
        f"chain control 2 {'cd' * 32}",
        f"chain http-0 7 {'ab' * 32}",
    ]
    assert Checkpoint.read(FIRST.text) == FIRST


def test_each_tells_the_digest_of_the_one_before() -> None:
    second = Checkpoint(FIRST.origin, ROOT, HEADS, FIRST.time, FIRST.digest)
    assert FIRST.previous == GENESIS
    assert Checkpoint.read(second.text).previous == FIRST.digest != second.digest


def test_an_empty_log_has_a_checkpoint() -> None:
    empty = Checkpoint(FIRST.origin, ROOT, {}, FIRST.time)
    assert (Checkpoint.read(empty.text), empty.size) == (empty, 0)


@pytest.mark.requirement("LOG-05")
@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "no end": FIRST.text[:-1],
        "an empty line": FIRST.text + "\n",
        "another size": FIRST.text.replace("\n9\n", "\n10\n"),
        "a size with a zero": FIRST.text.replace("\n9\n", "\n09\n"),
        "another order": "".join(
            [*FIRST.text.splitlines(True)[:5], *FIRST.text.splitlines(True)[:4:-1]]
        ),
        "a chain twice": FIRST.text + FIRST.text.splitlines(keepends=True)[-1],
        "an empty chain": FIRST.text.replace(" 2 ", " 0 ").replace("\n9\n", "\n7\n"),
        "a negative count": FIRST.text.replace(" 2 ", " -2 "),
        "an enormous count": FIRST.text.replace(" 2 ", f" {10**18} "),
        "other digits": FIRST.text.replace(" 2 ", " \u0662 "),
        "a short root": FIRST.text.replace(FIRST.text.splitlines()[2], "AAAA"),
        "no root": FIRST.text.replace(FIRST.text.splitlines()[2], "!"),
        "capital letters": FIRST.text.replace("cd" * 32, "CD" * 32),
        "no time": FIRST.text.replace("time ", ""),
        "another zone": FIRST.text.replace("000006Z", "000006+01:00"),
        "a path": FIRST.text.replace("control", "../control"),
        "something more": FIRST.text.replace("chain control 2", "chain control 2 2"),
        "no chain": FIRST.text + "anything\n",
        "a carriage return": FIRST.text.replace("\n", "\r\n"),
        "two words": FIRST.text.replace("broker.example", "broker example"),
    }.items(),
    ids=lambda one: one[0],
)
def test_another_text_is_none(text: tuple[str, str]) -> None:
    with pytest.raises(CheckpointRefused):
        Checkpoint.read(text[1])


def test_a_directory_has_so_many_writers_and_no_more() -> None:
    heads = {f"w{number}": Head(1, "ab" * 32) for number in range(MOST_CHAINS + 1)}
    with pytest.raises(CheckpointRefused):
        Checkpoint(FIRST.origin, ROOT, heads, FIRST.time)
    heads.popitem()
    most = Checkpoint(FIRST.origin, ROOT, heads, FIRST.time)
    assert Checkpoint.read(most.text) == most


@given(st.integers(0, len(FIRST.text) - 1), st.characters())
def test_a_text_that_is_read_is_the_one_that_it_is_read_as(place: int, other: str) -> None:
    changed = FIRST.text[:place] + other + FIRST.text[place + 1 :]
    try:
        found = Checkpoint.read(changed)
    except CheckpointRefused:
        return
    assert found.text == changed
    assert (found == FIRST) == (changed == FIRST.text)
