"""A bounded memory of answers that could always be worked out anew."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class BoundedMemory(Generic[Key, Answer]):
    """
    Remembers at most ``size`` answers, forgetting first what was not asked for lately.

    It holds two generations; a full younger one becomes the older one, whose content goes. There is
    no lock to be held across a fork: threads that meet here can at worst forget an answer.
    """

    def __init__(self, size: int) -> None:
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
        return answer

    def put(self, key: Key, answer: Answer) -> None:
        """Remember an answer."""
        if self._half < 1:
            return
        young = self._young
        if len(young) >= self._half:
            self._old, young = young, {}
            self._young = young
        young[key] = answer
