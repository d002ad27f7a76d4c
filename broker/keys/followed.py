"""Which versions of transit keys are published and which one signs, as Vault and the record tell."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import TemporarilyUnavailable
from broker.keys.book import KeyBook
from broker.keys.life import KeyLife, KeyState
from broker.keys.transit_key import TRANSIT_ALGORITHMS, KeyVersion, read_versions
from broker.keys.vault_http import vault_name, vault_path
from broker.keys.vault_session import VaultSession

_TOO_YOUNG = "vault: no version of the key has been published for long enough"
_NOT_SHOWN = "vault: the version that should sign is not shown"
_STALE = "vault: the keys have not been read for too long"


@dataclass(frozen=True, slots=True)
class KeySet:
    """
    What is known of one key: what is published, what signs if anything may, and what signed last.

    The last is remembered even while nothing may sign, since verifiers remember it too. ``fault`` says
    why nothing may.
    """

    published: tuple[KeyVersion, ...]
    signing: KeyVersion | None
    last: str | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """The versions that there were at a moment, in unix seconds."""

    versions: tuple[KeyVersion, ...]
    at: int


class FollowedKeys:
    """
    Follows the versions of the transit keys named, and what is on record about them.

    What was read last stays when it cannot be read anew, but nothing signs by it for long, and nothing is
    published by it once all that was signed is dead (``KeyBook.is_outdated``). The session becomes its
    own, which it closes. Raises ``ValueError`` for names that are not acceptable in a path, and for
    unknown algorithms.
    """

    def __init__(
        self, session: VaultSession, book: KeyBook, *, keys: Mapping[str, str], mount: str
    ) -> None:
        if not TRANSIT_ALGORITHMS.issuperset(keys):
            raise ValueError("a transit key signs ES256 or RS256")
        self.session = session
        self.path = vault_path(mount)
        self.names = {algorithm: vault_name(name) for algorithm, name in keys.items()}
        self.book = book
        self._read: dict[str, _Read] = {}
        self._sets: dict[str, KeySet] = {}
        self._unread: dict[str, str] = {}
        self._looked_at: int | None = None
        self._one_refresh = threading.Lock()

    def refresh(self) -> None:
        """
        Read the record and all versions anew.

        Raises ``TemporarilyUnavailable`` if any of it could not be read; what was known of it stays.
        """
        with self._one_refresh:
            at = self.book.now()
            try:
                # The versions are read last: whatever is on record by then is among them.
                self.book.look()
            except TemporarilyUnavailable as error:
                self._unread = dict.fromkeys(self.names, error.detail)
                faults = [error]
            else:
                found = [self._refresh_one(algorithm, at) for algorithm in self.names]
                faults = [fault for fault in found if fault is not None]
                if len(faults) < len(found):
                    self._looked_at = at
            self._choose()
        if faults:
            raise faults[0]

    def choose(self) -> None:
        """Decide anew about what was read last: time may have passed a moment that is on record."""
        with self._one_refresh:
            self._choose()

    def of(self, algorithm: str) -> KeySet | None:
        """What is known of the key for an algorithm."""
        return self._sets.get(algorithm)

    def published(self) -> Sequence[KeyVersion]:
        """All published versions, in the order of the algorithms; none once they are outdated."""
        if self._looked_at is None or self.book.is_outdated(self._looked_at):
            return []
        sets = self._sets
        return [
            version
            for algorithm in self.names
            if algorithm in sets
            for version in sets[algorithm].published
        ]

    def fault(self, algorithm: str) -> str | None:
        """What is in the way of signing, if anything is."""
        if algorithm not in self._sets:
            return self._unread.get(algorithm, "vault: the key has not been read yet")
        if self.book.is_stale(self._read[algorithm].at):
            return _STALE
        return self._sets[algorithm].fault or None

    def unread(self, algorithm: str) -> str | None:
        """Why the key could not be read anew, or ``None`` if it could."""
        return self._unread.get(algorithm)

    @property
    def is_behind(self) -> bool:
        """Whether anything could not be read anew."""
        return bool(self._unread)

    def fresh_for(self) -> int:
        """For how many seconds nothing signs that is not known here."""
        if len(self._read) < len(self.names):
            return 0
        return min((self.book.fresh_for(read.at) for read in self._read.values()), default=0)

    def close(self) -> None:
        """End the session."""
        self.session.close()

    def _refresh_one(self, algorithm: str, at: int) -> TemporarilyUnavailable | None:
        name = self.names[algorithm]
        try:
            versions = read_versions(self.session, self.path, key_name=name, algorithm=algorithm)
        except TemporarilyUnavailable as error:
            self._unread[algorithm] = error.detail
            return error
        self._read[algorithm] = _Read(versions, at)
        self._unread.pop(algorithm, None)
        return None

    def _choose(self) -> None:
        self._sets = {
            algorithm: self._chosen(algorithm, read.versions)
            for algorithm, read in self._read.items()
        }

    def _chosen(self, algorithm: str, versions: tuple[KeyVersion, ...]) -> KeySet:
        known = self._sets.get(algorithm)
        last = known.last if known else None
        lives = self.book.lives(algorithm, versions, signed=last)
        found = {version.kid: version for version in versions}
        published = tuple(
            found[life.entry.kid] for life in lives if life.is_published and life.entry.kid in found
        )
        active = _active(lives)
        if active is None:
            return KeySet(published, None, last, _TOO_YOUNG)
        if active.entry.kid not in found:
            return KeySet(published, None, last, _NOT_SHOWN)
        return KeySet(published, found[active.entry.kid], active.entry.kid)


def _active(lives: Sequence[KeyLife]) -> KeyLife | None:
    return next((life for life in lives if life.state is KeyState.ACTIVE), None)
