"""What is wrong with a configuration: every problem with its place, its line and a caret."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Path = tuple[str | int, ...]
"""Where a value stands: the names and list positions that lead to it from the top."""

_WIDEST_SOURCE: Final = 100
_INDENT: Final = 2
_MOST_PROBLEMS: Final = 100

# Somebody will write a secret where only its hash belongs; a problem must not print it.
_SECRET: Final = re.compile(
    r"""(?:\w*(?:secret|password|passphrase|credential|private_key|hash)(?!\w*_file)\w*"""
    r"""|\b(?:\w+_)?token)["']?\s*:\s*(?P<value>"[^"]*"?|'[^']*'?|[^\s{\["'].*)"""
    r"""|(?P<bare>\bbks_[\w-]+|\beyJ[\w.-]+)""",
    re.IGNORECASE,
)


# The settings whose members are named by people.
_BY_PEOPLE: Final = re.compile(r"(\b(?:accounts|subjects))\..*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    A place in the configuration: a line and a column, both from 1, and the text of that line.

    ``line`` is 0 for what has no line: a whole file, or a variable of the environment.
    """

    source: str
    line: int = 0
    column: int = 0
    text: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct. Its text never holds a value that may be a secret."""

    mark: Mark
    path: str
    sentence: str
    suggestion: str = ""

    def __str__(self) -> str:
        return self.on_page(_WIDEST_SOURCE + _INDENT)

    def on_page(self, width: int) -> str:
        """The same with no more of the line in the file than so many columns show."""
        return self._told(self.path) + self._excerpt(width - _INDENT)

    @property
    def in_brief(self) -> str:
        """The same for logs and records, which no line of the file and no name of a person belongs in."""
        return self._told(_BY_PEOPLE.sub(r"\1.*", self.path))

    def _told(self, path: str) -> str:
        hint = f" — did you mean '{self.suggestion}'?" if self.suggestion else ""
        where = f"{self.mark}: {path}" if path else str(self.mark)
        return printable(f"{where}: {self.sentence}{hint}")

    def _excerpt(self, width: int) -> str:
        if not self.mark.line:
            return ""
        column, room = self.mark.column - 1, min(width, _WIDEST_SOURCE)
        start = max(0, column - room // 2)
        text = _without_secrets(self.mark.text)[start : start + room]
        return f"\n  {printable(text).rstrip()}\n  {' ' * len(printable(text[: column - start]))}^"


def _without_secrets(text: str) -> str:
    return _SECRET.sub(
        lambda found: "".join(
            "*" if (found.start("value") <= at < found.end("value")) or found["bare"] else character
            for at, character in enumerate(found[0], found.start())
        ),
        text,
    )


class ConfigError(Exception):
    """The configuration cannot be used; ``problems`` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(str(self))

    def __str__(self) -> str:
        return self._listed([str(problem) for problem in self.problems[:_MOST_PROBLEMS]])

    def on_page(self, width: int) -> str:
        """The problems with no more of each line in the file than so many columns show."""
        return self._listed([problem.on_page(width) for problem in self.problems[:_MOST_PROBLEMS]])

    @property
    def in_brief(self) -> str:
        """The problems for logs and records, each without the line that it is in."""
        return self._listed([problem.in_brief for problem in self.problems[:_MOST_PROBLEMS]])

    def _listed(self, lines: list[str]) -> str:
        rest = len(self.problems) - len(lines)
        return "\n".join([*lines, f"and {rest} more"] if rest else lines)


def nearest(word: object, known: Iterable[str]) -> str:
    """The known name that a misspelt one most resembles, or nothing."""
    if not isinstance(word, str) or len(word) > 100:
        return ""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else ""


def dotted(path: Path) -> str:
    """A path as a problem names it: ``clients.0.auth.method``."""
    return ".".join(str(step) for step in path)


def printable(text: str) -> str:
    """The text with control and format characters escaped, since terminals obey them."""
    return "".join(
        character if character.isprintable() else f"\\u{ord(character):04x}" for character in text
    )
