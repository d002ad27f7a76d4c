"""Rotation and revocation: keys are made, put on record, and closed off, by one rotator at a time."""

import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from broker.errors import TemporarilyUnavailable
from broker.interfaces import Now
from broker.keys.changes import RecordEditor
from broker.keys.course import changes_between
from broker.keys.journal import Act, KeyJournal
from broker.keys.life import (
    KEY_ID_PATTERN,
    LONGEST_STATED_LIFE,
    FoundKey,
    KeyEntry,
    KeyLife,
    KeyState,
    Schedule,
)
from broker.keys.record import MOST_ENTRIES, Claim, HeldRecord, KeyRecord, RecordStore, RevokedKey
from broker.model import KeyChange

if TYPE_CHECKING:
    from broker.keys.ephemeral import StatedKey

_CLAIM_SECONDS: Final = 60
_MOST_TRIES: Final = 10
_ROOM: Final = 8
"""How many entries are left free, so that a key can still be revoked and succeeded."""


_KEY_ID: Final = re.compile(KEY_ID_PATTERN)
_PUBLISH: Final = Act("key.publish", "upkeep")


class KeySmith(Protocol):
    """
    Makes keys where they are kept, and closes off old ones.

    ``found`` is what exists, on record or not. ``make`` adds the next key of an algorithm. After
    ``settle`` no key below ``signs_from`` signs, and those that are gone are out of reach, as far as
    the place where they are kept can see to that. All raise ``TemporarilyUnavailable``
    (``signer_unavailable``) when they cannot.
    """

    def found(self, algorithm: str) -> Sequence[FoundKey]: ...
    def make(self, algorithm: str) -> None: ...
    def settle(self, algorithm: str, *, signs_from: int, gone: frozenset[int]) -> None: ...


class NotRotated(Exception):
    """Nothing was changed; the sentence says why."""


class UnknownKey(NotRotated):
    """No key on record has this id."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """
    What a revocation did: the record after it, the key, and the one that signs instead.

    ``revoked_at`` is the moment in unix seconds from which it counts; ``is_repeated`` says that this was
    an earlier one, by which everything is told. ``was_active`` tells whether the key signed until then.
    ``replica`` is set for a key that was in the memory of one, which goes on with a key that all share.
    A key of which nobody knows anything (``is_known``) has no ``algorithm``, and may yet be in the memory
    of a replica. ``fault`` says why the place where the key is kept could not be told; then only those
    who read the record know. ``is_recorded`` tells whether it is in the audit log.
    """

    record: KeyRecord
    algorithm: str
    kid: str
    was_active: bool
    signing: KeyEntry | None
    revoked_at: int
    is_repeated: bool = False
    is_known: bool = True
    replica: str = ""
    fault: str = ""
    is_recorded: bool = True


class Rotator:
    """
    Changes the record, and the keys along with it.

    Any number of rotators may run: whoever writes a claim into the record first makes the next key,
    and the others find it made. A claim of one that died is void after a minute. ``stated`` are the
    keys in the memory of replicas, where there are such, which can be revoked as well. ``journal`` is
    told of every change before it is made; what cannot be recorded is not done, revocations apart.
    """

    def __init__(
        self,
        records: RecordStore,
        smith: KeySmith,
        *,
        algorithms: Sequence[str],
        schedule: Schedule,
        now: Now,
        stated: Callable[[], Sequence["StatedKey"]] | None = None,
    ) -> None:
        self.has_keys_in_memory = stated is not None
        self.stated: Callable[[], Sequence[StatedKey]] = stated or tuple
        self.algorithms = tuple(algorithms)
        self.schedule = schedule
        self.now = now
        self._records = records
        self._smith = smith
        self.journal = KeyJournal()
        self._name = secrets.token_urlsafe(12)
        self._settled: dict[str, tuple[int, frozenset[int]]] = {}

    def editor(self, algorithm: str) -> RecordEditor:
        """What changes a record at this moment."""
        return RecordEditor(algorithm, self.schedule, self.now())

    def found(self, algorithm: str) -> Sequence[FoundKey]:
        """The keys that exist, on record or not."""
        return self._smith.found(algorithm)

    def look(self) -> KeyRecord:
        """The record with everything on it that exists; nothing is written."""
        return self._complete(self._records.read()).record

    def rotate(self, algorithms: Sequence[str]) -> KeyRecord:
        """
        Set a successor for each of these algorithms, and keep a spare ready; the record after that.

        Raises ``NotRotated`` when a successor is set already, or somebody else is at it, or the clock
        is behind what is on record.
        """
        record = self.look()
        self._check_clock(record)
        # Where nobody looks after the keys but those who rotate them, old ones are closed off here.
        for algorithm in self.algorithms:
            self._settle(record, algorithm)
        for algorithm in algorithms:
            waiting = self.editor(algorithm).scheduled(record)
            if waiting is not None and waiting.activates_at is not None:
                raise NotRotated(
                    f"{algorithm}: key {waiting.kid} is about to sign already, from"
                    f" {_moment(waiting.activates_at)} on"
                    f" (in {waiting.activates_at - self.now()} s)."
                )
            if not record.of(algorithm):
                raise NotRotated(f"{algorithm}: there is no key yet; the broker makes the first.")
        return self._as_only_one(
            lambda record: self._advanced(record, due=frozenset(algorithms)),
            Act("key.rotate", "command"),
        )

    def revoke(self, kid: str) -> Revoked:
        """
        Take a key out of use at once and for ever; another signs at once if it was the one that did.

        It waits for nobody: whoever is rotating meanwhile has to begin anew. Where keys live in the
        memory of replicas, one that nobody states any more is revoked as well, if this can be its id.
        Raises ``UnknownKey``, and ``RecordFull`` when the record would be too long to be read.
        """
        for _ in range(_MOST_TRIES):
            on_record = self._records.read()
            held = self._complete(on_record)
            revoked = self._revoked(held.record, kid)
            changed = replace(revoked.record, claim=None)
            changes = [
                *self._changes(on_record.record, changed),
                *self._changes_in_memory(on_record.record, changed),
            ]
            act = Act("key.revoke", "command", revoked)
            with self.journal.announced(act, changes) as announcement:
                announcement.is_made = self._records.write(changed, over=held.version)
            if announcement.is_made:
                return self._after(replace(revoked, is_recorded=announcement.is_recorded))
        raise NotRotated("Others kept changing the record; try again.")

    def _after(self, revoked: Revoked) -> Revoked:
        """See to what follows from a revocation that is on record, as far as that is possible."""
        try:
            if revoked.is_known:
                self._settle(revoked.record, revoked.algorithm)
        except TemporarilyUnavailable as error:
            revoked = replace(revoked, fault=error.detail)
        # What else there is to do can be done by others as well.
        with suppress(Exception):
            self.tend()
        return revoked

    def tend(self) -> None:
        """
        Do what is due: adopt keys, make the spare, set the next successor, close off old keys.

        Called often; it writes only when there is something to do, and leaves it to whoever is at it.
        Raises ``NotRotated`` while the clock is behind what is on record.
        """
        held = self._records.read()
        record = self._complete(held).record
        self._check_clock(record)
        due = frozenset(
            algorithm for algorithm in self.algorithms if self.editor(algorithm).is_due(record)
        )
        if due or record.keys != held.record.keys or any(map(self._lacks(record), self.algorithms)):
            try:
                record = self._as_only_one(
                    lambda current: self._advanced(current, due=due),
                    Act("key.rotate", "age") if due else _PUBLISH,
                )
            except NotRotated:
                return
        for algorithm in self.algorithms:
            self._settle(record, algorithm)

    def _check_clock(self, record: KeyRecord) -> None:
        """
        Refuse to reckon by a clock that is behind moments that have passed.

        A key that is set to begin by such a clock would sign elsewhere before verifiers can know it.
        """
        passed = [entry.published_at for entry in record.keys]
        passed.extend(entry.revoked_at for entry in record.keys if entry.revoked_at is not None)
        passed.extend(one.revoked_at for one in record.revoked)
        behind = max(passed, default=0) - self.now()
        if behind > self.schedule.clock_difference.total_seconds():
            raise NotRotated(f"The clock is {behind} s behind what is on record; set it first.")

    def _changes_in_memory(self, before: KeyRecord, after: KeyRecord) -> Iterator[KeyChange]:
        """What becomes of the keys in the memory of replicas; they are on record once revoked."""
        keep, new = self.schedule.keep_published, {*after.revoked} - {*before.revoked}
        moments = {one.kid: one.revoked_at for one in new}
        for key in self.stated() if moments else ():
            if key.statement.kid in moments:
                former = key.state(self.now(), keep_published=keep, is_revoked=False)
                at = moments[key.statement.kid]
                yield key.change(KeyState.REVOKED, at, from_state=former)

    def _complete(self, held: HeldRecord) -> HeldRecord:
        """What is on record and what exists besides."""
        record = held.record
        for algorithm in self.algorithms:
            record = self.editor(algorithm).adopt(record, self._smith.found(algorithm))
        return HeldRecord(record, held.version)

    def _lacks(self, record: KeyRecord) -> Callable[[str], bool]:
        """Whether a key has to be made for an algorithm."""

        def lacks(algorithm: str) -> bool:
            has_spare = self.editor(algorithm).spare(record) is not None
            return self.schedule.has_spare and not has_spare and bool(record.of(algorithm))

        return lacks

    def _as_only_one(self, change: Callable[[KeyRecord], KeyRecord], act: Act) -> KeyRecord:
        """Claim the record, change it, and give it free; raises ``NotRotated`` if others are first."""
        # A key that is made, and cannot be put on record then, would be made again and again.
        self.journal.check()
        # What exists is put on record before anything is made: should this process die in between, a
        # key that has signed all along would be taken for one of several that are too young.
        on_record = self._records.read()
        held = self._complete(on_record)
        if held.record.is_claimed(self.now()):
            raise NotRotated("Another rotation is under way; try again in a minute.")
        mine = replace(held.record, claim=Claim(self._name, self.now() + _CLAIM_SECONDS))
        if not self._put(mine, over=on_record, act=_PUBLISH):
            raise NotRotated("Another rotation was a moment earlier; try again.")
        held = self._records.read()
        if held.record.claim != mine.claim:
            raise NotRotated("The record was changed by somebody else meanwhile; try again.")
        try:
            changed = replace(change(self._complete(held).record), claim=None)
            self._check_claim(held)
            is_changed = self._put(changed, over=held, act=act)
        except BaseException:
            self._give_up(held)
            raise
        if not is_changed:
            raise NotRotated("The record was changed by somebody else meanwhile; try again.")
        return changed

    def _check_claim(self, held: HeldRecord) -> None:
        """Refuse to go on after the claim: replicas decide by themselves then about what was made."""
        if not held.record.is_claimed(self.now()):
            raise NotRotated("It took too long to make the keys; try again.")

    def _put(self, record: KeyRecord, *, over: HeldRecord, act: Act) -> bool:
        """Replace the record, which is announced if it changes the life of any key."""
        changes = self._changes(over.record, record)
        if not changes:
            return self._records.write(record, over=over.version)
        with self.journal.announced(act, changes) as announcement:
            announcement.is_made = self._records.write(record, over=over.version)
        return announcement.is_made

    def _changes(self, before: KeyRecord, after: KeyRecord) -> Sequence[KeyChange]:
        keep = self.schedule.keep_published
        return changes_between(before, after, keep_published=keep, now=self.now())

    def _give_up(self, held: HeldRecord) -> None:
        """Let others try; where even that fails, the claim runs out by itself."""
        with suppress(Exception):
            self._records.write(replace(held.record, claim=None), over=held.version)

    def _advanced(self, record: KeyRecord, *, due: frozenset[str]) -> KeyRecord:
        """The record with a successor for what is due, and with what every algorithm must have."""
        record = self._pruned(record)
        if len(record.keys) > MOST_ENTRIES - _ROOM:
            raise NotRotated("Too many keys are on record; they have to leave it first.")
        # Whoever signs makes the first key, or has it made.
        present = [algorithm for algorithm in self.algorithms if record.of(algorithm)]
        beginning = [
            algorithm
            for algorithm in present
            if algorithm in due and self.editor(algorithm).scheduled(record) is None
        ]
        for algorithm in present:
            wanted = int(algorithm in beginning) + int(self.schedule.has_spare)
            while len(self.editor(algorithm).spares(record)) < wanted:
                record = self._with_another(record, algorithm)
        # To make keys may take long, and nobody knows of a moment until it is on record.
        for algorithm in beginning:
            editor = self.editor(algorithm)
            record = editor.begin_in_time(record, editor.spares(record)[0])
        return self._pruned(record)

    def _pruned(self, record: KeyRecord) -> KeyRecord:
        """The record without what is over and need not be read any more."""
        for algorithm in self.algorithms:
            record = self.editor(algorithm).prune(record)
        remembered = tuple(one for one in record.revoked if self.now() < one.until)
        return replace(record, revoked=remembered)

    def _with_spare(self, record: KeyRecord, algorithm: str) -> tuple[KeyRecord, KeyEntry]:
        """The record with a spare in it, which is made if there is none."""
        if not self.editor(algorithm).spares(record):
            record = self._with_another(record, algorithm)
        return record, self.editor(algorithm).spares(record)[0]

    def _with_another(self, record: KeyRecord, algorithm: str) -> KeyRecord:
        """The record with one more spare in it, which is made."""
        present, known = record.of(algorithm), {entry.kid for entry in record.of(algorithm)}
        self._smith.make(algorithm)
        for key in self._smith.found(algorithm):
            if key.kid not in known and key.number > _newest(record, algorithm):
                record = self.editor(algorithm).add_spare(record, key)
        if record.of(algorithm) == present:
            raise NotRotated(f"{algorithm}: the key that was made cannot be seen yet; try again.")
        return record

    def _revoked(self, record: KeyRecord, kid: str) -> Revoked:
        entry = next((one for one in record.keys if one.kid == kid), None)
        if entry is None:
            return self._revoked_in_memory(record, kid)
        editor = self.editor(entry.algorithm)
        if entry.revoked_at is not None:
            return self._revoked_before(record, entry, entry.revoked_at)
        was_active = entry == editor.active(record)
        successor = None
        if was_active:
            record, successor = self._successor(record, entry.algorithm)
        # The one stops and the other begins at the same moment, however long it took to make that one.
        editor = self.editor(entry.algorithm)
        record = editor.revoke(record, kid)
        if successor is not None:
            record = editor.begin_at_once(record, successor)
        return Revoked(
            record, entry.algorithm, kid, was_active, editor.active(record), revoked_at=editor.now
        )

    def _successor(self, record: KeyRecord, algorithm: str) -> tuple[KeyRecord, KeyEntry | None]:
        """Another key that can sign at once, if there is one or one can be made."""
        successor = self.editor(algorithm).scheduled(record)
        if successor is None:
            # A key that somebody else may sign with is worse than none, so nothing depends on it.
            with suppress(TemporarilyUnavailable, NotRotated):
                return self._with_spare(record, algorithm)
        return record, successor

    def _revoked_before(self, record: KeyRecord, entry: KeyEntry, revoked_at: int) -> Revoked:
        """What there is to tell of a revocation that was made before, and a successor if it lacks one."""
        editor = self.editor(entry.algorithm)
        is_alone = entry.takes_over and editor.active(record) is None
        if is_alone:
            record, successor = self._successor(record, entry.algorithm)
            editor = self.editor(entry.algorithm)
            if successor is not None:
                record = editor.begin_at_once(record, successor)
        followed = (
            one.number > entry.number and one.activates_at == revoked_at
            for one in record.of(entry.algorithm)
        )
        return Revoked(
            record,
            entry.algorithm,
            entry.kid,
            # Whatever signs instead of a key that was active has begun at that very moment.
            was_active=is_alone or any(followed),
            signing=editor.active(record),
            revoked_at=revoked_at,
            is_repeated=True,
        )

    def _revoked_in_memory(self, record: KeyRecord, kid: str) -> Revoked:
        found = next((one for one in self.stated() if one.statement.kid == kid), None)
        if found is None and not (self.has_keys_in_memory and _KEY_ID.fullmatch(kid)):
            raise UnknownKey(f"No key on record has the id {kid!r}.")
        before = next((one for one in record.revoked if one.kid == kid), None)
        revoked = before or RevokedKey(kid, self.now(), self._forgotten_at(found))
        if before is None:
            record = self._pruned(record)
            record = replace(record, revoked=(*record.revoked, revoked))
        told = Revoked(
            record,
            "",
            kid,
            was_active=False,
            signing=None,
            revoked_at=revoked.revoked_at,
            is_repeated=before is not None,
            is_known=False,
        )
        return told if found is None else self._known_in_memory(told, found)

    def _known_in_memory(self, told: Revoked, found: "StatedKey") -> Revoked:
        statement = found.statement
        return replace(
            told,
            algorithm=statement.algorithm,
            was_active=statement.begins_at <= told.revoked_at < found.ended_at,
            signing=self.editor(statement.algorithm).active(told.record),
            replica=statement.replica,
            is_known=True,
        )

    def _forgotten_at(self, found: "StatedKey | None") -> int:
        """When a key of a replica's memory is dead for sure, and need not be remembered as revoked."""
        longest = self.now() + int(LONGEST_STATED_LIFE.total_seconds())
        ends_at = longest if found is None else found.statement.ends_at
        return ends_at + int((self.schedule.keep_published * 2).total_seconds())

    def _settle(self, record: KeyRecord, algorithm: str) -> None:
        """Close off what must not sign any more."""
        lives = self.editor(algorithm).lives(record)
        signs_from = self._signs_from(lives)
        if signs_from == 0:
            return
        gone = frozenset(life.entry.number for life in lives if life.is_gone)
        if self._settled.get(algorithm) != (signs_from, gone):
            self._smith.settle(algorithm, signs_from=signs_from, gone=gone)
            self._settled[algorithm] = (signs_from, gone)

    def _signs_from(self, lives: Sequence[KeyLife]) -> int:
        """
        The lowest number that has still to be able to sign; 0 if nothing is known about that.

        A key that was superseded is closed off once every replica has had the time to follow, and a
        revoked one at once, if another signs instead.
        """
        told_before = self.now() - int(self.schedule.follow.total_seconds())
        followed = [life.entry.number for life in lives if life.entry.has_begun(told_before)]
        active = max((one.entry.number for one in lives if one.state is KeyState.ACTIVE), default=0)
        revoked = [
            life.entry.number
            for life in lives
            if life.state is KeyState.REVOKED and life.entry.number < active
        ]
        return max((0, *followed, *(number + 1 for number in revoked)))


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _newest(record: KeyRecord, algorithm: str) -> int:
    return max((entry.number for entry in record.of(algorithm)), default=0)
