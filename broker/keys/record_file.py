"""The record of the keys in a file, for the processes of one machine."""

import fcntl
import json
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from broker.keys.key_files import (
    KeyFileRefused,
    private_directory,
    read_private,
    write_private,
)
from broker.keys.record import (
    HeldRecord,
    KeyRecord,
    RecordFull,
    RecordUnreadable,
    writable_members,
)
from broker.strict_json import StrictJsonError, loads_strict

_LARGEST: Final = 65_536
_LOCK_SECONDS: Final = 5.0


class FileRecord:
    """
    The record in the directory of the embedded keys, replaced as a whole.

    Writers hold a lock on the directory, so that one of them is first. Raises ``KeyFileRefused`` when
    the directory or the file is not safe to use, and when the file does not hold a record: then
    somebody has to restore it, since what it said about revoked keys must not be forgotten.
    """

    NAME: ClassVar[str] = "record.json"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / self.NAME

    def read(self) -> HeldRecord:
        with private_directory(self._directory) as folder:
            return self._read(folder)

    def write(self, record: KeyRecord, *, over: int) -> bool:
        members = writable_members(record)
        with private_directory(self._directory) as folder:
            self._lock(folder)
            if self._read(folder).version != over:
                return False
            self._replace(folder, {"version": over + 1, **members})
        return True

    def _lock(self, folder: int) -> None:
        """Be the only writer until the directory is closed."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise KeyFileRefused(f"{self._path} is held by another process") from None
                time.sleep(0.01)
            else:
                return

    def _read(self, folder: int) -> HeldRecord:
        try:
            raw, _ = read_private(folder, self.NAME, path=self._path, limit=_LARGEST + 1)
        except FileNotFoundError:
            return HeldRecord(KeyRecord(), 0)
        try:
            members = loads_strict(raw) if len(raw) <= _LARGEST else None
            return _held(members)
        except (StrictJsonError, RecordUnreadable):
            raise KeyFileRefused(f"{self._path} does not hold a record of keys") from None

    def _replace(self, folder: int, members: dict[str, Any]) -> None:
        draft = f".{self.NAME}.{secrets.token_hex(8)}"
        content = json.dumps(members, indent=1).encode("ascii")
        if len(content) > _LARGEST:
            raise RecordFull(f"Nothing was changed: {self._path} would be too long to be read.")
        try:
            write_private(folder, draft, content=content)
            os.replace(draft, self.NAME, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            raise KeyFileRefused(f"{self._path} cannot be written: {error.strerror}") from None
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=folder)


def _held(members: object) -> HeldRecord:
    if not isinstance(members, dict):
        raise RecordUnreadable("the record of the keys is not one")
    version = members.pop("version", None)
    if type(version) is not int or version < 1:
        raise RecordUnreadable("the record of the keys has no version")
    return HeldRecord(KeyRecord.of_members(members), version)
