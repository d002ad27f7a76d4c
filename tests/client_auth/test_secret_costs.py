"""What a wrong secret may cost: one computation per chosen secret, and a short queue for it."""

import hashlib
import threading
import time
from collections.abc import Callable

import pytest
from argon2 import PasswordHasher

from broker.client_auth import SecretVerifier
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import SecretHash

HASHER = PasswordHasher(time_cost=1, memory_cost=1024)


class Counting:
    """Counts the slow computations of a verifier."""

    def __init__(self, verifier: SecretVerifier) -> None:
        self.count = 0
        inner: Callable[[str, bytes], bool] = verifier._is_verified

        def counted(encoded: str, raw: bytes) -> bool:
            self.count += 1
            return inner(encoded, raw)

        object.__setattr__(verifier, "_is_verified", counted)


def verifier(most_chosen: int = 1, *, waiting: int = 2) -> SecretVerifier:
    return SecretVerifier(most_chosen=lambda: most_chosen, now=lambda: 0, waiting=waiting)


@pytest.mark.requirement("CAU-13", "DOS-04")
def test_every_failure_costs_the_same() -> None:
    chosen = (SecretHash(HASHER.hash("right")),)
    generated = (SecretHash("sha256:" + "0" * 64),)
    costs = set()
    for stored in (chosen, generated, ()):
        checked = verifier()
        counting = Counting(checked)
        assert not checked.is_one_of(["wr%41ng", "wrAng"], stored)
        costs.add(counting.count)
    assert costs == {1}


def test_a_right_secret_is_paid_for_once() -> None:
    checked = verifier()
    counting = Counting(checked)
    stored = (SecretHash(HASHER.hash("right")),)
    assert checked.is_one_of(["right"], stored)
    assert checked.is_one_of(["right"], stored)
    assert counting.count == 1


def test_nothing_slow_happens_where_no_secret_is_chosen() -> None:
    checked = verifier(0)
    counting = Counting(checked)
    assert not checked.is_one_of(["wrong"], ())
    assert counting.count == 0


@pytest.mark.requirement("DOS-04", "DOS-01", "CAU-16")
def test_callers_beyond_the_short_queue_are_turned_away_at_once() -> None:
    checked = verifier(waiting=1)
    working, release = threading.Event(), threading.Event()

    def slow(_encoded: str, _raw: bytes) -> bool:
        working.set()
        release.wait(120)
        return False

    object.__setattr__(checked, "_is_verified", slow)
    stored = (SecretHash(HASHER.hash("right")),)
    threads = [
        threading.Thread(target=checked.is_one_of, args=(["wrong"], stored)) for _ in range(2)
    ]
    threads[0].start()
    assert working.wait(60)
    threads[1].start()
    begun = time.monotonic()
    refused = 0
    while refused == 0 and time.monotonic() < begun + 60:
        # The second thread may still be on its way to its place in the queue.
        if checked._places._value == 0:
            with pytest.raises(TemporarilyUnavailable) as error:
                checked.is_one_of(["wrong"], stored)
            assert error.value.reason is Reason.OVERLOADED
            refused += 1
    release.set()
    for thread in threads:
        thread.join()
    assert refused == 1


def test_a_generated_secret_never_waits_for_a_chosen_one() -> None:
    checked = verifier(waiting=0)
    assert checked._places.acquire(blocking=False)
    stored = (SecretHash("sha256:" + hashlib.sha256(b"generated").hexdigest()),)
    assert checked.is_one_of(["generated"], stored)
