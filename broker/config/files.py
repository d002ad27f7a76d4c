"""The files that settings name: key sets that are read at once, and secrets that nobody else may read."""

import os
import stat
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from broker.issuers import key_set
from broker.strict_json import StrictJsonError, loads_strict

_LARGEST_KEY_SET: Final = 65_536
_LARGEST_SECRET: Final = 4096
_MOST_KEYS: Final = 32
_MOST_LISTED: Final = 1000


class UnusableFile(Exception):
    """A file cannot serve; the text says why and holds nothing of its content."""


def check_readable(path: Path) -> None:
    """Raise ``UnusableFile`` unless the path is a file that can be opened."""
    _read(path, 0)


def check_secret(path: Path) -> None:
    """
    Raise ``UnusableFile`` unless the path is a file that strangers can neither read nor replace.

    The group may read, since that is how secrets reach a process that is not root.
    """
    check_readable(path)
    if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise UnusableFile("is open to others on this machine; take their rights away (chmod 0640)")


def check_long_secret(path: Path, *, least: int) -> None:
    """Raise ``UnusableFile`` unless it is such a file with ``least`` bytes, white space around aside."""
    check_secret(path)
    with path.open("rb") as file:
        content = file.read(_LARGEST_SECRET + 1)
    if not least <= len(content.strip()) <= len(content) <= _LARGEST_SECRET:
        raise UnusableFile(f"does not hold a secret of {least} to {_LARGEST_SECRET} bytes")


def check_private_directory(path: Path) -> None:
    """
    Raise ``UnusableFile`` if the path exists and strangers can change it or use a file in it.

    The group is not a stranger: a volume in Kubernetes belongs to one.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            raise UnusableFile("is not a directory")
        with os.scandir(path) as listed:
            files = [entry for entry in islice(listed, _MOST_LISTED) if entry.is_file()]
        is_open = any(entry.stat().st_mode & stat.S_IRWXO for entry in files)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnusableFile(f"cannot be used: {error.strerror}") from None
    if mode & stat.S_IWOTH or is_open:
        raise UnusableFile("is open to others on this machine; take their rights away (chmod o=)")


def check_directory(path: Path) -> None:
    """Raise ``UnusableFile`` unless the path is a directory that can be listed."""
    if not path.is_dir():
        raise UnusableFile("is not a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UnusableFile("cannot be read")


def read_key_set(path: Path, *, is_bundle: bool = False) -> Mapping[str, Any]:
    """The key set, or SPIFFE bundle, in a file. Raises ``UnusableFile`` for anything but public keys."""
    raw = _read(path, _LARGEST_KEY_SET + 1)
    if len(raw) > _LARGEST_KEY_SET:
        raise UnusableFile(f"is larger than {_LARGEST_KEY_SET} bytes")
    try:
        document: Mapping[str, Any] = loads_strict(raw)
    except StrictJsonError:
        raise UnusableFile("is not strict JSON") from None
    check_key_set(document, is_bundle=is_bundle)
    return document


def check_key_set(document: Any, *, is_bundle: bool = False) -> None:
    """Raise ``UnusableFile`` unless a value is a JWK set (RFC 7517 5) of sound public keys."""
    try:
        keys = key_set.read_key_set(document, max_keys=_MOST_KEYS, is_bundle=is_bundle)
    except key_set.SourceRefused:
        raise UnusableFile(f"is not a key set with 1 to {_MOST_KEYS} entries in 'keys'") from None
    if keys.rejected:
        raise UnusableFile(f"holds a key that is not usable: {keys.rejected[0].replace('_', ' ')}")


def _read(path: Path, size: int) -> bytes:
    """The first bytes of a file, which is opened once: there may be one for each of many clients."""
    try:
        # Without O_NONBLOCK, a named pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnusableFile("is not a file")
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnusableFile(f"cannot be read: {error.strerror}") from None
