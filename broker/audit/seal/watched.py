"""The chains as the sealer sees them: what is new in each, and which do not go on as they were sealed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from broker.audit.chain import MAX_LINE_BYTES, Head, line_hash
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.durable import head_path, read_head
from broker.audit.follow import Follower, Line, Position
from broker.audit.segments import newlines, regular, segment_name

LOOK_AGAIN_SECONDS: Final = 60.0
"""After so long a chain with a fault is looked at again: somebody may have put back what it was."""

_log = structlog.get_logger("broker.audit")


class Chains:
    """
    Follows all chains of a directory and leaves alone those with a fault, which are in ``faults``.

    A fault is told in the log at once, and once. Everything raises ``OSError``. For one thread.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float]) -> None:
        self.faults: dict[str, Fault] = {}
        self._directory = directory
        self._now = now
        self._follower = Follower(directory)
        self._told: dict[str, str] = {}
        self._again_at = now() + LOOK_AGAIN_SECONDS

    @property
    def positions(self) -> Mapping[str, Position]:
        """How far each chain was read."""
        return dict(self._follower.positions)

    def begin(self, positions: Mapping[str, Position]) -> None:
        """Go on from there, and not from where it was."""
        self._follower = Follower(self._directory, positions)
        self.faults = {}

    def writers(self) -> list[str]:
        """Who has a chain or had one, in order."""
        return self._follower.writers()

    def check(self, sealed: Mapping[str, Head], *, is_start: bool = False) -> None:
        """
        Find chains that are not there any more as far as they were sealed.

        At a start the last line that was sealed is read as well.
        """
        self._look_again()
        for writer, head in sealed.items():
            if writer not in self.faults:
                try:
                    fault = self._shortfall(writer, head, is_start=is_start)
                except OSError as error:
                    fault = self._unread(writer, error)
                if fault is not None:
                    self._break(writer, fault)

    def unsealed(self, writer: str, sealed: Head, *, most: int) -> Iterator[Line]:
        """The next lines after those that were sealed; none of a chain in which anything before is wrong."""
        if writer in self.faults or most <= 0:
            return
        given = 0
        for line in self._lines(writer):
            if line.seq >= sealed.seq:
                yield line
                given += 1
                if given == most:
                    return
            elif line.seq == sealed.seq - 1 and line.hash != sealed.prev:
                self._break(writer, self._fault(line, "the record is not the one that was sealed"))
                return
        if writer not in self.faults:
            self._conclude(writer, sealed)

    def leave_out(self, writers: Sequence[str]) -> None:
        """There are too many chains, and these are not sealed: told in the log once, for all together."""
        if not writers:
            return
        sentence = "there are too many chains: it is not sealed"
        faults = {
            writer: Fault(
                Place(self._directory / segment_name(writer, 1), 1), Wrong.FOREIGN, sentence
            )
            for writer in writers
        }
        self.faults = {**self.faults, **faults}
        if any(self._told.get(writer) != sentence for writer in writers):
            _log.critical("audit_too_many_chains", not_sealed=len(writers), first=writers[0])
        self._told.update(dict.fromkeys(writers, sentence))

    def _lines(self, writer: str) -> Iterator[Line]:
        """What is new; a chain that cannot be read keeps none of the others from being sealed."""
        try:
            yield from self._follower.lines(writer)
        except OSError as error:
            self._break(writer, self._unread(writer, error))

    def _unread(self, writer: str, error: OSError) -> Fault:
        number = max(self._follower.positions.get(writer, Position()).number, 1)
        path = Path(error.filename or self._directory / segment_name(writer, number))
        return Fault(Place(path, 1), Wrong.MISSING, f"it cannot be read: {error.strerror}")

    def _conclude(self, writer: str, sealed: Head) -> None:
        """All of a chain was read: is it all that there was?"""
        position = self._follower.positions.get(writer, Position())
        short = self._follower.short.get(writer)
        fault = self._follower.faults.get(writer)
        if fault is None and position.head.seq < sealed.seq:
            fault = self._short(writer, position, f"{sealed.seq} were sealed")
        elif fault is None and short is not None:
            fault = self._short(writer, position, f"its writer has told of {short.seq}")
        if fault is not None:
            self._break(writer, fault)
        elif self._told.pop(writer, None) is not None:
            _log.warning("audit_chain_whole_again", writer=writer)

    def _shortfall(self, writer: str, sealed: Head, *, is_start: bool) -> Fault | None:
        position = self._follower.positions.get(writer, Position())
        if position.head.seq < sealed.seq:
            # It is read from there until what was sealed, and then it shows.
            return None
        path = self._directory / segment_name(writer, position.number)
        fault = _changed_below(path, position, sealed, is_start=is_start)
        told = read_head(self._directory, writer)
        if fault is None and told is not None and _is_before(told, sealed):
            place = Place(head_path(self._directory, writer), 1)
            sentence = f"its writer goes on from seq {told.seq}, but {sealed.seq} were sealed"
            return Fault(place, Wrong.TRUNCATED, sentence)
        return fault

    def _short(self, writer: str, position: Position, told: str) -> Fault:
        place = Place(self._directory / segment_name(writer, max(position.number, 1)), 1)
        return Fault(
            place, Wrong.TRUNCATED, f"the chain has {position.head.seq} records, but {told}"
        )

    def _fault(self, line: Line, sentence: str) -> Fault:
        path = self._directory / segment_name(line.writer, line.number)
        with open(path, "rb", opener=regular) as file:
            number = newlines(file, 0, line.offset) + 1
        return Fault(Place(path, number), Wrong.CHANGED, sentence)

    def _break(self, writer: str, fault: Fault) -> None:
        # Other threads read this, so that what they have does not change under them.
        self.faults = {**self.faults, writer: fault}
        if self._told.get(writer) != str(fault):
            self._told[writer] = str(fault)
            _log.critical(
                "audit_chain_broken",
                writer=writer,
                file=fault.place.file.name,
                line=fault.place.line,
                wrong=fault.wrong.value,
                fault=fault.sentence,
            )

    def _look_again(self) -> None:
        now = self._now()
        if not self.faults:
            self._again_at = now + LOOK_AGAIN_SECONDS
        elif not self._again_at - LOOK_AGAIN_SECONDS <= now < self._again_at:
            self._again_at = now + LOOK_AGAIN_SECONDS
            for writer in self.faults:
                self._follower.faults.pop(writer, None)
            self.faults = {}


def _changed_below(path: Path, position: Position, sealed: Head, *, is_start: bool) -> Fault | None:
    """What is wrong with the segment in which the chain was sealed last."""
    place = Place(path, 1)
    if position.head != sealed:
        return Fault(
            place,
            Wrong.CHANGED,
            f"the record with seq {sealed.seq - 1} is not the one that was sealed",
        )
    if not path.is_file():
        return Fault(place, Wrong.MISSING, "the segment was sealed and is gone")
    if path.stat().st_size < position.offset:
        return Fault(
            place, Wrong.TRUNCATED, "the segment is shorter than it was when it was sealed"
        )
    if is_start and _hash_before(path, position.offset) != sealed.prev:
        return Fault(place, Wrong.CHANGED, "the last record that was sealed is another now")
    return None


def _is_before(told: Head, sealed: Head) -> bool:
    return told.seq < sealed.seq or (told.seq == sealed.seq and told.prev != sealed.prev)


def _hash_before(path: Path, offset: int) -> str:
    """The hash of the line of a file that ends at a byte."""
    with open(path, "rb", opener=regular) as file:
        start = max(offset - MAX_LINE_BYTES - 1, 0)
        file.seek(start)
        data = file.read(offset - start)
    return line_hash(data[data.rfind(b"\n", 0, -1) + 1 : -1])
