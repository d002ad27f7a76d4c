"""A small file beside the record that is replaced as a whole: what is remembered, and is no evidence."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# Whoever puts a link or a pipe in the place of the draft has nobody follow or wait.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def replace_file(path: Path, data: bytes, *, is_synced: bool = False) -> None:
    """
    Have these bytes in a file, all of them or what was there before.

    They are written to a draft beside it, ``is_synced`` before it takes the place. Raises ``OSError``.
    """
    draft = path.with_suffix(".new")
    try:
        with os.fdopen(os.open(draft, _FLAGS, 0o600), "wb") as file:
            file.write(data)
            if is_synced:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
