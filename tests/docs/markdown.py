"""Documents taken apart: their code blocks, links and inline code."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "policies").glob("*.md")),
)

_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?```(?P<language>[a-z]*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code, the line it begins on, and the comment right before it, if there is one."""

    document: Path
    line: int
    language: str
    text: str
    note: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{name(self.document)}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is a command for the broker of the development mode."""
        return self.language == "sh" and not self.note

    def noted(self, kind: str) -> str:
        """What its comment says after ``kind:``, or nothing."""
        before, _, after = self.note.partition(": ")
        return after if before == kind else ""


def name(document: Path) -> str:
    """The path of a document below the root."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path) -> list[Block]:
    """All blocks of code of a document."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            document,
            text.count("\n", 0, found.start("language")) + 1,
            found["language"],
            found["text"],
            found["note"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def links(document: Path) -> list[str]:
    """The targets of all links of a document."""
    return [found["target"] for found in _LINK.finditer(_prose(document))]


def inline_code(document: Path) -> list[str]:
    """All that stands in backquotes in the prose of a document."""
    return _INLINE.findall(_prose(document))


def _prose(document: Path) -> str:
    return _FENCE.sub("", document.read_text(encoding="utf-8"))
