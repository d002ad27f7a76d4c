"""A bounded memory of answers that could always be worked out anew."""

from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """How a memory is doing: what it holds and could hold, and how often it knew an answer or did not."""

    entries: int
    capacity: int
    hits: int
    misses: int


class BoundedMemory(Generic[Key, Answer]):
    """
    Remembers at most ``size`` answers, forgetting first what was not asked for lately.

    It holds two generations; a full younger one becomes the older one, whose content goes. There is
    no lock to be held across a fork: threads that meet here can at worst forget an answer, or to count one.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._hits = self._misses = 0
        self._half = size // 2
        self._young: dict[Key, Answer] = {}
        self._old: dict[Key, Answer] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: Key) -> Answer | None:
        """The answer for a key, or ``None`` where it is not remembered."""
        answer = self._young.get(key)
        if answer is None and (answer := self._old.pop(key, None)) is not None:
            self.put(key, answer)
        if answer is None:
            self._misses += 1
        else:
            self._hits += 1
        return answer

    def status(self) -> MemoryStatus:
        """How it is doing; may be asked by any thread."""
        return MemoryStatus(len(self), self._size, self._hits, self._misses)

    def put(self, key: Key, answer: Answer) -> None:
        """Remember an answer."""
        if self._half < 1:
            return
        young = self._young
        if len(young) >= self._half:
            self._old, young = young, {}
            self._young = young
        young[key] = answer
