"""``python -m bench``: what the broker costs, beside the bare cryptography and beside other servers."""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.parts import PARTS
from bench.progress import told
from bench.results import FOLDER, conditions, write
from bench.slices import Plan

_SERVER_CORE, _CALLER_CORE = 0, 1


def main() -> None:
    """Measure the parts asked for, one after the other, and keep each result as soon as it is there."""
    options = _options()
    # Told to end, it unwinds and takes its servers and their files along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Told to end."))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("Two cores are needed: one for the server, one for the callers.")
    for part in options.part or PARTS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
            plan = Plan(
                folder=Path(folder),
                rounds=1 if options.quick else options.rounds,
                seconds=0.3 if options.quick else options.seconds,
                connections=2 if options.quick else 8,
                server=(cores[_SERVER_CORE],),
                caller=(cores[_CALLER_CORE],),
                is_quick=options.quick,
                # A machine that is busy with tests may turn requests away.
                most_wrong=0.9 if options.quick else 0.001,
            )
            result = {"part": part, "conditions": conditions(plan), **PARTS[part](plan)}
        told()
        path = write(options.results, part, result)
        print(f"{part}: {time.monotonic() - begun:.0f} s, {path}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"one or more of {', '.join(PARTS)}; all when none")
    parser.add_argument(
        "--quick", action="store_true", help="see that it works; figures mean nothing"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each line")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long a turn takes")
    parser.add_argument("--results", type=Path, help="where the JSON files go")
    parser.add_argument("--folder", type=Path, help="where brokers keep their state: a real disk")
    options = parser.parse_args()
    # Figures that mean nothing do not replace those of the page.
    options.results = options.results or (FOLDER.parent / "out" if options.quick else FOLDER)
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"There is no part {', '.join(sorted(unknown))}.")
    return options


if __name__ == "__main__":
    main()
