"""What is wrong with a policy set, where, in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """
    A fault in a policy set.

    ``file`` is relative to the policy folder. ``line`` counts from 1; 0 means the file as a whole.
    """

    file: str
    line: int
    sentence: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.sentence}"


class PolicyLoadError(Exception):
    """A policy set that cannot be put in force. Its text is one line: the first of its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        more = len(self.problems) - 1
        super().__init__(f"{self.problems[0]}{f' (and {more} more)' if more else ''}")
