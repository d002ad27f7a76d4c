"""``python -m bench``: server CPU per exchange, p50 and p99 over each face, beside the bare cryptography."""

import argparse
import json
import os
import pickle
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import urllib3
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.floor import floor_microseconds
from bench.setting import ADMIN_PORT, Keys, write_config

SERVER_CORE, CALLER_CORE = 0, 1
POLICIES = Path(__file__).parent.parent / "policies"


def main() -> None:
    """Start one broker, call each face in turn, several rounds, and print medians."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON too")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("Two cores are needed: one for the server, one for the callers.")
    with tempfile.TemporaryDirectory() as name:
        results = _measure(Path(name), options, cores[SERVER_CORE], cores[CALLER_CORE])
    _print(results, options)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


def _measure(directory: Path, options: Any, server: int, caller: int) -> dict[str, Any]:
    config, keys = write_config(directory, POLICIES)
    key_file = _save(directory / "keys.pickle", keys)
    process = subprocess.Popen(
        ["taskset", "-c", str(server), sys.executable, "-m", "broker", "serve", "--config", config]
    )
    try:
        _wait_until_ready()
        faces: dict[str, list[dict[str, float]]] = {"grpc": [], "http": []}
        for number in range(options.rounds + 1):
            for face, rounds in faces.items():
                _tell(f"round {number} of {options.rounds}, {face}")
                round_ = _round(process.pid, face, options, key_file, (server, caller), number)
                if number > 0:  # The first one warms up.
                    rounds.append(round_)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    return {"machine": _machine(), "callers": options.callers, "faces": faces}


def _round(
    pid: int, face: str, options: Any, key_file: Path, cores: tuple[int, int], number: int
) -> dict[str, float]:
    arguments = [face, options.callers, options.seconds, key_file, f"{face}{number}", cores[1]]
    caller = subprocess.Popen(
        [sys.executable, "-m", "bench.load", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert caller.stdin is not None
    assert caller.stdout is not None
    caller.stdout.readline()
    before = _floor_on(cores[0])
    used = _cpu_seconds(pid)
    caller.stdin.write("go\n")
    caller.stdin.flush()
    result: dict[str, float] = json.loads(caller.stdout.readline())
    used = _cpu_seconds(pid) - used
    caller.wait()
    floor = (before + _floor_on(cores[0])) / 2
    cpu = used / result["calls"] * 1e6
    return {**result, "cpu_us": cpu, "floor_us": floor, "ratio": cpu / floor}


def _floor_on(core: int) -> float:
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return floor_microseconds()
    finally:
        os.sched_setaffinity(0, own)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and everything below it, in seconds, to the nanosecond."""
    total = 0
    for process in _tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
            total += int(task.read_text().split()[0])
    return total / 1e9


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found.extend(int(child) for child in children.read_text().split())
    return found


def _save(path: Path, keys: Keys) -> Path:
    pems = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for key in (keys.idp, keys.client)
    ]
    path.touch(mode=0o600)
    path.write_bytes(pickle.dumps(pems))
    return path


def _wait_until_ready() -> None:
    http = urllib3.PoolManager(retries=False)
    for _ in range(400):
        try:
            if (
                http.request("GET", f"http://127.0.0.1:{ADMIN_PORT}/readyz", timeout=1).status
                == 200
            ):
                return
        except urllib3.exceptions.HTTPError:
            pass
        time.sleep(0.05)
    sys.exit("The broker did not become ready.")


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what:<40}", end="", file=sys.stderr, flush=True)


def _print(results: dict[str, Any], options: Any) -> None:
    columns = ["cpu_us", "floor_us", "ratio", "per_second", "p50_ms", "p99_ms"]
    print(
        f"\nOne worker per face on one core, {options.callers} callers on another, "
        f"{options.rounds} rounds of {options.seconds:g} s; medians, and the range of the ratio.\n"
        "private_key_jwt, ES256 throughout, policy, SQLite replay store, durable audit: all on.\n"
    )
    print(f"{'face':6}" + "".join(f"{name:>12}" for name in columns) + f"{'range':>16}")
    for face, rounds in results["faces"].items():
        cells = "".join(f"{statistics.median(r[name] for r in rounds):12.2f}" for name in columns)
        ratios = sorted(r["ratio"] for r in rounds)
        print(f"{face:6}{cells}{f'{ratios[0]:.2f}..{ratios[-1]:.2f}':>16}")
        if failures := sum(r["failures"] for r in rounds):
            print(f"       INVALID: {failures:g} failed calls")
    print(
        "\nratio: server CPU per exchange over the CPU of its two verifications and one signature."
    )


if __name__ == "__main__":
    main()
