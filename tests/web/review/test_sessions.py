"""Sessions end: by themselves, when asked, and when there are too many."""

import pytest

from broker.errors import TemporarilyUnavailable
from broker.web.review.sessions import Auditor, Sessions, SessionTerms
from tests.issuers.scripted import Clock

OLGA = Auditor("olga", "openid")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(SessionTerms(longest=1000.0, idle=100.0, most=10), monotonic=clock)


def test_a_session_is_found_by_its_secret_alone(sessions: Sessions) -> None:
    secret = sessions.begin(OLGA)
    found = sessions.find(secret)
    assert found is not None
    assert found.auditor == OLGA
    assert sessions.find(found.key) is None
    assert sessions.find(found.form_token) is None
    assert sessions.find(secret[:-1]) is None
    assert sessions.find("") is None
    assert sessions.find("\ud800") is None


def test_neither_secret_nor_form_token_is_shown(sessions: Sessions) -> None:
    secret = sessions.begin(OLGA)
    found = sessions.find(secret)
    assert found is not None
    assert secret not in repr(vars(sessions))
    assert found.form_token not in repr(found)


def test_an_unused_session_ends(sessions: Sessions, clock: Clock) -> None:
    secret = sessions.begin(OLGA)
    clock.at += 100.0
    assert sessions.find(secret) is None
    clock.at -= 50.0
    assert sessions.find(secret) is None


def test_a_used_session_ends_when_its_time_is_over(sessions: Sessions, clock: Clock) -> None:
    secret = sessions.begin(OLGA)
    for _ in range(10):
        clock.at += 99.0
        assert sessions.find(secret) is not None
    clock.at += 10.0
    assert sessions.find(secret) is None


def test_to_ask_whether_it_lives_does_not_use_it(sessions: Sessions, clock: Clock) -> None:
    secret = sessions.begin(OLGA)
    session = sessions.find(secret)
    assert session is not None
    clock.at += 60.0
    assert sessions.is_live(session)
    clock.at += 40.0
    assert not sessions.is_live(session)


def test_one_that_was_ended_stays_ended(sessions: Sessions) -> None:
    secret = sessions.begin(OLGA)
    session = sessions.find(secret)
    assert session is not None
    sessions.end(session)
    sessions.end(session)
    assert sessions.find(secret) is None
    assert not sessions.is_live(session)


def test_of_too_many_of_one_auditor_the_longest_unused_ends(sessions: Sessions) -> None:
    secrets = [sessions.begin(OLGA) for _ in range(8)]
    assert sessions.find(secrets[0]) is not None
    newest = sessions.begin(OLGA)
    assert sessions.find(secrets[1]) is None
    assert sessions.find(secrets[0]) is not None
    assert sessions.find(newest) is not None
    assert len(sessions) == 8


def test_there_are_no_more_than_so_many(sessions: Sessions, clock: Clock) -> None:
    first = [sessions.begin(Auditor(f"one-{number}", "openid")) for number in range(10)]
    with pytest.raises(TemporarilyUnavailable, match="overloaded"):
        sessions.begin(OLGA)
    assert all(sessions.find(one) is not None for one in first)
    clock.at += 100.0
    assert sessions.find(sessions.begin(OLGA)) is not None
    assert len(sessions) == 1
