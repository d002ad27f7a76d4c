"""How far a sink has come in each chain, remembered across restarts."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker.audit.chain import Head
from broker.audit.follow import Position
from broker.audit.segments import regular

_LINE: Final = re.compile(
    rb"([0-9]{20}) ([0-9]{10}) ([0-9]{20}) ([0-9]{20}) ([0-9a-f]{64}) ([0-9a-f]{16})\n"
)
_BYTES: Final = 156


@dataclass(frozen=True, slots=True)
class Reached:
    """Everything of a chain from the record with number ``since`` on, up to the position, was taken."""

    since: int
    position: Position


def read_reached(path: Path) -> Reached | None:
    """What a file says, or ``None`` where it says nothing or was left half written."""
    try:
        with open(path, "rb", opener=regular) as file:
            told = file.read(_BYTES + 1)
    except OSError:
        return None
    found = _LINE.fullmatch(told)
    if found is None or _sum(told[:138]) != found[6]:
        return None
    since, number, offset, seq = map(int, found.groups()[:4])
    return Reached(since, Position(number, offset, Head(seq, found[5].decode())))


class ReachedFile:
    """
    The word about one chain and one sink, kept by one process.

    When it is lost or behind, records are given twice; never does it say too much.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def tell(self, reached: Reached, *, is_synced: bool = False) -> None:
        """Replace what the file says; what cannot be written now is left out."""
        position = reached.position
        told = b"%020d %010d %020d %020d %s" % (
            reached.since,
            position.number,
            position.offset,
            position.head.seq,
            position.head.prev.encode(),
        )
        with suppress(OSError):
            if self._descriptor < 0:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                flags |= os.O_CLOEXEC
                self._descriptor = os.open(self._path, flags, 0o600)
            os.pwrite(self._descriptor, b"%s %s\n" % (told, _sum(told)), 0)
            if is_synced:
                os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file; what it says stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def reached_path(directory: Path, *, sink: str, writer: str, by: str) -> Path:
    """Where it is remembered; ``by`` is ``writer`` or ``shipper``."""
    return directory / "sinks" / f"{sink}.{writer}.{by}"


def _sum(told: bytes) -> bytes:
    return sha256(told).hexdigest()[:16].encode()
