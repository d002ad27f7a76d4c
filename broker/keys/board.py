"""The list of statements that all replicas share: each puts up its own, and nobody believes it unread."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from broker.keys.life import Moment
from broker.keys.record_vault import VaultDocument
from broker.keys.unavailable import signer_unavailable

MOST_STATEMENTS: Final = 256
"""How many can be read."""
MOST_PUT_UP: Final = 80
"""
How many are put up, so that the key set stays within the hundred keys that verifiers take.

Workers that die without a word leave theirs behind, and beyond this others sign in Vault instead.
"""
_MOST_TRIES: Final = 20
_LONGEST_PAUSE: Final = 0.1

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Listed:
    """
    A statement as it stands on the board, believed by nobody yet.

    ``ended_at`` is when its replica said that it signs no more; it only ever shortens a life, so
    nothing vouches for it.
    """

    statement: Annotated[str, msgspec.Meta(max_length=4096)]
    ended_at: Moment | None = None


@dataclass(frozen=True, slots=True)
class _Board:
    statements: Annotated[tuple[Listed, ...], msgspec.Meta(max_length=MOST_STATEMENTS)] = ()

    def members(self) -> Mapping[str, Any]:
        listed = (
            {"statement": one.statement}
            | ({} if one.ended_at is None else {"ended_at": one.ended_at})
            for one in self.statements
        )
        return {"statements": list(listed)}


class StatementBoard:
    """
    A document in Vault that every replica reads, and changes by check-and-set.

    Raises ``TemporarilyUnavailable`` when it cannot be read or changed.
    """

    def __init__(self, document: VaultDocument) -> None:
        self._document = document

    def read(self) -> Sequence[Listed]:
        """What is listed now."""
        return self._read()[0].statements

    def change(self, change: Callable[[Sequence[Listed]], Sequence[Listed]]) -> None:
        """Replace what is listed by what ``change`` makes of it, which may be asked several times."""
        for _ in range(_MOST_TRIES):
            board, version = self._read()
            changed = _Board(tuple(change(board.statements)))
            if len(changed.statements) > max(MOST_PUT_UP, len(board.statements)):
                raise signer_unavailable("vault: there are too many statements of keys")
            if changed == board or self._document.write(changed.members(), over=version):
                return
            # Whoever was first is gone in a moment, and the others should not all come back at once.
            time.sleep(_random.uniform(0, _LONGEST_PAUSE))
        raise signer_unavailable("vault: others kept changing the statements of keys")

    def _read(self) -> tuple[_Board, int]:
        members, version = self._document.read()
        try:
            return msgspec.convert(members, type=_Board), version
        except (msgspec.ValidationError, RecursionError):
            raise signer_unavailable("vault: the statements of keys are not a list") from None
