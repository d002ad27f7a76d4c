"""Keys that are born and die in this process, and those that other replicas state to be theirs."""

import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.errors import TokenRejected
from broker.jws import read_token
from broker.keys.board import Listed, StatementBoard
from broker.keys.book import KeyBook
from broker.keys.key_files import LocalSigningKey
from broker.keys.life import LONGEST_STATED_LIFE, KeyState
from broker.keys.published import PublishedKey, published_key
from broker.keys.statement import (
    KeyStatement,
    StatementRefused,
    certifiers_of,
    read_statement,
    sign_statement,
)
from broker.keys.transit_key import KeyVersion, read_versions
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_name, vault_path
from broker.keys.vault_session import VaultSession
from broker.model import KeyChange

_LOGGER: Final = logging.getLogger(__name__)
_MOST_REMEMBERED: Final = 1024

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Certifier:
    """
    The transit key that statements are signed with, and what they say besides.

    ``lifetime`` is how long a stated key signs.
    """

    session: VaultSession
    mount: str
    key_name: str
    issuer: str
    replica: str
    lifetime: timedelta

    def versions(self) -> Sequence[KeyVersion]:
        """The versions that Vault shows, newest first; each may have signed a statement that counts."""
        return read_versions(
            self.session,
            vault_path(self.mount),
            key_name=vault_name(self.key_name),
            algorithm="ES256",
        )


@dataclass(frozen=True, slots=True)
class StatedKey:
    """A verified statement. ``ended_at`` is when its replica stopped using it, or will at the latest."""

    statement: KeyStatement
    ended_at: int

    def state(self, now: int, *, keep_published: timedelta, is_revoked: bool) -> KeyState:
        """Where in its life the key is at a moment."""
        if is_revoked:
            return KeyState.REVOKED
        if now >= self.ended_at + keep_published.total_seconds():
            return KeyState.RETIRED
        if now >= self.ended_at:
            return KeyState.RETIRING
        return KeyState.PENDING if now < self.statement.begins_at else KeyState.ACTIVE

    def change(self, to_state: KeyState, at: int, *, from_state: KeyState | None) -> KeyChange:
        """A change of this key, for the audit record."""
        one = self.statement
        former = None if from_state is None else from_state.value
        return KeyChange(one.kid, one.algorithm, former, to_state.value, at, one.replica)


def stated_keys(
    listed: Sequence[Listed], certifiers: Mapping[str, PublishedKey], *, issuer: str, now: int
) -> Sequence[StatedKey]:
    """
    What is listed and verifies, for whoever only wants to see it: each key once.

    Of several statements of one key that counts by which it ends last, as it does for who publishes it.
    """
    found: dict[str, StatedKey] = {}
    for one in listed:
        with suppress(StatementRefused):
            statement = read_statement(
                one.statement, issuer=issuer, certifiers=certifiers, latest_made_at=now
            )
            stated = _stated(statement, one)
            known = found.setdefault(statement.kid, stated)
            if stated.ended_at > known.ended_at:
                found[statement.kid] = stated
    return list(found.values())


def _stated(statement: KeyStatement, listed: Listed) -> StatedKey:
    ended_at = statement.ends_at if listed.ended_at is None else listed.ended_at
    return StatedKey(statement, min(ended_at, statement.ends_at))


@dataclass(frozen=True, slots=True)
class _Own:
    """
    A key of this process with its statement.

    ``listed_at`` is when it was put up for everybody to read, in unix seconds.
    """

    key: LocalSigningKey
    text: str
    statement: KeyStatement
    listed_at: int | None = None


class EphemeralKeys:
    """
    Follows the board of statements, and keeps keys of its own on it.

    A key of another replica is published once its statement has been verified, and until its tokens
    are dead, whatever happens to the board. An own key signs once it has stood on the board for long
    enough; it is replaced ahead of its end. ``look`` is to be called from one thread.
    """

    def __init__(
        self,
        board: StatementBoard,
        certifier: Certifier,
        book: KeyBook,
        *,
        algorithms: Sequence[str],
    ) -> None:
        self._board = board
        self._certifier = certifier
        self._book = book
        self._algorithms = tuple(algorithms)
        self._known: Mapping[str, StatedKey] = {}
        self._own: tuple[_Own, ...] = ()
        self._uncertified: dict[str, _PrivateKey] = {}
        self._refused: frozenset[str] = frozenset()
        self._one_look = threading.Lock()
        self.read_at: int | None = None

    def look(self) -> None:
        """
        Read what is stated and revoked, and put up what is missing of one's own.

        Raises ``TemporarilyUnavailable`` when any of it cannot be done; what was known stays.
        """
        with self._one_look:
            at = self._book.now()
            self._book.look()
            versions = self._certifier.versions()
            listed = self._board.read()
            self._take(listed, certifiers_of(versions))
            self.read_at = at
            self._put_up(versions[0] if versions else None)

    def published(self) -> Sequence[PublishedKey]:
        """
        The keys of all replicas that are in use or may have signed a token that lives, each once.

        An ECDSA signature has a twin that verifies too, so one key may be stated by two texts.
        """
        revoked = self._book.revoked
        found = {
            known.statement.kid: known.statement.published
            for known in self._known.values()
            if not self._is_dead(known.ended_at) and known.statement.kid not in revoked
        }
        return list(found.values())

    def signing(self, algorithm: str) -> LocalSigningKey | None:
        """The newest own key that may sign now, if there is one."""
        if self.read_at is None or self._book.is_stale(self.read_at):
            return None
        now, revoked = self._book.now(), self._book.revoked
        ahead = self._book.schedule.publish_ahead.total_seconds()
        ready = (
            own.key
            for own in self._own
            if own.key.algorithm == algorithm
            and own.listed_at is not None
            and max(own.listed_at + ahead, own.statement.begins_at) <= now < own.statement.ends_at
            and own.key.kid not in revoked
        )
        return max(ready, key=lambda key: key.number, default=None)

    def withdraw(self) -> None:
        """
        Forget the own keys, and state that they sign no more; raises if that cannot be stated.

        They stay published for as long as their tokens may live.
        """
        texts = {own.text for own in self._own}
        self._own = ()
        self._uncertified = {}
        now = self._book.now()
        if texts:
            self._board.change(lambda listed: self._without_dead(_ended(listed, texts, now)))

    def forget_if_cut_off(self) -> None:
        """Forget the own keys when Vault has been away for too long; others are made afterwards."""
        if self.read_at is not None and self._book.is_stale(self.read_at):
            self._own = ()

    def fresh_for(self) -> int:
        """For how many seconds no replica signs with a key in memory that is not known here."""
        return 0 if self.read_at is None else self._book.fresh_for(self.read_at)

    def _take(self, listed: Sequence[Listed], certifiers: Mapping[str, PublishedKey]) -> None:
        """Believe what is stated, if it verifies, and go on believing what did before."""
        known = {
            text: one
            for text, one in self._known.items()
            if one.statement.certifier in certifiers and not self._is_dead(one.ended_at)
        }
        refused = set()
        for one in listed:
            try:
                statement = self._verified(one.statement, known, certifiers)
            except StatementRefused as error:
                refused.add(one.statement)
                self._tell_refused(one.statement, error)
                continue
            known[one.statement] = _stated(statement, one)
        if len(known) > _MOST_REMEMBERED:
            raise signer_unavailable("vault: there are too many statements of keys")
        self._known, self._refused = known, frozenset(refused)
        self._note_own(listed)

    def _verified(
        self, text: str, known: Mapping[str, StatedKey], certifiers: Mapping[str, PublishedKey]
    ) -> KeyStatement:
        if text in known:
            return known[text].statement
        latest = self._book.now() + int(self._book.schedule.clock_difference.total_seconds())
        return read_statement(
            text, issuer=self._certifier.issuer, certifiers=certifiers, latest_made_at=latest
        )

    def _note_own(self, listed: Sequence[Listed]) -> None:
        """
        Notice which own keys still stand on the board.

        One that was taken off has to stand there anew for its whole time before it signs; one that was
        declared ended, revoked, or can no longer be verified is not used again.
        """
        standing = {one.statement for one in listed}
        own = []
        for one in self._own:
            known = self._known.get(one.text)
            is_in_use = known is not None and known.ended_at == one.statement.ends_at
            if not is_in_use or one.key.kid in self._book.revoked:
                continue
            own.append(one if one.text in standing else replace(one, listed_at=None))
        self._own = tuple(own)

    def _put_up(self, certifier: KeyVersion | None) -> None:
        """Make the keys that are missing, and list what is not listed."""
        now = self._book.now()
        self._own = tuple(one for one in self._own if now < one.statement.ends_at)
        for algorithm in filter(self._is_wanted, self._algorithms):
            self._own = (*self._own, self._made(algorithm, certifier))
        missing = [one for one in self._own if one.listed_at is None]
        if not missing:
            return
        self._board.change(lambda listed: self._with(listed, [one.text for one in missing]))
        listed_at = self._book.now()
        self._own = tuple(
            replace(one, listed_at=listed_at) if one.listed_at is None else one for one in self._own
        )
        put_up = {one.text: StatedKey(one.statement, one.statement.ends_at) for one in missing}
        self._known = {**self._known, **put_up}

    def _is_wanted(self, algorithm: str) -> bool:
        """Whether a key has to be made, early enough to take over from the one there is."""
        ends = [one.statement.ends_at for one in self._own if one.key.algorithm == algorithm]
        early = self._book.schedule.publish_ahead + self._certifier.lifetime / 3
        return self._book.now() + early.total_seconds() >= max(ends, default=0)

    def _made(self, algorithm: str, certifier: KeyVersion | None) -> _Own:
        if certifier is None:
            raise signer_unavailable("vault: the certifier has no key")
        now, schedule = self._book.now(), self._book.schedule
        begins_at = now + int(schedule.publish_ahead.total_seconds())
        # One that could not be certified is kept for the next attempt, since making it takes a while.
        if algorithm not in self._uncertified:
            self._uncertified[algorithm] = _new_key(algorithm)
        private_key = self._uncertified[algorithm]
        published = published_key(private_key.public_key(), algorithm)
        statement = KeyStatement(
            self._certifier.replica,
            algorithm,
            published,
            made_at=now,
            begins_at=begins_at,
            ends_at=begins_at + int(self._certifier.lifetime.total_seconds()),
            certifier=certifier.kid,
        )
        text = sign_statement(
            self._certifier.session,
            vault_path(self._certifier.mount),
            issuer=self._certifier.issuer,
            statement=statement,
            by=certifier,
        )
        del self._uncertified[algorithm]
        number = max((one.key.number for one in self._own), default=0) + 1
        key = LocalSigningKey(published, algorithm, number, now, private_key)
        return _Own(key, text, statement)

    def _with(self, listed: Sequence[Listed], texts: Sequence[str]) -> Sequence[Listed]:
        standing = {one.statement for one in listed}
        missing = [Listed(text) for text in texts if text not in standing]
        return [*self._without_dead(listed), *missing]

    def _without_dead(self, listed: Sequence[Listed]) -> Sequence[Listed]:
        """
        What is listed without what cannot matter to anybody.

        What one's own Vault cannot verify may yet be verified by others, so it stays until its own end.
        """
        return [one for one in listed if not self._is_dead(_end_of(one, self._book.now()))]

    def _is_dead(self, ended_at: int) -> bool:
        keep = self._book.schedule.keep_published.total_seconds()
        return self._book.now() >= ended_at + keep

    def _tell_refused(self, text: str, error: StatementRefused) -> None:
        if text not in self._refused:
            _LOGGER.warning("a statement of a key is not believed: %s", error)


def _end_of(listed: Listed, now: int) -> int:
    """When a listed key signs for the last time, as far as it says so itself; 0 for nonsense."""
    try:
        claims = read_token(listed.statement).unverified_claims
    except TokenRejected:
        return 0
    ends_at = claims.get("exp")
    if type(ends_at) is not int or ends_at > now + LONGEST_STATED_LIFE.total_seconds():
        return 0
    return ends_at if listed.ended_at is None else min(ends_at, listed.ended_at)


def _ended(listed: Sequence[Listed], texts: set[str], now: int) -> Sequence[Listed]:
    return [
        replace(one, ended_at=now) if one.statement in texts and one.ended_at is None else one
        for one in listed
    ]


def _new_key(algorithm: str) -> _PrivateKey:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def replica_name(host: str, worker: str) -> str:
    """A name for this process that no other has, by which people find it: its host and its worker."""
    return "-".join(filter(None, (host[:36], worker[:14], secrets.token_hex(6))))
