"""What the cache may hand out, whatever happens to it in whatever order."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.client import Refused, Secret, SyncBroker, Token, TokenCache
from broker.client.cache import Key, expiry_of, key_of
from tests.idp import encode

CAPACITY = 3
DENIAL = 2.0
NOW = 1_795_262_400.0
CLIENT = Secret("tickets", "s3cret")

seconds = st.floats(0, 1000, allow_nan=False)
lifetimes = st.integers(0, 900)
keys = st.sampled_from(
    [key_of(f"subject-{number}", "https://api.example", ()) for number in range(5)]
)


def token(text: str = "new", expires_in: int = 300) -> Token:
    """A token that was issued."""
    return Token(text, "Bearer", expires_in, frozenset(), "https://api.example", "access_token")


def refuse() -> None:
    """Refuse, as deep as a refusal comes from."""
    raise Refused("invalid_target", "No.", decision_id="decision-1")


def jwt_until(exp: Any) -> str:
    """A JWT that says this of its expiry; nobody verifies it here."""
    payload = json.dumps({"exp": exp}).encode()
    return f"e30.{encode(payload).decode()}.c2ln"


class Cache(RuleBasedStateMachine):
    """
    A cache, a clock that may be set, and one that only goes on.

    ``ends`` and ``ends_by`` tell until when each token may be handed out, by the one and by the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.since = 0.0
        self.ends: dict[str, float] = {}
        self.ends_by: dict[str, float] = {}
        self.dropped: set[str] = set()
        self.denied: dict[Key, float] = {}
        self.count = 0

    @initialize(draws=st.lists(st.floats(0, 1), min_size=1))
    def begin(self, draws: list[float]) -> None:
        self.cache = TokenCache(
            lambda: self.now,
            monotonic=lambda: self.since,
            capacity=CAPACITY,
            denial=DENIAL,
            jitter=lambda: draws[self.count % len(draws)],
        )

    @rule(by=seconds)
    def time_passes(self, by: float) -> None:
        self.now += by
        self.since += by

    @rule(by=st.floats(-5000, 5000, allow_nan=False))
    def clock_is_set(self, by: float) -> None:
        self.now += by

    @rule(
        key=keys,
        lifetime=lifetimes,
        subject=st.none() | st.integers(-100, 900),
        took=st.floats(0, 9),
    )
    def is_issued(self, key: Key, lifetime: int, subject: int | None, took: float) -> None:
        self.count += 1
        name = f"token-{self.count}"
        asked_at = self.now - took
        subject_token = "opaque" if subject is None else jwt_until(asked_at + subject)
        left = math.inf if subject is None else subject
        self.ends[name] = asked_at + min(lifetime, left)
        self.ends_by[name] = self.since + self.ends[name] - self.now
        self.cache.put(key, token(name, lifetime), subject_token=subject_token, asked_at=asked_at)

    @rule(key=keys)
    def is_refused(self, key: Key) -> None:
        self.denied[key] = self.since + DENIAL
        self.cache.deny(key, Refused("invalid_target"))
        self.cache.postpone(key)

    @rule(key=keys)
    def is_wanted(self, key: Key) -> None:
        try:
            held = self.cache.find(key)
        except Refused:
            assert self.since < self.denied[key]
            return
        if held is not None:
            name = held.token.access_token
            assert self.now < self.ends[name]
            assert self.since < self.ends_by[name]
            assert name not in self.dropped

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def is_not_accepted(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ends)))
        before = self.held()
        lifetime = next((one.expires_in for one in before.values() if one.access_token == name), 0)
        if self.cache.drop(token(name, lifetime)):
            self.dropped.add(name)
            left = {key: one for key, one in before.items() if one.access_token != name}
            assert self.held() == left
        else:
            assert self.held().keys() >= before.keys() - self.cache._dropped.keys()

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def is_withdrawn(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ends)))
        self.cache.withdraw(name)
        self.dropped.add(name)
        assert name not in {one.access_token for one in self.held().values()}

    def held(self) -> dict[Key, Token]:
        return {key: one.token for key, one in self.cache._held.items()}

    @invariant()
    def it_is_bounded(self) -> None:
        if self.count:
            assert len(self.cache) <= CAPACITY
            assert len(self.cache._denied) <= CAPACITY
            assert len(self.cache._dropped) <= CAPACITY

    @invariant()
    def it_is_refreshed_before_it_dies(self) -> None:
        if self.count:
            for held in self.cache._held.values():
                assert held.dead_at <= self.ends[held.token.access_token]


TestCache = Cache.TestCase


@given(lifetime=st.integers(6, 10_000), draw=st.floats(0, 1))
def test_a_token_is_due_between_seven_and_nine_tenths_of_its_use(
    lifetime: int, draw: float
) -> None:
    cache = TokenCache(lambda: NOW, monotonic=lambda: 0.0, jitter=lambda: draw)
    key = key_of("subject", "https://api.example", ())

    cache.put(key, token(expires_in=lifetime), subject_token=None, asked_at=NOW)

    held = cache.find(key)
    assert held is not None
    in_use = held.dead_at - NOW
    assert 0.69 * in_use < held.refresh_by < 0.91 * in_use
    assert not cache.is_due(held)


def test_tokens_of_the_same_moment_are_due_at_different_moments() -> None:
    cache = TokenCache(lambda: NOW)

    for number in range(50):
        key = key_of(str(number), "https://api.example", ())
        cache.put(key, token(), subject_token=None, asked_at=NOW)

    assert len({held.refresh_by for held in cache._held.values()}) == 50


def test_a_refusal_that_is_remembered_keeps_nothing_alive() -> None:
    cache = TokenCache(lambda: NOW)
    key = key_of("subject", "https://api.example", ())
    with pytest.raises(Refused) as caught:
        refuse()
    cache.deny(key, caught.value)

    for _ in range(3):
        with pytest.raises(Refused, match="decision-1"):
            cache.find(key)

    (kept,) = cache._denied.values()
    assert kept.refusal.__traceback__ is None
    assert kept.refusal.__context__ is None


@pytest.mark.parametrize("back", [3600.0, -3600.0])
def test_setting_the_clock_keeps_nothing_alive_that_has_ended(back: float) -> None:
    clock, since = [NOW], [0.0]
    cache = TokenCache(lambda: clock[0], monotonic=lambda: since[0])
    key = key_of("subject", "https://api.example", ())
    other = key_of("other", "https://api.example", ())
    cache.put(key, token(expires_in=300), subject_token=None, asked_at=NOW)
    cache.deny(other, Refused("invalid_target"))

    clock[0] -= back
    since[0] += 296

    assert cache.find(key) is None
    assert cache.find(other) is None


def test_a_resource_that_accepts_nothing_has_one_token_made_at_a_time() -> None:
    since = [0.0]
    cache = TokenCache(lambda: NOW, monotonic=lambda: since[0])
    key = key_of("subject", "https://api.example", ())
    cache.put(key, token("first"), subject_token=None, asked_at=NOW)

    assert cache.drop(token("first"))
    cache.put(key, token("second"), subject_token=None, asked_at=NOW)
    assert not cache.drop(token("second"))
    assert cache.find(key) is not None
    since[0] += DENIAL
    assert cache.drop(token("second"))
    assert cache.find(key) is None


def test_what_was_made_of_a_withdrawn_token_is_forgotten_with_it() -> None:
    cache = TokenCache(lambda: NOW)
    for subject in ("withdrawn", "another"):
        key = key_of(subject, "https://api.example", ())
        cache.put(key, token(f"of {subject}"), subject_token=None, asked_at=NOW)

    cache.withdraw("withdrawn")

    assert [held.token.access_token for held in cache._held.values()] == ["of another"]


def test_a_cache_holds_the_tokens_of_one_client_alone() -> None:
    cache = TokenCache()
    SyncBroker("https://broker.example", CLIENT, cache=cache)
    SyncBroker("https://broker.example", CLIENT, cache=cache)

    for issuer, credential in (
        ("https://broker.example", Secret("other", "s")),
        ("https://other.example", CLIENT),
    ):
        with pytest.raises(ValueError, match="one client of one broker"):
            SyncBroker(issuer, credential, cache=cache)


def test_the_key_holds_no_token_and_does_not_mind_the_order_of_scopes() -> None:
    key = key_of("subject", "https://api.example", ["a", "b"])

    assert key == key_of("subject", "https://api.example", "b a")
    assert "subject" not in repr(key)
    assert key != key_of("subject", "https://api.example", ["a"])
    assert key != key_of("another", "https://api.example", ["a", "b"])
    assert key != key_of(None, "https://api.example", ["a", "b"])
    assert key != key_of("subject", "https://api.example/", ["a", "b"])


@pytest.mark.parametrize(
    "subject_token",
    [
        "",
        "opaque",
        "a.b",
        "a.!.c",
        "a.b.c.d",
        jwt_until("soon"),
        jwt_until(True),
        jwt_until(None),
        jwt_until(float("nan")),
        jwt_until(float("inf")),
        jwt_until(10**400),
        f"e30.{encode(b'[]').decode()}.c2ln",
        f"e30.{encode(b'[' * 20_000).decode()}.c2ln",
        f"e30.{encode(b'[' * 90_000).decode()}.c2ln",
    ],
)
def test_a_token_that_does_not_say_when_it_expires_says_nothing(subject_token: str) -> None:
    assert expiry_of(subject_token) is None


@given(st.text())
def test_no_text_is_too_strange_to_be_looked_at(text: str) -> None:
    expiry = expiry_of(text)

    assert expiry is None or math.isfinite(expiry)
