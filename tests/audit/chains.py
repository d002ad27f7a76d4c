"""Small audit chains for tests, written by the real writer with a clock that counts up."""

import itertools
from pathlib import Path

import msgspec

from broker.audit.disk import DiskChain
from broker.audit.record import VERSION, Record, rfc3339

NOW = 1_800_000_000


def record(number: int) -> Record:
    """A finished record that is not linked yet."""
    return Record(
        v=VERSION,
        event="token.issue",
        event_id=f"req-{number}",
        time=rfc3339(NOW + number),
        decision="permit",
        subject=f"user-{number}",
        scopes_granted=["a:read"],
    )


def group(name: str, size: int) -> list[Record]:
    """The finished records of tokens that were issued together."""
    return [
        msgspec.structs.replace(
            record(number),
            event_id=f"{name}#{number}",
            group=name,
            group_number=number,
            group_size=size,
        )
        for number in range(1, size + 1)
    ]


def write_chain(
    directory: Path, *, writer: str = "w1", count: int = 30, segment_bytes: int = 2_500
) -> None:
    """A chain of several segments, closed in order."""
    clock = itertools.count(NOW)
    chain = DiskChain(
        directory, writer=writer, now=lambda: float(next(clock)), segment_bytes=segment_bytes
    )
    chain.open("start")
    for number in range(count):
        chain.append([record(number)])
        if not chain.is_open:
            chain.open("rotation")
    chain.close()


def contents(directory: Path) -> dict[str, bytes]:
    """The segments of a directory by name, in order."""
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.jsonl"))}


def restore(directory: Path, segments: dict[str, bytes]) -> Path:
    """A directory with these segments and no others."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.jsonl"):
        path.unlink()
    for name, content in segments.items():
        (directory / name).write_bytes(content)
    return directory
