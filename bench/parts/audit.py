"""What evidence costs: the exchange with its record on disk and sealed, verifying and asking."""

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.audit_questions import BEGIN, MONTH, answers
from bench.audit_records import Life, write_life
from bench.progress import tell
from bench.requests import EXCHANGE, FACES, stream
from bench.server import running_broker
from bench.setting import DURABILITY, Shape, new_setting
from bench.slices import Lane, Plan, Race, lines
from bench.verification import verification

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted.
_RECORDS: Final = 1_000_000
_QUICK_RECORDS: Final = 3_000
_ANSWERS: Final = 30
_RARELY: Final = {"every": "5m"}
_OFTEN: Final = {"every": "1s"}


def measure(plan: Plan) -> dict[str, Any]:
    """What the exchange costs over both faces, in turns; how fast much is verified, and answers."""
    return {**_exchanges(plan), **_evidence(plan)}


def _evidence(plan: Plan) -> dict[str, Any]:
    """A month of records: how fast they are verified, and how fast the index answers."""
    directory = plan.folder / "record"
    tell("writing a month of records")
    directory.mkdir(mode=0o700)
    records = _QUICK_RECORDS if plan.is_quick else _RECORDS
    write_life(directory, Life(begin=BEGIN, seconds=MONTH, records=records))
    rounds = 1 if plan.is_quick else plan.rounds
    return {
        "verification": verification(directory, rounds=rounds),
        "index": answers(directory, rounds=2 if plan.is_quick else _ANSWERS),
    }


def _exchanges(plan: Plan) -> dict[str, Any]:
    with ExitStack() as stack:
        memory = Path(tempfile.mkdtemp(prefix="bench-audit-", dir=_MEMORY))
        stack.callback(shutil.rmtree, memory, ignore_errors=True)
        lanes: list[Lane] = []
        for name, audit in _records(memory).items():
            setting = new_setting(plan.folder / name.replace(" ", "-"), Shape(audit=audit))
            server = stack.enter_context(running_broker(setting, plan.server))
            lanes += [
                Lane(
                    f"{face}, {name}",
                    server,
                    stream(setting, EXCHANGE, face),
                    {"face": face, "record": name, "kind": EXCHANGE.name},
                )
                for face in FACES
            ]
        race = Race(plan, lanes)
        return {
            "durability": DURABILITY,
            "lines": lines(lanes, race.at_capacity(), race.at_half_of_the_slowest(lanes)),
        }


def _records(memory: Path) -> Mapping[str, dict[str, Any]]:
    """The record in memory and sealed as rarely as it may be, as it usually is, and sealed most often."""
    return {
        "in memory": {"directory": str(memory), "seal": _RARELY},
        "on disk": {"seal": _RARELY},
        "on disk and sealed": {},
        "on disk and sealed each second": {"seal": _OFTEN},
    }
