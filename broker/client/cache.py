"""What is remembered of tokens and refusals: bounded, by hash, and never beyond their time."""

import base64
import hashlib
import json
import math
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from broker.client.answers import Token
from broker.client.asks import IdToken, names_of
from broker.client.failures import Refused, anew

Key = tuple[bytes, str, frozenset[str]]
_Value = TypeVar("_Value")

_SKEW: Final = 5.0
_REFRESH_AT: Final = 0.8
_JITTER: Final = 0.1
_LONGEST_TOKEN: Final = 64 * 1024


def key_of(subject_token: str | None, resource: str, scopes: Sequence[str]) -> Key:
    """
    What a token is remembered by: the hash of the token it is made of, its resource, its scopes.

    A client's own token is made of none.
    """
    digest = b"" if subject_token is None else _digest(subject_token)
    if isinstance(subject_token, IdToken):
        # The same text as another kind of token is another question.
        digest = b"id_token " + digest
    return digest, resource, frozenset(names_of(scopes))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Held:
    """
    A token in use, until ``dead_at`` by the cache's clock and until ``dead_by`` by its monotonic one.

    ``refresh_by`` is monotonic.
    """

    token: Token
    refresh_by: float
    dead_at: float
    dead_by: float


@dataclass(frozen=True, slots=True)
class _Denied:
    refusal: BaseException
    until: float


class TokenCache:
    """
    Tokens and refusals by key, at most ``capacity`` of each; the least used goes first.

    It belongs to one client of one broker, whose tokens it holds. A token is handed out until it, or the
    token it was made of, expires, less a few seconds for the way. It is due to be refreshed before that,
    at a moment that differs from token to token, so that many do not come at once. A refusal is
    remembered for ``denial`` seconds. ``clock`` is unix seconds and may be set; ``monotonic`` may not, and
    what ends by either has ended. ``jitter`` draws from 0 to 1.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        capacity: int = 1024,
        denial: float = 2.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self._monotonic = monotonic
        self._owner: tuple[str, object] | None = None
        self._capacity = capacity
        self._denial = denial
        self._jitter = jitter
        self._held: OrderedDict[Key, Held] = OrderedDict()
        self._denied: OrderedDict[Key, _Denied] = OrderedDict()
        self._dropped: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def belong_to(self, issuer: str, credential: object) -> None:
        """
        Hold the tokens of this client of this broker; raises ``ValueError`` if it holds another's.

        A token is found by what it was made of, which does not tell whose it is.
        """
        owner = self._owner
        if owner is not None and (owner[0] != issuer or owner[1] is not credential):
            raise ValueError("A token cache holds the tokens of one client of one broker.")
        self._owner = issuer, credential

    def find(self, key: Key) -> Held | None:
        """
        The token for a key, if there is one that is alive.

        Raises the refusal that was given a moment ago.
        """
        now, since = self.clock(), self._monotonic()
        with self._lock:
            held = self._held.get(key)
            if held is not None and now < held.dead_at and since < held.dead_by:
                self._held.move_to_end(key)
                return held
            self._held.pop(key, None)
            denied = self._denied.get(key)
        if denied is not None and since < denied.until:
            raise anew(denied.refusal)
        return None

    def is_due(self, held: Held) -> bool:
        """Whether a token that is alive should be replaced by now."""
        return self._monotonic() >= held.refresh_by

    def put(self, key: Key, token: Token, *, subject_token: str | None, asked_at: float) -> None:
        """Remember a token that was asked for at ``asked_at``; one that is all but dead is not."""
        expires_at = asked_at + token.expires_in
        subject_expires_at = None if subject_token is None else expiry_of(subject_token)
        if subject_expires_at is not None:
            expires_at = min(expires_at, subject_expires_at)
        dead_at = expires_at - _SKEW
        now, since = self.clock(), self._monotonic()
        if dead_at <= now:
            return
        share = _REFRESH_AT + _JITTER * (2 * self._jitter() - 1)
        refresh_at = asked_at + share * (dead_at - asked_at)
        held = Held(token, since + refresh_at - now, dead_at, since + dead_at - now)
        with self._lock:
            self._denied.pop(key, None)
            _remember(self._held, key, held, self._capacity)

    def deny(self, key: Key, refusal: Refused) -> None:
        """Remember a refusal for a moment."""
        denied = _Denied(anew(refusal), self._monotonic() + self._denial)
        with self._lock:
            _remember(self._denied, key, denied, self._capacity)

    def postpone(self, key: Key) -> None:
        """Let a token that could not be refreshed be, for a moment, before that is tried again."""
        later = self._monotonic() + self._denial
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held[key] = replace(held, refresh_by=max(held.refresh_by, later))

    def drop(self, token: Token) -> bool:
        """
        Forget a token that was not accepted, and nothing that has taken its place already.

        One that took the place of another a moment ago is kept: whoever refuses both refuses any, and would
        have a token made for every request. The value is whether another one may be asked for.
        """
        now = self._monotonic()
        with self._lock:
            found = [key for key, held in self._held.items() if held.token == token]
            lately = [
                key for key in found if now < self._dropped.get(key, -math.inf) + self._denial
            ]
            for key in set(found).difference(lately):
                del self._held[key]
                _remember(self._dropped, key, now, self._capacity)
        return not lately

    def withdraw(self, token: str) -> None:
        """Forget a token that was withdrawn, and all that was made of it."""
        digest = _digest(token)
        with self._lock:
            for key, held in list(self._held.items()):
                if key[0].endswith(digest) or held.token.access_token == token:
                    del self._held[key]


def _remember(kept: OrderedDict[Key, _Value], key: Key, value: _Value, capacity: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > capacity:
        kept.popitem(last=False)


def expiry_of(token: str) -> float | None:
    """
    When a JWT says that it expires, in unix seconds; ``None`` for what does not say.

    Nothing is verified: it only ever makes the library forget sooner.
    """
    parts = token.split(".", 3)
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN:
        return None
    try:
        payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires_at = payload["exp"]
        is_number = isinstance(expires_at, int | float) and not isinstance(expires_at, bool)
        expiry = float(expires_at) if is_number else math.nan
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return expiry if math.isfinite(expiry) else None
