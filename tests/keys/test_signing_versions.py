"""Which version of a key signs: only one that every verifier must have seen."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.keys.published import published_key
from broker.keys.transit_key import KeyVersion, PublishedLongEnough

NOW = 1_800_000_000
LEAD = timedelta(seconds=330)
LONG_AGO = NOW - 330
JUST_NOW = NOW - 329

choose = PublishedLongEnough(lambda: NOW, LEAD)


def version(number: int, created_at: int) -> KeyVersion:
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return KeyVersion("ES256", "key", number, created_at, published_key(public_key, "ES256"))


@pytest.mark.requirement("META-11")
def test_the_newest_version_signs_that_was_published_long_enough() -> None:
    published = [version(4, JUST_NOW), version(3, LONG_AGO), version(2, LONG_AGO - 1000)]

    assert choose(published, None) is published[1]
    assert choose(published, published[2]) is published[1]


@pytest.mark.requirement("SGN-02", "META-11")
def test_a_version_that_is_too_young_does_not_sign() -> None:
    old, young = version(1, LONG_AGO), version(2, JUST_NOW)

    assert choose([young, old], None) is old
    assert choose([young, old], old) is old


def test_the_very_first_version_signs_at_once() -> None:
    first = version(1, NOW)

    assert choose([first], None) is first
    assert choose([first], first) is first


@pytest.mark.requirement("SGN-02")
def test_a_young_version_does_not_sign_though_all_older_ones_were_withdrawn() -> None:
    young = version(2, JUST_NOW)

    assert choose([young], None) is None
    assert choose([young], version(1, LONG_AGO)) is None


@pytest.mark.requirement("SGN-02")
def test_a_key_that_was_deleted_and_made_anew_does_not_sign_at_once() -> None:
    """Verifiers still remember the version 1 that was there before."""
    assert choose([version(1, NOW)], version(1, LONG_AGO)) is None


def test_two_young_versions_sign_nothing_until_one_was_published_long_enough() -> None:
    assert choose([version(2, NOW), version(1, JUST_NOW)], None) is None


def test_the_version_that_signs_goes_on_when_the_clock_is_set_back() -> None:
    older, current = version(1, LONG_AGO - 1000), version(2, JUST_NOW)

    assert choose([current, older], current) is current


def test_no_version_means_no_signature() -> None:
    assert choose([], None) is None
    assert choose([], version(1, LONG_AGO)) is None
