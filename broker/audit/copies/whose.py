"""Of which other log a record of a copy is: its chain names it where a segment begins."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final

from broker.audit.copies.reading import Copied

MOST_LINKS: Final = 16_384
"""So many lines are remembered that the next of another log may follow."""
MOST_LOGS: Final = 64
"""So many other logs are told apart; the rest count as one without a name."""


class Whose:
    """
    Follows the chains of other logs through a copy, and remembers what this one is called.

    A log is called what its file says, and what the ``chain.opened`` records say that it has in common with
    the copy: whoever renames it has to write all of its chains anew.
    """

    def __init__(self, log_id: str | None) -> None:
        self._own = {log_id} if log_id else set()
        self._is_shown = False
        self._counts: Counter[str] = Counter()
        # What the hash of a line leads to: another log by its name, or this one, which is nothing.
        self._links: OrderedDict[str, str] = OrderedDict()

    def met(self, found: Copied) -> None:
        """Take note of a record that the log and the copy have in common."""
        if found.log_id:
            self._own.add(found.log_id)
            self._is_shown = True

    def other_log(self, found: Copied, before: bytes | None) -> str:
        """
        The other log that a record is of, or nothing: then nothing shows that it is not of this one.

        ``before`` is the hash of what this log has in the place before it. What follows a line of this log
        is of this log, whatever it says itself.
        """
        if before is not None and before.hex() == found.prev:
            self._remember(found, "")
            return ""
        named = self._links.get(found.prev, found.log_id)
        if named or found.prev in self._links:
            self._remember(found, named)
        # A log without any name that is known cannot tell others from itself.
        return "" if not self._own or named in self._own else named

    def count(self, name: str) -> bool:
        """Count a record of another log; whether it is the first that is told of it."""
        is_known = name in self._counts
        if not is_known and len(self._counts) >= MOST_LOGS:
            self._counts[""] += 1
            return False
        self._counts[name] += 1
        return not is_known

    @property
    def foreign(self) -> int:
        """How many records were of other logs."""
        return self._counts.total()

    @property
    def others(self) -> Mapping[str, int]:
        """How many records there were of each other log."""
        return dict(self._counts)

    @property
    def doubt(self) -> str:
        """Why what was taken for other logs may be this one under another name; empty where it is not."""
        if not self._counts:
            return ""
        if not self._is_shown:
            return "no record of the copy that names its log is of this log"
        if "" in self._counts:
            return (
                f"the copy names more than {MOST_LOGS} other logs, which are too many to tell apart"
            )
        return ""

    @property
    def mistaken(self) -> frozenset[str]:
        """What was taken for other logs, and was shown later to be this one."""
        return frozenset(self._own & self._counts.keys())

    def _remember(self, found: Copied, name: str) -> None:
        self._links[found.hash.hex()] = name
        if len(self._links) > MOST_LINKS:
            self._links.popitem(last=False)
