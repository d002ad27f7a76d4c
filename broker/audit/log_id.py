"""The name of a log: made once, by whoever writes to its directory first, and never changed."""

import os
import re
import secrets
from pathlib import Path
from typing import Final

from broker.audit.segments import AuditLogRefused, prepare_directory, sync_directory

_NAME: Final = "log.id"
_LOG_ID: Final = re.compile(r"[0-9a-f]{16}")


def read_log_id(directory: Path) -> str | None:
    """
    The name of the log in a directory, sixteen hex digits, or ``None`` where it has none.

    Raises ``AuditLogRefused`` for a file that holds no name, ``OSError`` for one that cannot be read.
    """
    path = directory / _NAME
    try:
        text = path.read_bytes()[:64].decode("ascii", "replace").rstrip("\n")
    except FileNotFoundError:
        return None
    if _LOG_ID.fullmatch(text) is None:
        raise AuditLogRefused(f"{path} does not hold the name of a log: sixteen hex digits")
    return text


def log_id(directory: Path) -> str:
    """
    The name of the log in a directory, made now and durable where there is none.

    Several processes may ask at once; all are told the same. Raises as ``read_log_id`` and
    ``prepare_directory`` do.
    """
    prepare_directory(directory)
    found = read_log_id(directory)
    if found is not None:
        return found
    # It gets its name when it is whole, and never takes the place of another.
    draft = directory / f".{_NAME}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{secrets.token_hex(8)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, directory / _NAME)
        except FileExistsError:
            pass
        else:
            sync_directory(directory)
    finally:
        draft.unlink()
    made = read_log_id(directory)
    if made is None:
        raise AuditLogRefused(f"{directory / _NAME} is gone again")
    return made
