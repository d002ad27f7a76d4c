"""The course of a key's life as the record has it: the states it was in, is in, and will come into."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.keys.life import KeyEntry, KeyState, leaves_at_of
from broker.keys.record import KeyRecord
from broker.model import KeyChange


@dataclass(frozen=True, slots=True)
class Step:
    """A state, and the moment in unix seconds from which on the key is in it."""

    state: KeyState
    at: int


Course = Sequence[Step]


def changes_between(
    before: KeyRecord, after: KeyRecord, *, keep_published: timedelta, now: int
) -> tuple[KeyChange, ...]:
    """
    What becomes of each key that would not have become of it before; most of that is yet to come.

    A key that something was to happen to, and nothing is now, stays what it is.
    """
    old = {entry.kid: course for entry, course in _courses(before, keep_published)}
    return tuple(
        change
        for entry, course in _courses(after, keep_published)
        for change in _changes(entry, course, before=old.get(entry.kid, ()), now=now)
    )


def states_at(record: KeyRecord, now: int, *, keep_published: timedelta) -> Iterator[KeyChange]:
    """The last change of each key so far."""
    for entry, course in _courses(record, keep_published):
        begun = [step for step in course if step.at <= now] or [course[0]]
        last = begun[-1]
        yield KeyChange(entry.kid, entry.algorithm, None, last.state.value, last.at)


def _courses(record: KeyRecord, keep_published: timedelta) -> Iterator[tuple[KeyEntry, Course]]:
    for algorithm in sorted({entry.algorithm for entry in record.keys}):
        successor: KeyEntry | None = None
        for entry in sorted(record.of(algorithm), key=lambda one: one.number, reverse=True):
            yield entry, _course(entry, successor, keep_published)
            if entry.takes_over:
                successor = entry


def _course(entry: KeyEntry, successor: KeyEntry | None, keep_published: timedelta) -> Course:
    steps = [Step(KeyState.PENDING, entry.published_at)]
    succeeded_at = None if successor is None else successor.activates_at
    begins_at = entry.activates_at
    if begins_at is not None and (succeeded_at is None or begins_at < succeeded_at):
        steps.append(Step(KeyState.ACTIVE, begins_at))
    if succeeded_at is not None:
        has_signed = len(steps) > 1
        steps.append(Step(KeyState.RETIRING if has_signed else KeyState.RETIRED, succeeded_at))
        leaves_at = leaves_at_of(entry, successor, keep_published)
        if has_signed and leaves_at is not None:
            steps.append(Step(KeyState.RETIRED, leaves_at))
    if entry.revoked_at is None:
        return steps
    # One that begins and is revoked in the same second has begun, and nobody had succeeded it yet.
    latest = entry.revoked_at
    so_far = [one for one in steps[1:] if one.at < latest + (one.state is KeyState.ACTIVE)]
    return [steps[0], *so_far, Step(KeyState.REVOKED, entry.revoked_at)]


def _changes(entry: KeyEntry, course: Course, *, before: Course, now: int) -> Iterator[KeyChange]:
    former = [None, *(step.state.value for step in course)]
    changes = [
        KeyChange(entry.kid, entry.algorithm, state, step.state.value, step.at)
        for state, step in zip(former, course, strict=False)
        if step not in before
    ]
    yield from changes
    if not changes and len(before) > len(course):
        state = course[-1].state.value
        yield KeyChange(entry.kid, entry.algorithm, state, state, now)
