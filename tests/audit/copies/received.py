"""What somebody received of a log, and how the log answers to it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from broker.audit.copies.comparing import Expected, compare_copies
from broker.audit.copies.outcome import Comparison
from broker.audit.segments import find_segments
from tests.audit.seal.logs import lines_of
from tests.audit.seal.sealed_logs import SealedLog

LOG_ID = "0123456789abcdef"
OTHER_ID = "fedcba9876543210"


def received(log: SealedLog, *writers: str) -> list[bytes]:
    """Every line of these chains, or of all, as a sink gets them: without what a crash left."""
    names = writers or tuple(find_segments(log.directory))
    return [line for name in names for line in lines_of(log.directory, name) if line.endswith(b"}")]


def kept(path: Path, lines: Iterable[bytes]) -> Path:
    """A copy in a file."""
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def compared(
    log: SealedLog | Path, *copies: Path, complete: bool = False, mixed: bool = False
) -> Comparison:
    directory = log if isinstance(log, Path) else log.directory
    return compare_copies(directory, copies, Expected(is_complete=complete, is_mixed=mixed))


def sentences(found: Comparison) -> Sequence[str]:
    return [one.sentence for one in found.faults]
