"""What the supervisor orders: a few words in memory that all processes share, written by it alone."""

import mmap
from dataclasses import dataclass, replace
from typing import Final

import msgspec

MOST_OF_A_PROBLEM: Final = 500
MOST_OF_A_CONTENT: Final = 64 * 1024 * 1024
"""The greatest size of what can be put in force, in bytes."""

_DRAINING, _GENERATION = 0, 1
_WORDS: Final = 4096
_PART: Final = MOST_OF_A_CONTENT + 8192
_LENGTH_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Order:
    """
    An order to reload, after the supervisor has carried it out itself.

    ``in_force`` is what everybody is to serve from now on, encoded. ``problem`` says why the files
    were refused, and is empty when they were not: then ``in_force`` is still what it was before.
    ``generation`` counts the orders; 0 is the start. ``needs_restart`` names the sections of the
    settings that have changed and that only a restart puts in force.
    """

    in_force: bytes = b""
    problem: str = ""
    generation: int = 0
    needs_restart: tuple[str, ...] = ()


class OrderBoard:
    """
    Where orders hang, for every process forked after it was made.

    A process sees them without asking anybody, and a hundred orders in a row cost no more than one.
    Two orders hang at a time: the newest, and in the other half the one that is being written. Memory
    is taken only for what is written.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _WORDS + 2 * _PART)
        # A whole machine word is stored at once, so a reader never sees half a number.
        self._words = memoryview(self._memory)[:_WORDS].cast("Q")
        self._hang(Order())

    @property
    def is_draining(self) -> bool:
        """Whether the broker is about to stop."""
        return bool(self._words[_DRAINING])

    @property
    def generation(self) -> int:
        """The number of the newest order."""
        return int(self._words[_GENERATION])

    def drain(self) -> None:
        """Tell all processes that the broker is about to stop."""
        self._words[_DRAINING] = 1

    def order(self, order: Order) -> None:
        """
        Hang up an order under the next number. A long ``problem`` is cut.

        Raises ``ValueError`` when ``in_force`` is larger than ``MOST_OF_A_CONTENT``.
        """
        if len(order.in_force) > MOST_OF_A_CONTENT:
            raise ValueError("The order does not fit on the board.")
        problem = order.problem.encode("utf-8", "replace").decode()[:MOST_OF_A_PROBLEM]
        self._hang(replace(order, problem=problem, generation=self.generation + 1))

    def newest(self) -> Order | None:
        """The newest order; ``None`` when a newer one came while it was read, so ask again."""
        generation = self.generation
        start = _start_of(generation)
        length = int.from_bytes(self._memory[start : start + _LENGTH_BYTES], "big")
        start += _LENGTH_BYTES
        written = self._memory[start : start + min(length, _PART - _LENGTH_BYTES)]
        # Only this half of the board was read, and nobody writes to it before the number changes.
        if self.generation != generation:
            return None
        return msgspec.msgpack.decode(written, type=Order)

    def _hang(self, order: Order) -> None:
        written = msgspec.msgpack.encode(order)
        written = len(written).to_bytes(_LENGTH_BYTES, "big") + written
        start = _start_of(order.generation)
        self._memory[start : start + len(written)] = written
        self._words[_GENERATION] = order.generation


def _start_of(generation: int) -> int:
    return _WORDS + _PART * (generation % 2)
