"""The files in which workers leave their counts, in the format of Prometheus' client for many processes."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client.mmap_dict import MmapedDict

from broker.metrics.tally import Series

SUFFIX: Final = ".db"


class CountFile:
    """
    One file of one worker: all its series of one kind.

    A worker that is started again goes on from its predecessor's counts, so that there are never
    more files than workers and no counter falls. The client itself would map the file into memory;
    on a disk that is full, writing to a mapping kills the process, and the broker's answer to a
    full disk is to refuse, not to die. So the file is written anew and put in place at once.
    """

    def __init__(self, directory: Path, kind: str, worker: str) -> None:
        self._path = directory / f"{kind}_{worker}{SUFFIX}"
        self._new = self._path.with_suffix(".new")
        self._before = {} if kind.startswith("gauge") else _read(self._path)

    def write(self, series: Iterable[Series]) -> None:
        """Replace what the file holds. Raises ``OSError`` when it cannot, and leaves it as it was."""
        now = dict(series)
        values = {key: value + now.get(key, 0) for key, value in self._before.items()}
        self._new.write_bytes(_encode({**now, **values}))
        self._new.replace(self._path)


def _read(path: Path) -> dict[str, float]:
    try:
        entries = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
        return {key: value for key, value, *_ in entries}
    except (OSError, ValueError, RuntimeError, struct.error):
        # Missing, or torn: counts are a convenience, so they start again.
        return {}


def _encode(values: dict[str, float]) -> bytes:
    """A count of used bytes; then, for each series, its key padded, the value and an unused time."""
    entries = []
    for key, value in values.items():
        text = key.encode()
        padding = 8 - (len(text) + 4) % 8
        entries.append(struct.pack(f"i{len(text)}s{padding}xdd", len(text), text, value, 0.0))
    body = b"".join(entries)
    return struct.pack("i4x", 8 + len(body)) + body
