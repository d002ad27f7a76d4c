"""Where a record stands among checkpoints, told from their heads alone."""

import pytest

from broker.audit.chain import Head
from broker.audit.checkpoints import Checkpoint
from broker.audit.query import Extent
from broker.audit.telling.placement import Placement, numbered, placement_in
from tests.audit.telling import records

HASH = "a" * 64


def checkpoint(minute: int, **counts: int) -> Checkpoint:
    """A checkpoint over so many records of each writer."""
    heads = {name: Head(count, HASH) for name, count in counts.items()}
    return Checkpoint("log", bytes(32), heads, f"2026-11-22T08:{minute:02}:00Z")


LIST = [
    checkpoint(0, b=2),
    checkpoint(1, b=3, c=4),
    checkpoint(2, a=2, b=5, c=4),
]


def test_every_leaf_of_the_tree_is_the_place_of_exactly_one_record() -> None:
    last = LIST[-1]
    places = [
        placement_in(LIST, writer, seq)
        for writer, head in last.heads.items()
        for seq in range(head.seq)
    ]

    indices = sorted(place.index for place in places if place is not None)
    assert indices == list(range(last.size))


def test_a_record_stands_in_the_first_checkpoint_that_is_over_it() -> None:
    # In the tree: b0 b1, b2 c0 c1 c2 c3, a0 a1 b3 b4.
    assert placement_in(LIST, "c", 1) == Placement(4, 7, LIST[1].time, LIST[1].digest)
    assert placement_in(LIST, "b", 3) == Placement(9, 11, LIST[2].time, LIST[2].digest)
    assert placement_in(LIST, "a", 0) == Placement(7, 11, LIST[2].time, LIST[2].digest)


def test_what_no_checkpoint_is_over_is_not_sealed_yet() -> None:
    assert placement_in(LIST, "b", 5) is None
    assert placement_in(LIST, "d", 0) is None
    assert placement_in([], "a", 0) is None


def test_it_may_begin_with_any_checkpoint_that_is_not_yet_over_the_record() -> None:
    assert placement_in(LIST[1:], "b", 4) == placement_in(LIST, "b", 4)


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"http-0": 5_000, "grpc-0": 9}, "record 3 of 5,000 in chain http-0 (seq 2)"),
        # What came since the index was asked is the last that is known.
        ({"http-0": 2}, "record 3 of 3 in chain http-0 (seq 2)"),
        ({}, "record 3 of 3 in chain http-0 (seq 2)"),
    ],
)
def test_people_are_told_which_record_of_its_chain_one_is(known: dict[str, int], told: str) -> None:
    record = records.exchange(writer="http-0", seq=2)

    assert numbered(record, Extent(0, 0.0, {}, known)) == told


def test_a_place_under_a_checkpoint_is_counted_from_one() -> None:
    first = placement_in(LIST, "b", 0)

    assert str(first) == "record 1 of 2 under the checkpoint of 2026-11-22T08:00:00Z"
