"""The name of one record, which tells its checkpoints and receipts from those of any other."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from broker.audit.segments import AuditLogRefused, prepare_directory, sync_directory

LOG_ID: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
"""What a record is named."""

_FILE: Final = "log.id"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_log_id(directory: Path) -> str | None:
    """
    The name of the record in a directory, or ``None`` when it has none yet.

    Raises ``AuditLogRefused`` when the file holds anything else, and ``OSError``.
    """
    path = directory / _FILE
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = file.read(64).decode("ascii", "replace").removesuffix("\n")
    if LOG_ID.fullmatch(found) is None:
        raise AuditLogRefused(f"{path} does not hold the name of a record: put back what it held")
    return found


def make_log_id(directory: Path) -> str:
    """
    The name of the record in a directory, which is made at the first time.

    Several processes may ask at once: one of them makes it. Raises as ``read_log_id`` does.
    """
    found = read_log_id(directory)
    if found is not None:
        return found
    prepare_directory(directory)
    draft = directory / f".{_FILE}.{secrets.token_hex(8)}"
    try:
        with os.fdopen(os.open(draft, _MAKE, 0o600), "wb") as file:
            file.write(f"{secrets.token_hex(8)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces what another process has put there.
        with suppress(FileExistsError):
            os.link(draft, directory / _FILE)
        sync_directory(directory)
    finally:
        draft.unlink(missing_ok=True)
    made = read_log_id(directory)
    if made is None:
        raise AuditLogRefused(f"{directory / _FILE} was taken away as it was made")
    return made


def origin_of(issuer: str, log_id: str) -> str:
    """The first line of the checkpoints of a record: whose it is and which, without a scheme."""
    parts = urlsplit(issuer)
    return f"{parts.netloc}{parts.path.rstrip('/')}/audit/{log_id}"
