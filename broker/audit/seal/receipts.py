"""Receipts: what a token tells of the record of its issue, and whether that record is there."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from broker.audit.chain import decode_link
from broker.audit.diagnosis import Fault, Place, Wrong
from broker.audit.reader import Report
from broker.audit.record import ID_LIMIT
from broker.audit.segments import WRITER, find_segments, segment_name
from broker.audit.verify import Extent, chain_extents

MOST_BETWEEN: Final = 100_000
"""So many records at most are written between the number that a receipt tells and its own record."""

LATEST: Final = 60.0
"""So many seconds at most after the ``iat`` of a token its record is on disk, or the token never left."""

_RECEIPT: Final = re.compile(
    rf"([!-~]{{1,{ID_LIMIT}}})@([0-9a-f]{{16}})/({WRITER.pattern})/(0|[1-9][0-9]{{0,17}})", re.ASCII
)
_LONGEST: Final = 65_536


class ReceiptRefused(ValueError):
    """A text is no receipt, or a token has none; the sentence says which."""


class SealedUntil(Protocol):
    """What is asked here of what checkpoints show."""

    @property
    def origin(self) -> str: ...

    @property
    def at(self) -> float: ...


class _Claims(Struct):
    txn: str = ""
    iat: float = 0
    jti: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    The record of an event is in the log ``log_id``, in the chain of ``writer``, at number ``seq`` or after.

    ``issued_at`` is when the token was issued, in unix seconds, or 0 when that is not known.
    """

    event_id: str
    log_id: str
    writer: str
    seq: int
    issued_at: float = 0
    jti: str = ""

    @classmethod
    def read(cls, text: str) -> "Receipt":
        """
        The receipt in a text or in the ``txn`` claim of a token, whose signature is not looked at.

        Raises ``ReceiptRefused``.
        """
        found = _RECEIPT.fullmatch(text)
        if found is not None:
            return cls(found[1], found[2], found[3], int(found[4]))
        claims = _claims(text)
        found = _RECEIPT.fullmatch(claims.txn)
        if found is None:
            raise ReceiptRefused("the token has no receipt in its txn claim")
        return cls(found[1], found[2], found[3], int(found[4]), claims.iat, claims.jti)

    @property
    def text(self) -> str:
        """The receipt in one word."""
        return f"{self.event_id}@{self.log_id}/{self.writer}/{self.seq}"


@dataclass(frozen=True, slots=True)
class Seen:
    """A receipt, and whether its record is there: ``None`` when that cannot be told from what there is."""

    receipt: Receipt
    is_there: bool | None
    sentence: str
    fault: Fault | None = None


def look_for(directory: Path, receipt: Receipt, report: Report, sealed: SealedUntil | None) -> Seen:
    """
    Whether the record of a receipt is in a log that was verified; where it should be and is not, a fault.

    Raises ``OSError``.
    """
    log = sealed.origin.rpartition("/")[2] if sealed is not None else ""
    if log and log != receipt.log_id:
        return Seen(receipt, None, f"it is of the log {receipt.log_id}, and this is {log}")
    place = find_event(directory, receipt)
    if place is not None:
        return Seen(receipt, True, f"its record is there: {place.file.name}:{place.line}")
    if not _must_be_there(receipt, report, sealed):
        told = (
            "its record is not there, and may be younger than what is: ask again with a newer copy"
        )
        return Seen(receipt, None, told)
    segments = find_segments(directory).get(receipt.writer, {})
    last = next(reversed(segments.values()), directory / segment_name(receipt.writer, 1))
    sentence = (
        f"the record {receipt.event_id} is missing: a token was issued for it that tells it to be "
        f"number {receipt.seq} of this chain or a later one"
    )
    return Seen(receipt, False, sentence, Fault(Place(last, 1), Wrong.MISSING, sentence))


def _must_be_there(receipt: Receipt, report: Report, sealed: SealedUntil | None) -> bool:
    """Whether the log goes on long enough after a token was issued that its record has to be in it."""
    chains = [one for one in report.chains if one.writer == receipt.writer]
    if any(one.records > receipt.seq + MOST_BETWEEN for one in chains):
        return True
    if not receipt.issued_at:
        return False
    times = [seconds_of(one.last_time) for one in chains]
    newest = max([*times, 0.0 if sealed is None else sealed.at])
    return newest > receipt.issued_at + LATEST


def seconds_of(time: str) -> float:
    """What a record says that its time is; a hostile one says nothing."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def find_event(directory: Path, receipt: Receipt) -> Place | None:
    """
    The record that a receipt is of, at its number or after, but not further than it can be.

    Raises ``OSError``.
    """
    segments = find_segments(directory).get(receipt.writer, {})
    quoted = msgspec.json.encode(receipt.event_id)
    for extent in _from(chain_extents(segments), receipt.seq):
        for number, line in enumerate(extent.lines(), start=1):
            if quoted not in line or not _is_of(line, receipt):
                continue
            link = decode_link(line[:-1])
            if link is not None and receipt.seq <= link.seq <= receipt.seq + MOST_BETWEEN:
                return Place(extent.path, number)
    return None


def _from(extents: Sequence[Extent], seq: int) -> Sequence[Extent]:
    """The segments that may have a record of this number or a later one."""
    begins: Mapping[int, int] = {
        index: opening.seq
        for index, extent in enumerate(extents)
        if (opening := decode_link(next(extent.lines(), b"")[:-1])) is not None
    }
    first = max((index for index, begin in begins.items() if begin <= seq), default=0)
    return extents[first:]


class _Named(Struct):
    event_id: str
    jti: str = ""


def _is_of(line: bytes, receipt: Receipt) -> bool:
    """Whether a line is the record of an event, and of the very token where that is known."""
    try:
        found = msgspec.json.decode(line, type=_Named)
    except (ValueError, RecursionError):
        return False
    return found.event_id == receipt.event_id and receipt.jti in ("", found.jti)


def _claims(text: str) -> _Claims:
    parts = text.split(".")
    if len(text) > _LONGEST or len(parts) != 3:
        raise ReceiptRefused("that is neither a receipt nor a token")
    try:
        body = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(body, type=_Claims)
    except (binascii.Error, ValueError, RecursionError):
        raise ReceiptRefused("that is neither a receipt nor a token") from None
