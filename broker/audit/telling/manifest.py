"""The manifest of an export: what was asked for and what was given, as a note that the audit key signs."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

from broker.audit.notes import NoteKey, open_note, signed_note
from broker.audit.query import Query

TITLE: Final = "broker audit export v1"
"""The first line. It has blanks, which no checkpoint begins with, so that neither passes for the other."""

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NAMES: Final = (
    "origin",
    "format",
    "query",
    "count",
    "first",
    "last",
    "file",
    "size",
    "sha256",
    "checkpoint",
    "unread",
    "time",
    "by",
)
_NOTHING: Final = "none"


class ManifestRefused(ValueError):
    """A text is no manifest, or not that of the file; the sentence says why."""


class ManifestSigner(Protocol):
    """Whoever signs the checkpoints of the log signs manifests by the same key."""

    def key_after(self, before: NoteKey | None, /) -> NoteKey:
        """The key to sign with."""
        ...

    def sign(self, text: bytes, *, key: NoteKey) -> bytes:
        """The signature of a text by the key. Raises ``TemporarilyUnavailable``."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """One record of an export: its writer, its number in the chain, and the hash of its line in hex."""

    writer: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The checkpoint that an export stands under: its digest, and how many records it is over."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """
    What an export is.

    ``query`` is JSON, as ``query_text`` writes it. ``first`` and ``last`` are the records at the ends of
    the file, ``size`` is in bytes, ``sha256`` in hex and over the whole file. ``origin`` names the log, and
    is empty for one without a name. ``unread`` tells by the names of writers or files what could not be
    read and so is not in the export. ``time`` is RFC 3339 in UTC. Raises ``ManifestRefused``.
    """

    origin: str
    format: str
    query: str
    count: int
    first: Mark | None
    last: Mark | None
    file: str
    size: int
    sha256: str
    checkpoint: Standing | None
    unread: Mapping[str, str]
    time: str
    by: str

    def __post_init__(self) -> None:
        _check(_HASH.fullmatch(self.sha256), "its hash is none")
        _check(
            (self.count > 0) == (self.first is not None), "it has no first record, or one too many"
        )
        _check(
            (self.count > 0) == (self.last is not None), "it has no last record, or one too many"
        )
        _check(self.file and "/" not in self.file, "its file is not one beside it")
        _check(self.file.strip(".") and "\0" not in self.file, "its file has no name")
        for mark in (self.first, self.last):
            _check(mark is None or _HASH.fullmatch(mark.hash), "a record has no hash")

    @property
    def text(self) -> str:
        """The manifest as it is signed."""
        values = (
            json.dumps(self.origin),
            json.dumps(self.format),
            self.query,
            str(self.count),
            _mark_text(self.first),
            _mark_text(self.last),
            json.dumps(self.file),
            str(self.size),
            self.sha256,
            _standing_text(self.checkpoint),
            json.dumps(dict(self.unread), sort_keys=True),
            json.dumps(self.time),
            json.dumps(self.by),
        )
        lines = [f"{name} {value}" for name, value in zip(_NAMES, values, strict=True)]
        return "".join(f"{line}\n" for line in (TITLE, *lines))

    @classmethod
    def read(cls, text: str) -> "Manifest":
        """The manifest in a text, which can be written in one way alone. Raises ``ManifestRefused``."""
        title, *lines = text.split("\n")
        _check(title == TITLE and len(lines) == len(_NAMES) + 1, "it is no manifest of an export")
        told = {}
        for name, line in zip(_NAMES, lines, strict=False):
            kind, _, told[name] = line.partition(" ")
            _check(kind == name, f"it does not say what its {name} is")
        found = cls(
            origin=_string(told["origin"]),
            format=_string(told["format"]),
            query=told["query"],
            count=_number(told["count"]),
            first=_mark(told["first"]),
            last=_mark(told["last"]),
            file=_string(told["file"]),
            size=_number(told["size"]),
            sha256=told["sha256"],
            checkpoint=_standing(told["checkpoint"]),
            unread=_strings(told["unread"]),
            time=_string(told["time"]),
            by=_string(told["by"]),
        )
        _check(found.text == text, "its lines are not written as they should be")
        return found

    def signed(self, signer: ManifestSigner, *, before: NoteKey | None = None) -> str:
        """
        The manifest as a signed note, by the key that has signed ``before`` where that still signs.

        Raises ``TemporarilyUnavailable``.
        """
        key = signer.key_after(before)
        return signed_note(self.text, key, lambda data: signer.sign(data, key=key))


def opened(note: str, keys: Sequence[NoteKey]) -> Manifest:
    """
    The manifest in a note that one of the keys has signed.

    Raises ``NoteRefused`` and ``ManifestRefused``.
    """
    told = Manifest.read(open_note(note, keys))
    _check(any(key.name == told.origin for key in keys), f"it is of another log, {told.origin}")
    open_note(note, [key for key in keys if key.name == told.origin])
    return told


def query_text(query: Query) -> str:
    """The filters of a query that say anything, as JSON in ASCII on one line."""
    told = {one.name: getattr(query, one.name) for one in fields(query)}
    said = {name: value for name, value in told.items() if value not in (None, ())}
    return json.dumps(said, sort_keys=True, ensure_ascii=True)


def _mark_text(mark: Mark | None) -> str:
    return _NOTHING if mark is None else f"{mark.hash} {mark.seq} {json.dumps(mark.writer)}"


def _mark(text: str) -> Mark | None:
    if text == _NOTHING:
        return None
    digest, seq, writer = [*text.split(" ", 2), "", ""][:3]
    return Mark(_string(writer), _number(seq), digest)


def _standing_text(standing: Standing | None) -> str:
    return _NOTHING if standing is None else f"{standing.digest} {standing.size}"


def _standing(text: str) -> Standing | None:
    if text == _NOTHING:
        return None
    digest, _, size = text.partition(" ")
    _check(_HASH.fullmatch(digest), "its checkpoint has no digest")
    return Standing(digest, _number(size))


def _string(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ManifestRefused("what should be text is none")
    return found


def _strings(text: str) -> Mapping[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise ManifestRefused("what should be names and sentences is not")
    return found


def _number(text: str) -> int:
    _check(_NUMBER.fullmatch(text), "what should be a number is none")
    return int(text)


def _check(is_right: object, sentence: str) -> None:
    if not is_right:
        raise ManifestRefused(sentence)
