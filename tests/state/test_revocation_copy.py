"""What a process knows of all that is withdrawn, and when it may speak for all."""

import pytest

from broker.model import Revocation
from broker.state.copied import RevocationCopy
from broker.state.entries import LAST_SECOND

NOW = 1_800_000_000


class Clock:
    """A monotonic clock that stands until it is moved, in seconds."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def copy(clock: Clock) -> RevocationCopy:
    return RevocationCopy(most=3, monotonic=clock)


def revocation(number: int, name: str = "", *, kept_until: int = NOW + 300) -> Revocation:
    key = (name or f"key-{number}").encode()
    return Revocation(number, key, 0, LAST_SECOND, kept_until)


def is_whole(copy: RevocationCopy) -> bool:
    return copy.is_whole


def test_it_speaks_for_all_once_it_has_seen_all(copy: RevocationCopy) -> None:
    assert not is_whole(copy)

    copy.take([revocation(1)])
    assert not is_whole(copy), "there may be more"

    copy.finish_look(now=NOW)
    assert is_whole(copy)
    assert copy.last_number == 1


@pytest.mark.requirement("R-16")
def test_who_was_away_for_ten_minutes_speaks_for_nobody(copy: RevocationCopy, clock: Clock) -> None:
    copy.finish_look(now=NOW)

    clock.at += 600
    assert is_whole(copy)

    clock.at += 1
    assert not is_whole(copy)


@pytest.mark.requirement("R-16")
def test_who_has_no_room_for_all_speaks_for_nobody_ever(copy: RevocationCopy) -> None:
    copy.take([revocation(number) for number in (1, 2, 3)])
    copy.finish_look(now=NOW)
    assert is_whole(copy)

    copy.add(revocation(0, "one-more"))

    assert not is_whole(copy)
    copy.finish_look(now=NOW)
    assert not is_whole(copy)
    assert copy.entries() == ()


def test_what_was_withdrawn_here_is_unseen_until_a_look_finds_it(copy: RevocationCopy) -> None:
    copy.add(revocation(7, "own"))
    assert [one.key for one in copy.unseen()] == [b"own"]

    copy.take([revocation(8, "own")])

    assert copy.unseen() == ()
    assert [one.number for one in copy.entries()] == [8]


def test_what_was_withdrawn_here_for_more_is_unseen_again(copy: RevocationCopy) -> None:
    copy.take([revocation(8, "own", kept_until=NOW + 10)])

    copy.add(revocation(0, "own", kept_until=NOW + 500))

    (unseen,) = copy.unseen()
    assert unseen.kept_until == NOW + 500


def test_what_is_told_of_one_key_is_only_ever_widened(copy: RevocationCopy) -> None:
    copy.take([Revocation(1, b"key", NOW, NOW + 9, NOW + 100)])

    copy.take([Revocation(2, b"key", NOW - 5, NOW, NOW + 50)])

    assert copy.entries() == (Revocation(2, b"key", NOW - 5, NOW + 9, NOW + 100),)


def test_after_an_epoch_all_is_looked_at_and_nothing_is_lost(copy: RevocationCopy) -> None:
    copy.take([revocation(1)])
    copy.finish_look(now=NOW)

    copy.begin_anew()

    assert copy.last_number == 0
    assert len(copy.entries()) == 1
    assert is_whole(copy)


def test_what_nobody_needs_to_know_any_more_is_let_go_of(
    copy: RevocationCopy, clock: Clock
) -> None:
    copy.take([revocation(1, kept_until=NOW), revocation(2, kept_until=NOW + 1)])
    clock.at += 60

    copy.finish_look(now=NOW + 1)

    assert [one.number for one in copy.entries()] == [2]
