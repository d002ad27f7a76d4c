"""What rules remember, within bounds."""

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Known(Generic[_Value]):
    """At most ``size`` values by name; what was not touched for longest is forgotten first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[str, _Value] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> _Value | None:
        """The value of a name, which counts as touched."""
        if name not in self._values:
            return None
        value = self._values[name] = self._values.pop(name)
        return value

    def put(self, name: str, value: _Value) -> None:
        """Remember a value, in place of an earlier one of the name."""
        self._values.pop(name, None)
        self._values[name] = value
        if len(self._values) > self._size:
            del self._values[next(iter(self._values))]

    def items(self) -> Iterator[tuple[str, _Value]]:
        """All names and values, those first that would be forgotten first."""
        yield from self._values.items()


class Rate:
    """
    About how many there were in the last ``window`` seconds.

    Two counts stand for all moments: this window's, and the last one's as far as it still reaches in.
    """

    __slots__ = ("_before", "_now", "_number", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._number = 0
        self._now = self._before = 0

    def count(self, at: float) -> int:
        """Count one more at a moment, in seconds; how many there are with it."""
        number = math.floor(at / self._window)
        if number > self._number:
            self._before = self._now if number == self._number + 1 else 0
            self._now, self._number = 0, number
        if number == self._number:
            self._now += 1
        elif number == self._number - 1:
            self._before += 1
        left = 1 - (at / self._window - number) if number == self._number else 1
        return self._now + int(self._before * left)


class Learning:
    """The time after the very first record in which a rule only learns what is usual; in seconds."""

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self.began_at: float | None = None

    def is_over(self, at: float) -> bool:
        """Whether it is over at a moment."""
        self.began_at = at if self.began_at is None else min(self.began_at, at)
        return at >= self.began_at + self._lasts

    def memory(self) -> str:
        return "" if self.began_at is None else repr(self.began_at)

    def recall(self, line: str) -> None:
        try:
            began_at = float(line)
        except ValueError:
            return
        if math.isfinite(began_at):
            self.began_at = began_at
