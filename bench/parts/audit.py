"""What evidence costs: the exchange with its record on disk and sealed, verifying and asking."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.audit_questions import BEGIN, MONTH, answers
from bench.audit_records import Life, write_life
from bench.progress import tell
from bench.requests import EXCHANGE, FACES, stream
from bench.server import running_broker
from bench.setting import DURABILITY, Shape, new_setting
from bench.slices import Difference, Lane, Plan, Race, Slice, lines
from bench.verification import verification

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted.
_RECORDS: Final = 1_000_000
_QUICK_RECORDS: Final = 3_000
_ANSWERS: Final = 30
_OFTENER: Final = 4
_IN_MEMORY: Final = "in memory"
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
    refusals = plan.folder / "refusals"
    refusals.mkdir(mode=0o700)
    write_life(refusals, Life(begin=BEGIN, seconds=MONTH, records=records, is_refused_all=True))
    return {
        "verification": [verification(one, rounds=rounds) for one in (directory, refusals)],
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
        at_capacity = race.at_capacity()
        # A disk takes its time now and then, so that few turns tell little.
        at_half = race.at_half_of_the_slowest(lanes, often=1 if plan.is_quick else _OFTENER)
        return {
            "durability": DURABILITY,
            "lines": [
                {
                    **line,
                    "against_memory_ms": asdict(
                        _against_memory(line["face"], line["name"], at_half)
                    ),
                }
                for line in lines(lanes, at_capacity, at_half)
            ],
        }


def _against_memory(face: str, name: str, found: Mapping[str, Sequence[Slice]]) -> Difference:
    """How much later half of the exchanges of a lane are answered."""
    memory, lane = found[f"{face}, {_IN_MEMORY}"], found[name]
    return Difference.of([one.p50_ms for one in lane], [one.p50_ms for one in memory])


def _records(memory: Path) -> Mapping[str, dict[str, Any]]:
    """The record in memory and sealed as rarely as it may be, as it usually is, and sealed most often."""
    return {
        _IN_MEMORY: {"directory": str(memory), "seal": _RARELY},
        "on disk": {"seal": _RARELY},
        "on disk and sealed": {},
        "on disk and sealed each second": {"seal": _OFTEN},
    }
