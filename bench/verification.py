"""How fast a large record is verified, with all of its evidence."""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.progress import tell
from bench.slices import Spread
from broker.audit.columns import Columns
from broker.audit.hashing import ONE_BY_ONE, Hashing
from broker.audit.notes import NoteKey
from broker.audit.seal.evidence import verify_log
from broker.audit.seal.keys import NamedSigner
from broker.audit.seal.sealed import Trust
from broker.audit.seal.sealer import Sealer

_ORIGIN: Final = "broker.example/audit/0123456789abcdef"
_LINES_OF_A_CHECKPOINT: Final = 1_250
"""Of each chain: a busy broker seals as many in some seconds."""
_HASHINGS: Final[Mapping[str, Hashing]] = {"one by one": ONE_BY_ONE, "by columns": Columns()}


class _Key:
    """A key in memory."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def versions(self) -> Sequence[tuple[int, Ed25519PublicKey, bool]]:
        return [(1, self._key.public_key(), True)]

    def sign(self, data: bytes, *, version: int) -> bytes:
        del version
        return self._key.sign(data)


def verification(directory: Path, *, rounds: int) -> dict[str, Any]:
    """Seal a record as a broker would, and verify it on one core and on all, by either kind of hashing."""
    signer = NamedSigner(_Key(), origin=_ORIGIN)
    sealer = Sealer(
        directory, signer, origin=_ORIGIN, now=time.time, most_lines=_LINES_OF_A_CHECKPOINT
    )
    tell("sealing the record")
    begun = time.perf_counter()
    last = sealer.step()
    sealing = time.perf_counter() - begun
    sealer.close()
    records = 0 if last is None else last.checkpoint.size
    size = sum(path.stat().st_size for path in directory.glob("*.jsonl"))
    keys = sealer.key_texts
    lines = []
    cores = sorted({1, len(os.sched_getaffinity(0))})
    for name, processors in product(_HASHINGS, cores):
        tell(f"verifying {name} on {processors} cores")
        runs = [_apart(directory, keys, name, processors) for _ in range(rounds)]
        lines.append(
            {
                "hashing": name,
                "cores": processors,
                "per_second": asdict(Spread.of(records / seconds for seconds, _ in runs)),
                "cpu_us": asdict(Spread.of(used / records * 1e6 for _, used in runs)),
            }
        )
    return {
        "records": records,
        "record_bytes": size // records,
        "sealed_per_second": round(records / sealing),
        "lines": lines,
    }


def _apart(directory: Path, keys: Sequence[str], name: str, cores: int) -> tuple[float, float]:
    """The same in a process of its own, as an auditor's command is one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_verified, directory, keys, name, cores).result()


def _verified(directory: Path, keys: Sequence[str], name: str, cores: int) -> tuple[float, float]:
    """How many seconds it took, by the clock and by that of all processors."""
    trust, hashing = Trust(keys=[NoteKey.read(text) for text in keys]), _HASHINGS[name]
    begun, used = time.perf_counter(), _used()
    evidence = verify_log(directory, trust, processes=cores, hashing=hashing)
    seconds, used = time.perf_counter() - begun, _used() - used
    if not evidence.is_whole or evidence.sealed is None or evidence.sealed.unsealed:
        raise SystemExit(f"It does not verify: {evidence.all_faults}")
    return seconds, used


def _used() -> float:
    """Seconds of processor, of processes that have ended as well."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system
