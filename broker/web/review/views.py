"""Ready-made questions, as links."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.oauth import GRANT_CLIENT_CREDENTIALS, GRANT_JWT_BEARER
from broker.web.review.asking import Asked, Pairs, address
from broker.web.review.rows import BASE


@dataclass(frozen=True, slots=True)
class SavedView:
    """A question by its name, its address, and whether it is what the page shows now."""

    title: str
    address: str
    is_shown: bool


_VIEWS: Final[Sequence[tuple[str, Pairs]]] = (
    ("All records", ()),
    ("Denials of the last 24 hours", (("since", "24h"), ("decision", "deny"))),
    ("Three actors and more", (("min_depth", "3"),)),
    ("ID-JAGs redeemed", (("grant", GRANT_JWT_BEARER),)),
    ("Machine tokens", (("grant", GRANT_CLIENT_CREDENTIALS),)),
    (
        "Keys",
        tuple(
            ("event", name)
            for name in ("key.publish", "key.rotate", "key.revoke", "key.failed", "key.seen")
        ),
    ),
    ("Auditors", tuple(("event", name) for name in ("audit.login", "audit.logout", "audit.read"))),
    ("Withdrawals", (("event", "token.revoke"), ("event", "token.withdraw"))),
)

_SPANS: Final = (
    ("Last hour", "1h"),
    ("24 hours", "24h"),
    ("7 days", "7d"),
    ("30 days", "30d"),
    ("All time", ""),
)


def saved_views(asked: Asked) -> list[SavedView]:
    """The ready-made questions."""
    return [
        SavedView(title, address(BASE, pairs), set(pairs) == set(asked.pairs))
        for title, pairs in _VIEWS
    ]


def spans(asked: Asked) -> list[SavedView]:
    """The same question over the usual stretches of time."""
    others = tuple(pair for pair in asked.pairs if pair[0] not in {"since", "until"})
    found = []
    for title, since in _SPANS:
        pairs = (("since", since), *others) if since else others
        found.append(SavedView(title, address(BASE, pairs), set(pairs) == set(asked.pairs)))
    return found
