"""How far a chain is durable: told by its writer after each sync, for those who read while it writes."""

import os
import re
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from broker.audit.chain import Head
from broker.audit.segments import is_same_file, regular

_TOLD: Final = re.compile(rb"([0-9]{20}) ([0-9a-f]{64}) ([0-9a-f-]{1,64}) ([0-9a-f]{16})\n")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES: Final = 168


def head_path(directory: Path, writer: str) -> Path:
    """The file in which a writer tells how far its chain is durable."""
    return directory / f"{writer}.head"


def read_head(directory: Path, writer: str, *, of_any_boot: bool = False) -> Head | None:
    """
    Where the durable part of a chain ended when its writer told it last, or ``None`` when that is unknown.

    Lines beyond it may be readable and yet be disowned, when the disk did not take them.
    """
    try:
        # Nobody but a writer that is being killed leaves it half written, and its sum tells.
        with open(head_path(directory, writer), "rb", opener=regular) as file:
            told = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    found = _TOLD.fullmatch(told)
    if found is None or _sum(told.rpartition(b" ")[0]) != found[4]:
        return None
    if found[3] != _boot() and not of_any_boot:
        # It is not synced: what it was when the machine stopped, nobody knows.
        return None
    return Head(int(found[1]), found[2].decode())


class DurableHead:
    """
    The word of a writer about its own chain. It is no evidence, and is not synced.

    What cannot be told is left out: those who read are then behind, and nothing else.
    """

    def __init__(self, directory: Path, *, writer: str) -> None:
        self._path = head_path(directory, writer)
        self._descriptor = -1

    def begin(self, head: Head) -> None:
        """The same before anything is written; without it readers would take what was not synced."""
        told = b"%020d %s %s" % (head.seq, head.prev.encode(), _boot())
        if self._descriptor >= 0 and not is_same_file(self._descriptor, self._path):
            self.close()
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, 0o600)
        os.pwrite(self._descriptor, b"%s %s\n" % (told, _sum(told)), 0)

    def tell(self, head: Head) -> None:
        """All records before ``head`` are on disk."""
        with suppress(OSError):
            self.begin(head)

    def close(self) -> None:
        """Let go of the file; what it says stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@cache
def _boot() -> bytes:
    """Which run of the machine this is."""
    try:
        return _BOOT_ID.read_bytes().strip()[:64]
    except OSError:
        return b"-"


def _sum(told: bytes) -> bytes:
    return sha256(told).hexdigest()[:16].encode()
