"""The results on disk: a JSON file for each part, with the conditions of its run."""

import datetime as dt
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.slices import Plan

FOLDER: Final = Path(__file__).parent / "results"
PARTS: Final = ("core", "faces", "peers", "growth", "vault", "audit")
_LIBRARIES: Final = ("cryptography", "grpcio", "granian", "cedarpy", "msgspec", "pyjwt", "protobuf")


def conditions(plan: Plan) -> dict[str, Any]:
    """Under what a run is made, for whoever wants to compare."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "revision": _revision(),
        "load_before": round(os.getloadavg()[0], 2),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "connections": plan.connections,
        "is_quick": plan.is_quick,
    }


def write(folder: Path, part: str, result: Mapping[str, Any]) -> Path:
    """Keep the result of a part; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def read(part: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The result of a part. Raises ``FileNotFoundError`` where there is none."""
    result: dict[str, Any] = json.loads((folder / f"{part}.json").read_text())
    return result


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    command = ["git", "-C", str(FOLDER.parent), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
