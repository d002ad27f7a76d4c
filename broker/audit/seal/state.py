"""How far the sealer is: derived from the record, kept so that a start need not read all of it again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from broker.audit.chain import Head
from broker.audit.follow import Position
from broker.audit.merkle import Frontier, ProofRefused
from broker.audit.replacing import replace_file
from broker.audit.seal.store import Spot
from broker.audit.segments import regular

_LARGEST: Final = 1024 * 1024


class _Chain(Struct, forbid_unknown_fields=True):
    number: int
    offset: int
    seq: int
    prev: str


class _State(Struct, forbid_unknown_fields=True):
    digest: str
    file: int
    end: int
    size: int
    peaks: list[str]
    heads: dict[str, tuple[int, str]]
    chains: dict[str, _Chain]


@dataclass(frozen=True, slots=True)
class SealedState:
    """
    What there was when a checkpoint was written: its digest and where it ends, the tree, the chains.

    ``heads`` are those of the checkpoint; ``positions`` lack a chain that does not lead to its head.
    It is no evidence: whoever reads it compares it with a signed checkpoint.
    """

    digest: str
    end: Spot
    size: int
    peaks: Sequence[bytes]
    heads: Mapping[str, Head]
    positions: Mapping[str, Position]

    def frontier(self) -> Frontier:
        """The tree, to be gone on with."""
        return Frontier(self.size, self.peaks)


def write_state(path: Path, state: SealedState) -> None:
    """Replace what is kept; raises ``OSError``. It is not synced: one that is lost is derived anew."""
    chains = {
        name: _Chain(one.number, one.offset, one.head.seq, one.head.prev)
        for name, one in state.positions.items()
    }
    body = msgspec.json.encode(
        _State(
            digest=state.digest,
            file=state.end.number,
            end=state.end.offset,
            size=state.size,
            peaks=[peak.hex() for peak in state.peaks],
            heads={name: (head.seq, head.prev) for name, head in state.heads.items()},
            chains=chains,
        )
    )
    path.parent.mkdir(mode=0o700, exist_ok=True)
    replace_file(path, _sum(body) + b"\n" + body)


def read_state(path: Path) -> SealedState | None:
    """What was kept, or ``None`` when it is lost or damaged."""
    try:
        with open(path, "rb", opener=regular) as file:
            told, _, body = file.read(_LARGEST).partition(b"\n")
        if told != _sum(body):
            return None
        found = msgspec.json.decode(body, type=_State)
        state = SealedState(
            digest=found.digest,
            end=Spot(found.file, found.end),
            size=found.size,
            peaks=tuple(map(bytes.fromhex, found.peaks)),
            heads={name: Head(*told) for name, told in found.heads.items()},
            positions={
                name: Position(one.number, one.offset, Head(one.seq, one.prev))
                for name, one in found.chains.items()
            },
        )
        state.frontier()
    except (OSError, ValueError, ProofRefused):
        return None
    return state


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
