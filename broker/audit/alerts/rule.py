"""What a rule is: it looks at records one by one, or at how things stand, and tells what it finds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from broker.audit.record import Record


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that somebody should look at.

    ``about`` is what it is about: the same is told once in a while only. ``record`` is where it showed, if
    anywhere.
    """

    about: str
    record: Record | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """
    How things stand at a moment, in unix seconds.

    ``damaged`` says by chain, or by another name of a part of the record, what is wrong with it. ``backlogs``
    counts by sink the records that it has not taken. ``unverified`` says why it is not known whether the
    record is whole, and is empty where that is known or not asked for.
    """

    at: float
    damaged: Mapping[str, str] = field(default_factory=dict)
    backlogs: Mapping[str, int] = field(default_factory=dict)
    unverified: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a rule is to judge; ``within`` is in seconds. What both mean, each rule says."""

    threshold: int
    within: float


class Rule:
    """
    A rule, for one thread. All that it remembers is bounded.

    ``usual_threshold`` and ``usual_within`` hold unless the operator says otherwise. ``memory`` is what is
    to outlive a restart, as lines of text, and ``recall`` takes what an earlier rule of this name gave;
    lines that it cannot read it passes over. What a rule finds that ``is_grave`` is logged as critical.
    """

    name: ClassVar[str]
    is_grave: ClassVar[bool] = False
    usual_threshold: ClassVar[int] = 1
    usual_within: ClassVar[timedelta] = timedelta(minutes=5)

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def see(self, record: Record, at: float) -> Iterator[Finding]:  # noqa: ARG002 - most rules look.
        """Look at a record of a moment, in unix seconds; chains are not in step with each other."""
        yield from ()

    def look(self, status: Status) -> Iterator[Finding]:  # noqa: ARG002 - some rules look.
        """Look at how things stand, about once a second."""
        yield from ()

    def begin_anew(self) -> None:
        """Forget what was counted by time: the clock has gone back."""

    def memory(self) -> Sequence[str]:
        return ()

    def recall(self, lines: Sequence[str]) -> None:  # noqa: ARG002 - some rules remember.
        return


def client_named(record: Record) -> str:
    """
    The client of a record, by a name for what is counted of it; empty where none is named.

    Whoever only says to be a client has another name, so as to use up no alert of that client.
    """
    return record.client_id or f"\0{record.unverified_client_id or ''}".rstrip("\0")


def is_issue(record: Record) -> bool:
    """Whether the record is of a token that was issued."""
    return record.event == "token.issue" and record.decision == "permit"
