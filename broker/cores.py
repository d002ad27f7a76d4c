"""Which processor cores the workers of this machine may have to themselves, and holding a process to one."""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_TOPOLOGY: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"

_log = structlog.get_logger("broker.cores")


@dataclass(frozen=True, slots=True)
class Cores:
    """
    The core of each worker, in their order; ``reason`` says why there are none, where there are none.

    Two workers never share a core.
    """

    each: tuple[int, ...] = ()
    reason: str = ""

    def hold(self, place: int) -> None:
        """
        Hold the calling process, and all threads that it starts from now on, to the core of a worker.

        Called right after the fork, since a thread that runs already would not be held. A core that was
        taken away meanwhile is told in the log, and the process runs wherever it may.
        """
        if not self.each:
            return
        core = self.each[place]
        try:
            os.sched_setaffinity(0, {core})
        except OSError as error:
            _log.warning("worker_not_pinned", core=core, error=error.strerror)


def cores_for(workers: int) -> Cores:
    """
    A core for each of so many workers, of those that this process may use; called before any fork.

    There are none where that could do harm: with fewer cores than workers, which would then wait for
    each other while a core is idle; and under a quota of processor time, which is counted over all
    cores, and comes with neighbours who were given the same ones. Only Linux can hold a process.
    """
    if sys.platform != "linux":
        return Cores(reason="only Linux can hold a process to a core")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < workers:
        return Cores(reason=f"there are {workers} workers and {len(allowed)} cores")
    if has_quota():
        return Cores(reason="processor time is limited by a quota")
    return Cores(chosen(allowed, workers, first=random.randrange(len(allowed))))  # noqa: S311 - any.


def chosen(allowed: Sequence[int], workers: int, *, first: int) -> tuple[int, ...]:
    """
    So many of the allowed cores, those that share nothing with each other before their siblings.

    It begins anywhere (``first``), so that two brokers on one machine do not both take the lowest.
    """
    whole = [core for core in allowed if _rank(core) == 0]
    siblings = [core for core in allowed if core not in whole]
    candidates = whole if len(whole) >= workers else [*whole, *siblings]
    return tuple(candidates[(first + place) % len(candidates)] for place in range(workers))


def has_quota(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> bool:
    """Whether this process, or a group that it is in, may use only so much processor time."""
    return any(map(_limits, _quota_files(cgroups, own)))


def _quota_files(cgroups: Path, own: Path) -> Iterator[Path]:
    """The files that may hold a quota: of our own groups, and of all above them."""
    lines: list[str] = []
    with suppress(OSError):
        lines = own.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree without a name (cgroups(7)); version 1 has one for these controllers.
        root, name = (
            (cgroups / controllers, "cpu.cfs_quota_us") if controllers else (cgroups, "cpu.max")
        )
        group = root / path.lstrip("/")
        # Inside a container the path may be that of the host, of which only the root is seen here.
        yield root / name
        yield from (above / name for above in (group, *group.parents) if above.is_relative_to(root))


def _limits(file: Path) -> bool:
    try:
        quota = file.read_text().split()[0]
    except (OSError, IndexError):
        return False
    return quota not in {"max", "-1"}


def _rank(core: int) -> int:
    """Which of the threads of its physical core this one is, from 0; 0 also where nobody knows."""
    try:
        text = Path(_TOPOLOGY.format(core)).read_text()
        return sorted(_listed(text)).index(core)
    except (OSError, ValueError):
        return 0


def _listed(text: str) -> Iterator[int]:
    """The numbers of a list such as ``0-1,8``."""
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)
