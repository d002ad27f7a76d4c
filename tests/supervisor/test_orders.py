"""The board that orders hang on: what a reader finds there, whatever was written to it."""

import os

import pytest

from broker.orders import MOST_OF_A_CONTENT, MOST_OF_A_PROBLEM, Order, OrderBoard


def test_at_first_there_is_the_order_that_nobody_gave() -> None:
    board = OrderBoard()

    assert board.newest() == Order()
    assert not board.is_draining


def test_the_newest_order_is_found_under_its_number() -> None:
    board = OrderBoard()

    for number in range(1, 6):
        content, problem = f"content {number}".encode(), "broker.yaml:3: ß" * (number % 2)
        board.order(Order(content, problem))
        assert board.newest() == Order(content, problem, number)


@pytest.mark.parametrize(
    "problem",
    ["x" * 100_000, "\x00" * 100_000, "\U0001f512" * 100_000, "\udcff" * 100_000],
    ids=["long", "escaped", "wide", "not text"],
)
def test_a_problem_of_any_kind_fits_on_the_board(problem: str) -> None:
    board = OrderBoard()

    board.order(Order(b"f" * 64, problem))

    found = board.newest()
    assert found is not None
    assert (found.in_force, found.generation) == (b"f" * 64, 1)
    assert len(found.problem) == MOST_OF_A_PROBLEM


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    board = OrderBoard()

    with pytest.raises(ValueError, match="does not fit"):
        board.order(Order(bytes(MOST_OF_A_CONTENT + 1)))

    assert board.newest() == Order()


def test_the_largest_content_arrives_whole() -> None:
    board = OrderBoard()
    content = b"x" * MOST_OF_A_CONTENT

    board.order(Order(content, "\U0001f512" * 1000))

    found = board.newest()
    assert found is not None
    assert found.in_force == content


def test_a_reader_in_another_process_never_finds_half_an_order() -> None:
    """Each order is of one letter and of its own length, so a mixture would show."""
    board = OrderBoard()
    reader = os.fork()
    if reader == 0:
        last = 0
        while last < 20_000:
            found = board.newest()
            if found is not None:
                letter = chr(ord("a") + found.generation % 26)
                is_whole = set(found.problem) <= {letter}
                is_whole &= found.in_force == found.problem.encode() * 100
                if not is_whole or found.generation < last:
                    os._exit(1)
                last = found.generation
        os._exit(0)

    for number in range(1, 20_001):
        text = chr(ord("a") + number % 26) * (number % 300)
        board.order(Order(text.encode() * 100, text))

    assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == 0
