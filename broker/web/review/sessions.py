"""Who is logged in as an auditor, until when."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broker.errors import Reason, TemporarilyUnavailable

_MOST_OF_ONE: Final = 8


@dataclass(frozen=True, slots=True)
class Auditor:
    """
    Who may read the audit record, and how they proved to be that: by a ``link`` or by ``openid``.

    ``name`` is the account of the system that gave the link, or what the login provider calls them.
    """

    name: str
    how: str


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """For how many seconds a session lives, in all and unused, and how many there are at most."""

    longest: float = 8 * 3600.0
    idle: float = 1800.0
    most: int = 256


@dataclass(frozen=True, slots=True)
class Session:
    """
    A login that has not ended.

    ``form_token`` stands in every form of its pages and in nobody else's (CSRF). ``key`` tells sessions apart
    and opens none. ``ends_at`` is a moment of the sessions' clock.
    """

    auditor: Auditor
    form_token: str = field(repr=False)
    key: str = field(repr=False)
    ends_at: float = field(repr=False)


class Sessions:
    """
    The sessions of one process, in memory alone: they end with it.

    What a browser holds is kept as a hash, so that nobody can read an open door out of a core dump of the
    table. It may be used by any thread. ``monotonic`` is in seconds.
    """

    def __init__(
        self,
        terms: SessionTerms = SessionTerms(),
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._monotonic = monotonic
        self._lock = threading.Lock()
        # Each with the moment of its last request, the longest unused first.
        self._found: OrderedDict[str, tuple[Session, float]] = OrderedDict()

    def begin(self, auditor: Auditor) -> str:
        """
        Begin a session and give its secret, which is told only once.

        Of more than eight of one auditor the one not used for longest ends. Raises
        ``TemporarilyUnavailable`` (``overloaded``) when there are as many as there may be.
        """
        secret = secrets.token_urlsafe(32)
        key = _key(secret)
        with self._lock:
            now = self._monotonic()
            self._forget_ended(now)
            own = [name for name, (one, _) in self._found.items() if one.auditor == auditor]
            for name in own[: max(0, len(own) - _MOST_OF_ONE + 1)]:
                del self._found[name]
            if len(self._found) >= self._terms.most:
                raise TemporarilyUnavailable(Reason.OVERLOADED, retry_after=60)
            ends_at = now + self._terms.longest
            session = Session(auditor, secrets.token_urlsafe(32), key, ends_at)
            self._found[key] = (session, now)
        return secret

    def find(self, secret: str) -> Session | None:
        """The session with this secret, which is used by that, or nothing when it has ended."""
        key = _key(secret)
        with self._lock:
            now = self._monotonic()
            session = self._live(key, now)
            if session is not None:
                self._found[key] = (session, now)
                self._found.move_to_end(key)
            return session

    def is_live(self, session: Session) -> bool:
        """Whether it has not ended; to ask does not use it."""
        with self._lock:
            return self._live(session.key, self._monotonic()) is not None

    def end(self, session: Session) -> None:
        """End a session; one that has ended stays so."""
        with self._lock:
            self._found.pop(session.key, None)

    def __len__(self) -> int:
        """How many sessions are remembered."""
        return len(self._found)

    def _live(self, key: str, now: float) -> Session | None:
        found = self._found.get(key)
        if found is None:
            return None
        if not self._has_ended(*found, now):
            return found[0]
        del self._found[key]
        return None

    def _has_ended(self, session: Session, used_at: float, now: float) -> bool:
        return now >= session.ends_at or now >= used_at + self._terms.idle

    def _forget_ended(self, now: float) -> None:
        ended = [key for key, found in self._found.items() if self._has_ended(*found, now)]
        for key in ended:
            del self._found[key]


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
