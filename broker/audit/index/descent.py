"""What was derived from a token: a tree of records, bounded in depth and width."""

from collections.abc import Sequence
from typing import Final, Protocol

from broker.audit.index.entries import ending_token, issued_token
from broker.audit.query import Branch, Found, Lineage

MOST_RECORDS: Final = 500
"""No lineage has more records."""
MOST_LEVELS: Final = 16
"""No lineage is deeper."""
MOST_CHILDREN: Final = 100
"""So many of the first tokens that were issued for one are told."""


class Tokens(Protocol):
    """Where tokens come from and where they went."""

    def of_token(self, jti: str) -> Found | None:
        """The record of the issue of a token."""
        ...

    def withdrawal(self, jti: str) -> Found | None:
        """The record in which a token itself was withdrawn."""
        ...

    def derived(self, jti: str, *, limit: int) -> Sequence[Found]:
        """The first records in which something was issued for it."""
        ...


class Descent:
    """
    Goes down from a token, once.

    Only what was issued is derived: a use that was refused has no place here. A record stands once, where it
    is found first, so that no forged circle is gone round.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._met: set[tuple[str, int]] = set()
        self._is_cut = False

    def lineage(self, jti: str) -> Lineage:
        """All that is known to be derived from the token."""
        issue = self._tokens.of_token(jti)
        if issue is None:
            # What somebody else has issued is nothing to withdraw here.
            uses = self._derived(jti, MOST_LEVELS, is_ended=False)
            return Lineage(jti, None, self._is_cut, uses)
        self._met.add((issue.file, issue.offset))
        root = self._branch(issue, MOST_LEVELS + 1, is_ended=self._is_withdrawn_above(issue))
        return Lineage(jti, root, self._is_cut)

    def _is_withdrawn_above(self, issue: Found) -> bool:
        found: Found | None = issue
        for _ in range(MOST_LEVELS):
            jti = "" if found is None else ending_token(found.record)
            if not jti:
                return False
            if self._tokens.withdrawal(jti) is not None:
                return True
            found = self._tokens.of_token(jti)
        return False

    def _derived(self, jti: str, levels: int, *, is_ended: bool) -> list[Branch]:
        uses = self._tokens.derived(jti, limit=MOST_CHILDREN)
        if not uses:
            return []
        if levels == 0:
            self._is_cut = True
            return []
        self._is_cut |= len(uses) == MOST_CHILDREN
        # The nearer records are taken first, so that what is cut is the farthest.
        kept = [found for found in uses if self._is_new(found)]
        return [
            self._branch(found, levels, is_ended=is_ended and ending_token(found.record) == jti)
            for found in kept
        ]

    def _branch(self, found: Found, levels: int, *, is_ended: bool) -> Branch:
        jti = issued_token(found.record)
        withdrawal = self._tokens.withdrawal(jti)
        is_over = is_ended or withdrawal is not None
        below = self._derived(jti, levels - 1, is_ended=is_over)
        return Branch(found, below, withdrawal, is_ended)

    def _is_new(self, found: Found) -> bool:
        place = (found.file, found.offset)
        if place in self._met:
            return False
        if len(self._met) >= MOST_RECORDS:
            self._is_cut = True
            return False
        self._met.add(place)
        return True
