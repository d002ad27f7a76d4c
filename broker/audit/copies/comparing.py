"""A copy that somebody else kept, compared with the log record by record."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from broker.audit.chain import NOT_A_LINK, encode, line_hash
from broker.audit.copies.outcome import ChainComparison, Comparison, Finding, Finds
from broker.audit.copies.reading import Copied, Copy, NoRecord, opened
from broker.audit.copies.standing import UNMARKED, Standing, StandingLog, read_log
from broker.audit.copies.whose import Whose
from broker.audit.diagnosis import Place
from broker.audit.record import Record
from broker.audit.seal.chains import Progress
from broker.audit.telling.words import counted

MOST_TOLD: Final = 10
"""So many findings of each kind are told one by one; all are counted."""
MOST_CHAINS: Final = 512
"""So many chains that the log does not have are told by their names."""

_RECEIVED: Final = 1
_CHANGED: Final = 2
_TELLS_EVERY: Final = 4096
_MEMBERS: Final = frozenset(Record.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What is expected of a copy.

    One that ``is_complete`` has every chain, and every record of it from the first one that it has to the
    last. One that ``is_mixed`` has records of other logs as well.
    """

    is_complete: bool = False
    is_mixed: bool = False


def compare_copies(
    directory: Path,
    copies: Sequence[Path],
    expected: Expected,
    *,
    processes: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """
    Compare the log in a directory with copies that are one together.

    Each of them is a stream that is read once, and of the log 33 bytes are kept for each record. The copies
    are opened first: what comes to a log that is at work after its copy was made is no fault. More
    ``processes`` are for programs without threads. Raises ``CopyPacked`` and ``OSError``.
    """
    with ExitStack() as stack:
        sources = [stack.enter_context(opened(path)) for path in copies]
        course = _Course(sum(one.size for one in sources), progress)
        log = read_log(directory, processes=processes, progress=course.log)
        work = _Work(log, expected)
        for source in sources:
            work.read(source, course)
    return work.outcome()


class _Course:
    """Tells how far the whole of it has come: through the log first, and then through the copies."""

    def __init__(self, copied: int, progress: Progress | None) -> None:
        self._progress = progress
        self._copied = copied
        self._log = 0
        self._read = 0

    def log(self, walked: int, whole: int) -> None:
        self._log = whole
        self._tell(walked)

    def copy(self, size: int) -> None:
        self._read += size
        self._tell(self._log + self._read)

    def _tell(self, done: int) -> None:
        if self._progress is not None:
            # Nobody knows how much will come out of a pipe.
            self._progress(done, self._log + max(self._copied, self._read))


@dataclass(slots=True)
class _Tally:
    """What was seen of one chain."""

    in_copy: int = 0
    wrong: Counter[Finds] = field(default_factory=Counter)
    first: int | None = None
    last: int | None = None


class _Work:
    """A comparison on its way."""

    def __init__(self, log: StandingLog, expected: Expected) -> None:
        self._log = log
        self._expected = expected
        self._whose = Whose(log.log_id)
        self._tallies = {name: _Tally() for name in log.chains}
        self._counts: Counter[str] = Counter()
        self._told: dict[Finds, list[Finding]] = {kind: [] for kind in Finds}
        self._foreign: dict[str, Finding] = {}
        # Where the first record of a chain was met that the log does not have.
        self._gone: dict[str, Place] = {}
        self._unread: list[str] = []

    def read(self, copy: Copy, course: _Course) -> None:
        """Compare every record of a copy. This loop runs once for each of its lines."""
        size = 0
        for number, (length, entry) in enumerate(copy.entries(), start=1):
            size += length
            if not number % _TELLS_EVERY:
                course.copy(size)
                size = 0
            if isinstance(entry, Copied):
                self._compare(entry, copy.name, number)
            elif entry is not None:
                self._pass_over(entry, Place(copy.name, number))
        course.copy(size)

    def _pass_over(self, entry: NoRecord, place: Place) -> None:
        self._counts["unread"] += 1
        if len(self._unread) < MOST_TOLD:
            self._unread.append(f"{place.file}:{place.line}: {entry}")

    def _compare(self, found: Copied, name: Path, number: int) -> None:
        self._counts["records"] += 1
        self._counts["by_hash"] += not found.line
        chain = self._log.chains.get(found.writer)
        known = None if chain is None else chain.hash_of(found.seq)
        if chain is None or known is None:
            self._look_into(found, chain, None, Place(name, number))
        elif known == found.hash:
            self._whose.met(found)
            self._receive(chain, found.seq, "matching")
        elif _says_the_same(found, known):
            self._receive(chain, found.seq, "rewritten")
        else:
            self._look_into(found, chain, known, Place(name, number))

    def _receive(self, chain: Standing, seq: int, how: str) -> None:
        is_new = chain.marks[seq] != _RECEIVED
        self._counts[how if is_new else "repeated"] += 1
        if is_new:
            self._mark(chain, seq, _RECEIVED)

    def _mark(self, chain: Standing, seq: int, mark: int) -> None:
        tally = self._tallies[chain.writer]
        tally.in_copy += chain.marks[seq] == UNMARKED
        tally.first = seq if tally.first is None else min(tally.first, seq)
        tally.last = seq if tally.last is None else max(tally.last, seq)
        chain.marks[seq] = mark

    def _look_into(
        self, found: Copied, chain: Standing | None, known: bytes | None, place: Place
    ) -> None:
        """What the log does not have: it is of another one, or else it was there."""
        before = chain.hash_of(found.seq - 1) if chain is not None and found.seq else None
        other = self._whose.other_log(found, before)
        if other:
            if self._whose.count(other):
                sentence = f"{_name(found)} is of another log, {other}{self._own}"
                self._foreign[other] = Finding(Finds.FOREIGN, sentence, place)
            return
        kind = _kind(found, before, known)
        self._counts[kind] += 1
        is_first = self._blame(found.writer, kind)
        if chain is not None and known is not None and chain.marks[found.seq] == UNMARKED:
            self._mark(chain, found.seq, _CHANGED)
        if chain is None:
            if is_first and len(self._gone) < MOST_TOLD:
                self._gone[found.writer] = place
        elif is_first or kind is not Finds.RELINKED:
            # All that come after a changed record are relinked.
            self._tell(kind, _sentence(found, kind, chain), place)

    @property
    def _own(self) -> str:
        """The name of this log behind that of another, where it has one."""
        return f"; this one is {self._log.log_id}" if self._log.log_id else ""

    @property
    def _named(self) -> str:
        """The name of this log behind a word for it, where it has one."""
        return f", {self._log.log_id}" if self._log.log_id else ""

    @property
    def _has_ours(self) -> bool:
        """Whether anything in the copy is of this log."""
        return bool(self._counts["matching"] or self._counts["rewritten"])

    def _blame(self, writer: str, kind: Finds) -> bool:
        """
        Count it for its chain; whether it is the first of its kind there.

        A copy can name more chains than anybody could remember.
        """
        if len(self._tallies) < len(self._log.chains) + MOST_CHAINS:
            self._tallies.setdefault(writer, _Tally())
        tally = self._tallies.get(writer)
        if tally is None:
            return False
        tally.wrong[kind] += 1
        return tally.wrong[kind] == 1

    def _tell(self, kind: Finds, sentence: str, place: Place | None) -> None:
        told = self._told[kind]
        if len(told) < MOST_TOLD:
            told.append(Finding(kind, sentence, place))

    def outcome(self) -> Comparison:
        """What came of it, once all copies were read."""
        chains = [self._chain(name, self._tallies[name]) for name in sorted(self._tallies)]
        counts = self._counts
        for one in chains:
            self._look_for_lost(one)
        return Comparison(
            records=counts["records"],
            matching=counts["matching"],
            rewritten=counts["rewritten"],
            repeated=counts["repeated"],
            changed=counts[Finds.CHANGED],
            relinked=counts[Finds.RELINKED],
            missing=counts[Finds.MISSING],
            foreign=self._whose.foreign,
            by_hash=counts["by_hash"],
            lost=sum(one.lost for one in chains),
            unread=counts["unread"],
            log_id=self._log.log_id,
            other_logs=self._whose.others,
            chains=chains,
            faults=[*self._faults()],
            remarks=[*self._remarks()],
        )

    def _chain(self, writer: str, tally: _Tally) -> ChainComparison:
        chain = self._log.chains.get(writer)
        lost = 0
        if chain is not None and tally.first is not None and tally.last is not None:
            lost = chain.marks.count(UNMARKED, tally.first, tally.last + 1)
        return ChainComparison(
            writer=writer,
            in_log=0 if chain is None else chain.records,
            in_copy=tally.in_copy,
            first=tally.first,
            last=tally.last,
            changed=tally.wrong[Finds.CHANGED],
            relinked=tally.wrong[Finds.RELINKED],
            missing=tally.wrong[Finds.MISSING],
            lost=lost,
            has_fault=chain is not None and chain.fault is not None,
        )

    def _look_for_lost(self, one: ChainComparison) -> None:
        chain = self._log.chains.get(one.writer)
        if chain is None or not one.in_log:
            return
        if one.first is None or one.last is None:
            # Of a copy of another log that goes without saying.
            if self._has_ours or not self._whose.foreign:
                which = (
                    "its only record" if one.in_log == 1 else f"none of its {one.in_log} records"
                )
                is_there = "is not" if one.in_log == 1 else "is"
                self._tell(Finds.LOST, f"{one.writer}: {which} {is_there} in the copy", None)
            return
        for first, last in _runs(chain.marks, one.first, one.last):
            if len(self._told[Finds.LOST]) >= MOST_TOLD:
                return
            numbers = f"{first}" if first == last else f"{first} to {last}"
            self._tell(
                Finds.LOST,
                f"{one.writer}/{numbers} in the log, not in the copy",
                chain.place(first),
            )

    def _faults(self) -> Iterator[Finding]:
        for fault in self._log.faults:
            yield Finding(fault.wrong, fault.sentence, fault.place)
        for kind in (Finds.CHANGED, Finds.RELINKED, Finds.MISSING):
            yield from self._told[kind]
        for writer, place in self._gone.items():
            count = counted(self._tallies[writer].wrong[Finds.MISSING], "record")
            sentence = f"the log has no chain {writer}: {count} of it in the copy"
            yield Finding(Finds.MISSING, sentence, place)
        yield from self._foreigners()
        if self._expected.is_complete:
            yield from self._told[Finds.LOST]

    def _foreigners(self) -> Iterator[Finding]:
        """What of the copy is of other logs, where that is a fault."""
        mistaken = self._whose.mistaken
        for name, finding in self._foreign.items():
            if not self._expected.is_mixed or name in mistaken:
                yield finding
        if self._expected.is_mixed and self._whose.foreign and not self._has_ours:
            yield Finding(Finds.FOREIGN, f"no record of the copy is of this log{self._named}")
        elif self._expected.is_mixed and (doubt := self._whose.doubt):
            yield Finding(Finds.FOREIGN, doubt)

    def _newer(self) -> int:
        """How many records of the log come after the last that the copy has of their chain."""
        return sum(
            chain.marks.count(UNMARKED, last + 1)
            for name, chain in self._log.chains.items()
            if (last := self._tallies[name].last) is not None
        )

    def _remarks(self) -> Iterator[str]:
        counts = self._counts
        yield from self._how_received()
        if self._expected.is_mixed:
            for name, count in self._whose.others.items():
                are = "is" if count == 1 else "are"
                yield f"{counted(count, 'record')} {are} of another log, {name or 'one of many'}"
        if not self._expected.is_complete:
            yield from (str(one) for one in self._told[Finds.LOST])
        elif newer := self._newer():
            are = "is" if newer == 1 else "are"
            yield f"{counted(newer, 'record')} of the log {are} newer than the copy"
        if counts["unread"]:
            are = "is no record" if counts["unread"] == 1 else "are no records, the first"
            yield f"{counted(counts['unread'], 'line')} {are}:"
            yield from self._unread

    def _how_received(self) -> Iterator[str]:
        repeated, rewritten, by_hash = (
            self._counts[name] for name in ("repeated", "rewritten", "by_hash")
        )
        if repeated:
            may = "it" if repeated == 1 else "they"
            yield f"{counted(repeated, 'record')} came more than once, as {may} may"
        if rewritten:
            say, them = ("says", "it") if rewritten == 1 else ("say", "them")
            told = f"{say} the same in other bytes: somebody wrote {them} anew"
            yield f"{counted(rewritten, 'record')} {told}"
        if by_hash:
            were = "was" if by_hash == 1 else "were"
            yield f"{counted(by_hash, 'record')} {were} compared by the hash that the copy has"


def _name(found: Copied) -> str:
    return f"{found.writer}/{found.seq}"


def _kind(found: Copied, before: bytes | None, known: bytes | None) -> Finds:
    """What has become of a record of the log: ``before`` and ``known`` are what it has there now."""
    if known is None:
        return Finds.MISSING
    if before is not None and found.prev:
        was, now = (b'"prev":"%s"' % prev.encode() for prev in (found.prev, before.hex()))
        if line_hash(found.line.replace(was, now)) == known.hex():
            return Finds.RELINKED
    return Finds.CHANGED


def _sentence(found: Copied, kind: Finds, chain: Standing) -> str:
    if kind is Finds.MISSING:
        end = f", whose chain ends with {chain.numbers - 1}" if found.seq >= chain.numbers else ""
        return f"{_name(found)} is not in the log{end}"
    place = chain.place(found.seq)
    where = f", {place.file.name}:{place.line}" if place is not None else ""
    if kind is Finds.RELINKED:
        return f"{_name(found)} came after another record than it does in the log{where}"
    return f"{_name(found)} is another record in the log{where}"


def _says_the_same(found: Copied, known: bytes) -> bool:
    """Whether the line, written as we write it and without members of others, is the one in the log."""
    if not found.line:
        return False
    try:
        members = msgspec.json.decode(found.line, type=dict)
        ours = {name: value for name, value in members.items() if name in _MEMBERS}
        return line_hash(encode(msgspec.convert(ours, Record))) == known.hex()
    except NOT_A_LINK:
        return False


def _runs(marks: bytearray, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The numbers between the two, the ends of each run of them, that nobody has marked."""
    start = marks.find(UNMARKED, first, last + 1)
    while start >= 0:
        end = start
        while end < last and marks[end + 1] == UNMARKED:
            end += 1
        yield start, end
        start = marks.find(UNMARKED, end + 1, last + 1)
