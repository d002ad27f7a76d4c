"""The keys of people's pseudonyms in files, for the processes of one machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.keys.key_files import (
    KeyFileRefused,
    create_private,
    names_in,
    private_directory,
    read_private,
)
from broker.keys.people_text import key_from_text, new_key_text

_SUFFIX: Final = ".key"
_LARGEST_FILE: Final = 128
_MOST_FILES: Final = 4096
_TO_OVERWRITE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class PeopleKeyFiles:
    """
    A directory of keys, each in a file that is named by its period.

    Of several processes that make one key at once, one wins, and all use it. Everything raises
    ``KeyFileRefused`` when the directory or a file in it can be read by others, belongs to somebody else,
    or holds no key.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def obtain(self, period: str) -> bytes:
        with private_directory(self._directory) as folder:
            try:
                return self._read(folder, period)
            except FileNotFoundError:
                path = self._path(period)
                create_private(folder, path.name, content=f"{new_key_text()}\n".encode(), path=path)
            try:
                return self._read(folder, period)
            except FileNotFoundError:
                raise KeyFileRefused(f"{self._path(period)} was removed at once") from None

    def held(self) -> Mapping[str, bytes]:
        if not self._directory.exists():
            return {}
        keys = {}
        with private_directory(self._directory) as folder:
            for name in sorted(names_in(folder), reverse=True)[:_MOST_FILES]:
                # What was interrupted while it was written has a name that begins with a dot.
                if name.endswith(_SUFFIX) and not name.startswith("."):
                    period = name.removesuffix(_SUFFIX)
                    keys[period] = self._read(folder, period)
        return keys

    def destroy(self, period: str) -> bool:
        if not self._directory.exists():
            return False
        with private_directory(self._directory) as folder:
            name = self._path(period).name
            try:
                descriptor = os.open(name, _TO_OVERWRITE, dir_fd=folder)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise self._refused(period, error) from None
            try:
                _overwrite(descriptor)
                os.unlink(name, dir_fd=folder)
                os.fsync(folder)
            except OSError as error:
                raise self._refused(period, error) from None
            finally:
                os.close(descriptor)
        return True

    def _read(self, folder: int, period: str) -> bytes:
        path = self._path(period)
        content, _ = read_private(folder, path.name, path=path, limit=_LARGEST_FILE)
        key = key_from_text(content.decode("ascii", "replace").removesuffix("\n"))
        if key is None:
            raise KeyFileRefused(f"{path} does not hold a key of pseudonyms")
        return key

    def _path(self, period: str) -> Path:
        return self._directory / f"{period}{_SUFFIX}"

    def _refused(self, period: str, error: OSError) -> KeyFileRefused:
        return KeyFileRefused(f"{self._path(period)} cannot be destroyed: {error.strerror}")


def _overwrite(descriptor: int) -> None:
    """Nothing of the key stays where it was, as far as the file system writes in place."""
    size = os.fstat(descriptor).st_size
    os.pwrite(descriptor, b"\n" * min(size, _LARGEST_FILE), 0)
    os.fsync(descriptor)
