"""Downloads from the auditor's pages, made as the server makes them, and unpacked elsewhere."""

import io
import zipfile
from pathlib import Path

from broker.web.review.export import Exporting


def rest_of(exporting: Exporting) -> bytes:
    """What follows the first piece of an archive."""
    pieces = []
    while not exporting.is_read:
        pieces.append(exporting.next_piece())
    if not exporting.is_whole:
        pieces.append(exporting.last_piece())
    return b"".join(pieces)


def unpacked(archive: bytes, to: Path) -> Path:
    """The manifest of a download, on another machine."""
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        assert found.testzip() is None
        found.extractall(to)
    assert len(list(to.iterdir())) == 2
    (manifest,) = to.glob("*.manifest")
    return manifest
