"""Keys that are on no record: only one signs that every verifier must have seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import pytest

from broker.keys.book import KeyBook
from broker.keys.life import KeyState, Schedule
from broker.keys.record import NoRecord

NOW = 1_800_000_000
LEAD = timedelta(seconds=330)
LONG_AGO = NOW - 330
JUST_NOW = NOW - 329

book = KeyBook(Schedule(LEAD, timedelta(minutes=20)), now=lambda: NOW, records=NoRecord())


@dataclass(frozen=True)
class Found:
    """A key that exists."""

    number: int
    created_at: int

    @property
    def kid(self) -> str:
        return f"{self.number}-{self.created_at}".rjust(43, "k")


def chosen(found: Sequence[Found], signed: Found | None) -> int | None:
    """The number of the key that signs, if any does; all others are published, too."""
    lives = book.lives("ES256", found, signed=signed.kid if signed else None)
    assert all(life.is_published for life in lives)
    assert {life.entry.kid for life in lives} == {key.kid for key in found}
    return next((one.entry.number for one in lives if one.state is KeyState.ACTIVE), None)


@pytest.mark.requirement("META-11")
def test_the_newest_version_signs_that_was_published_long_enough() -> None:
    found = [Found(4, JUST_NOW), Found(3, LONG_AGO), Found(2, LONG_AGO - 1000)]

    assert chosen(found, None) == 3
    assert chosen(found, found[2]) == 3


@pytest.mark.requirement("SGN-02", "META-11")
def test_a_version_that_is_too_young_does_not_sign() -> None:
    old, young = Found(1, LONG_AGO), Found(2, JUST_NOW)

    assert chosen([young, old], None) == 1
    assert chosen([young, old], old) == 1


def test_the_very_first_version_signs_at_once() -> None:
    first = Found(1, NOW)

    assert chosen([first], None) == 1
    assert chosen([first], first) == 1


@pytest.mark.requirement("SGN-02")
def test_a_young_version_does_not_sign_though_all_older_ones_were_withdrawn() -> None:
    young = Found(2, JUST_NOW)

    assert chosen([young], None) is None
    assert chosen([young], Found(1, LONG_AGO)) is None


@pytest.mark.requirement("SGN-02")
def test_a_key_that_was_deleted_and_made_anew_does_not_sign_at_once() -> None:
    """Verifiers still remember the version 1 that was there before."""
    assert chosen([Found(1, NOW)], Found(1, LONG_AGO)) is None


def test_two_young_versions_sign_nothing_until_one_was_published_long_enough() -> None:
    assert chosen([Found(2, NOW), Found(1, JUST_NOW)], None) is None


def test_the_version_that_signs_goes_on_when_the_clock_is_set_back() -> None:
    older, current = Found(1, LONG_AGO - 1000), Found(2, JUST_NOW)

    assert chosen([current, older], current) == 2


def test_no_version_means_no_signature() -> None:
    assert chosen([], None) is None
    assert chosen([], Found(1, LONG_AGO)) is None
