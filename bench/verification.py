"""``python -m bench.verification``: how fast a large record is verified, with all of its evidence."""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.progress import tell, told
from broker.audit.disk import DiskChain
from broker.audit.entry import Clock
from broker.audit.record import InputFact, Record, ScopeFact, rfc3339
from broker.audit.seal.evidence import Evidence, verify_log
from broker.audit.seal.keys import NamedSigner
from broker.audit.seal.sealed import Trust
from broker.audit.seal.sealer import Sealer

_ORIGIN: Final = "broker.example/audit/0123456789abcdef"
_WRITERS: Final = ("grpc-0", "http-0", "http-1")
_BATCH: Final = 1_000
_BEGAN: Final = 1_800_000_000
_PER_SECOND: Final = 500


class _Key:
    """A key in memory."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def versions(self) -> Sequence[tuple[int, Ed25519PublicKey, bool]]:
        return [(1, self._key.public_key(), True)]

    def sign(self, data: bytes, *, version: int) -> bytes:
        del version
        return self._key.sign(data)


def main() -> None:
    """Write a record, seal it as a broker would, and verify it: by one process, and by one for each core."""
    parser = argparse.ArgumentParser(prog="python -m bench.verification", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=5_000, help="records between two checkpoints")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the record goes: a real disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        signer = NamedSigner(_Key(), origin=_ORIGIN)
        directory = Path(folder) / "audit"
        _write(directory, signer, records=options.records, every=options.every)
        size = sum(path.stat().st_size for path in directory.glob("*.jsonl"))
        trust = Trust(keys=signer.keys())
        for processes in sorted({1, len(os.sched_getaffinity(0))}):
            for _ in range(options.rounds):
                _measure(directory, trust, processes=processes, size=size)


def _measure(directory: Path, trust: Trust, *, processes: int, size: int) -> None:
    begun, used = time.perf_counter(), _used()
    evidence = verify_log(directory, trust, processes=processes)
    seconds, used = time.perf_counter() - begun, _used() - used
    _check(evidence)
    records = evidence.report.records
    print(
        f"{processes} processes: {records / seconds:,.0f} records/s, {size / seconds / 1e6:,.0f} MB/s; "
        f"{records} records of {size // records} bytes in {seconds:.2f} s, {used / records * 1e6:.2f} us "
        "of processor for each",
        flush=True,
    )


def _used() -> float:
    """Seconds of processor, of processes that have ended as well."""
    told = os.times()
    return told.user + told.system + told.children_user + told.children_system


def _check(evidence: Evidence) -> None:
    if not evidence.is_whole or evidence.sealed is None or evidence.sealed.unsealed:
        raise SystemExit(f"It does not verify: {evidence.all_faults}")


def _write(directory: Path, signer: NamedSigner, *, records: int, every: int) -> None:
    directory.mkdir(mode=0o700)
    clock = iter(range(10**12))

    def now() -> float:
        return _BEGAN + next(clock) / _PER_SECOND

    chains = [DiskChain(directory, writer=name, now=now) for name in _WRITERS]
    sealer = Sealer(directory, signer, origin=_ORIGIN, now=now)
    for chain in chains:
        chain.open("start")
    due = every
    for number, batch in enumerate(_batches(records, now)):
        chain = chains[number % len(chains)]
        chain.append(batch)
        if not chain.is_open:
            chain.open("rotation")
        if (number + 1) * _BATCH >= due:
            tell(f"{(number + 1) * _BATCH} records written")
            sealer.step()
            due += every
    for chain in chains:
        chain.close()
    sealer.step()
    sealer.close()
    told()


def _batches(count: int, now: Clock) -> Iterator[list[Record]]:
    for start in range(0, count, _BATCH):
        yield [_record(number, now()) for number in range(start, min(start + _BATCH, count))]


def _record(number: int, at: float) -> Record:
    """What an exchange by an MCP client leaves; of people, clients and resources there are many."""
    client, person, resource = number % 37, number % 9_973, number % 101
    issued_at = int(at)
    return Record(
        v=1,
        event="token.issue",
        event_id=f"{number:032x}",
        time=rfc3339(at),
        decision="permit",
        face="http",
        peer=f"10.0.{client}.{number % 250}",
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        client_id=f"agent-{client}",
        auth_method="private_key_jwt",
        subject=f"~2026-11~{person:022d}",
        subject_issuer="https://idp.example.com/realms/main",
        subject_kind="user",
        relation="issued_to",
        inputs=[
            InputFact(
                expires_at=issued_at + 300,
                issuer="https://idp.example.com/realms/main",
                jti=f"in-{number:020d}",
                slot="subject_token",
            )
        ],
        actors=[{"iss": "https://broker.example.com", "sub": f"agent-{client}"}],
        chain_depth=1,
        mcp_client=f"agent-{client}",
        mcp_server=f"server-{resource}",
        resource=f"https://server-{resource}.example.com/mcp",
        scope_decisions=[
            ScopeFact(policy_ids=["people-read"], scope="files:read", verdict="permit")
        ],
        policy_ids=["people-read"],
        policy_digest="ab" * 32,
        lifetime=300,
        lifetime_limit="configuration",
        scopes_asked=["files:read"],
        scopes_granted=["files:read"],
        issued_token_type="urn:ietf:params:oauth:token-type:access_token",  # noqa: S106 - a name.
        jti=f"{number:032x}",
        kid="signing-1",
        issued_at=issued_at,
        expires_at=issued_at + 300,
    )


if __name__ == "__main__":
    main()
