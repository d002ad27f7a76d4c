"""Merkle trees: RFC 6962's definitions by recursion as the oracle, and everything that is no proof."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofRefused,
    leaf_hash,
    root_by_inclusion,
    root_of,
)
from tests.audit.trees import path_as_defined, root_as_defined

MOST = 70


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(b"record %d" % number) for number in range(size)]


def test_the_tree_of_certificate_transparency_has_its_known_roots() -> None:
    """The leaves of the tests of RFC 6962's reference implementation."""
    contents = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    contents += ["606162636465666768696a6b6c6d6e6f"]
    leaves = [leaf_hash(bytes.fromhex(one)) for one in contents]

    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaves[0].hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert root_of(leaves[:2]).hex() == (
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    )
    assert root_of(leaves).hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("size", range(MOST))
def test_a_tree_that_grows_has_the_root_that_is_defined(size: int) -> None:
    leaves, frontier = leaves_of(size), Frontier()
    for leaf in leaves:
        frontier.extend(leaf)

    assert frontier.size == size
    assert frontier.root() == root_of(leaves) == root_as_defined(leaves)
    assert Frontier(size, frontier.peaks).root() == frontier.root()


@given(parts=st.lists(st.integers(0, 40), max_size=8))
def test_a_tree_that_grows_by_many_has_every_root_on_the_way(parts: Sequence[int]) -> None:
    leaves, frontier = leaves_of(sum(parts)), Frontier()
    before = 0
    for part in parts:
        after = before + part
        added = frontier.extend(b"".join(leaves[before:after]))
        for size in range(before, after + 1):
            assert added.root(size) == root_as_defined(leaves[:size])
        for size in (before - 1, after + 1):
            with pytest.raises(IndexError):
                added.root(size)
        before = after

    assert frontier.root() == root_as_defined(leaves)


@pytest.mark.parametrize("size", range(1, MOST))
def test_every_leaf_has_a_proof_that_no_other_leaf_or_place_has(size: int) -> None:
    leaves = leaves_of(size)
    root = root_of(leaves)
    for index, leaf in enumerate(leaves):
        path = path_as_defined(index, leaves)
        assert root_by_inclusion(leaf, index=index, size=size, path=path) == root
        assert proves_not(leaf_hash(b"another"), index, size, path, root)
        assert proves_not(leaf, (index + 1) % size, size, path, root) or size == 1
        assert all(
            proves_not(leaf, index, size, [*path[:at], bytes(32), *path[at + 1 :]], root)
            for at in range(len(path))
        )
        assert proves_not(leaf, index, size, path[:-1], root) or not path
        assert proves_not(leaf, index, size, [*path, bytes(32)], root)


def proves_not(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    try:
        return root_by_inclusion(leaf, index=index, size=size, path=path) != root
    except ProofRefused:
        return True


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 0, []),
        (-1, 4, [bytes(32)] * 2),
        (4, 4, [bytes(32)] * 2),
        (0, 4, [bytes(31), bytes(32)]),
        (0, 4, [b"", bytes(32)]),
        (0, 2**70, [bytes(32)] * 70),
    ],
)
def test_what_is_no_path_is_refused(index: int, size: int, path: list[bytes]) -> None:
    with pytest.raises(ProofRefused):
        root_by_inclusion(leaf_hash(b"x"), index=index, size=size, path=path)


def test_a_leaf_can_not_be_taken_for_a_node() -> None:
    left, right = leaves_of(2)
    assert leaf_hash(left + right) != root_of([left, right])


@given(
    st.integers(0, 2**64),
    st.integers(0, 2**64),
    st.lists(st.binary(max_size=40) | st.binary(min_size=32, max_size=32), max_size=70),
)
def test_any_path_is_answered_or_refused(index: int, size: int, path: list[bytes]) -> None:
    try:
        root = root_by_inclusion(leaf_hash(b"x"), index=index, size=size, path=path)
    except ProofRefused:
        return
    assert len(root) == 32
