"""A loss of power at any moment, modelled: what was not yet synchronised may be there, torn or lost."""

import os
import random
import shutil
from pathlib import Path
from typing import Final

import pytest

from broker.model import OneTimeId
from broker.state.sqlite import SqliteState

NOW: Final = 1_800_000_000
SPENT: Final = 60
CUTS: Final = int(os.environ.get("BROKER_POWER_CUTS", "30"))
PAGE: Final = 4096


def one_time_id(number: int) -> OneTimeId:
    return OneTimeId("client_assertion", "agent-x", f"jti-{number}", NOW + 330)


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def acknowledged_sizes(path: Path, state: SqliteState) -> list[int]:
    """How long the log was each time that an id was acknowledged as spent: so much was synchronised."""
    sizes = []
    for number in range(SPENT):
        assert state.spend((one_time_id(number),)) is None
        sizes.append(wal_of(path).stat().st_size)
    return sizes


def cut_power(source: Path, copy: Path, *, kept: int, moments: random.Random) -> None:
    """
    Leave what a disk may hold: all that was synchronised, and of the rest pages in any state.

    A commit is synchronised before it is acknowledged (``synchronous=FULL``, which
    ``test_every_commit_waits_for_the_disk`` shows), and the database itself changes only after that.
    """
    shutil.copy(source, copy)
    log = bytearray(wal_of(source).read_bytes())
    torn = log[: moments.randrange(kept, len(log) + 1)]
    for at in range(kept, len(torn), PAGE):
        fate = moments.choice(("there", "zeroes", "noise"))
        if fate != "there":
            size = len(torn[at : at + PAGE])
            torn[at : at + PAGE] = bytes(size) if fate == "zeroes" else moments.randbytes(size)
    wal_of(copy).write_bytes(torn)
    copy.chmod(0o600)


@pytest.mark.requirement("R-15", "RPL-06")
def test_what_was_acknowledged_is_there_after_a_loss_of_power_at_any_moment(tmp_path: Path) -> None:
    moments = random.Random(15)  # noqa: S311 - any moment will do.
    source, copy = tmp_path / "state.db", tmp_path / "copy.db"
    state = SqliteState(source, now=lambda: NOW)
    sizes = acknowledged_sizes(source, state)

    for _ in range(CUTS):
        last = moments.randrange(SPENT)
        for left in tmp_path.glob("copy.db*"):
            left.unlink()
        cut_power(source, copy, kept=sizes[last], moments=moments)

        after = SqliteState(copy, now=lambda: NOW)
        forgotten = [n for n in range(last + 1) if after.spend((one_time_id(n),)) is None]
        is_fresh = after.spend((one_time_id(SPENT + 1),)) is None
        after.close()

        assert forgotten == []
        assert is_fresh
    state.close()
