"""What is remembered of tokens and refusals: bounded, by hash, and never beyond their time."""

import base64
import hashlib
import json
import math
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from broker.client.answers import Token
from broker.client.asks import names_of
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
    digest = b"" if subject_token is None else hashlib.sha256(subject_token.encode()).digest()
    return digest, resource, frozenset(names_of(scopes))


@dataclass(frozen=True, slots=True)
class Held:
    """A token in use. ``refresh_at`` and ``dead_at`` are seconds of the cache's clock."""

    token: Token
    refresh_at: float
    dead_at: float


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
    remembered for ``denial`` seconds. ``clock`` is unix seconds, and ``jitter`` draws from 0 to 1.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        capacity: int = 1024,
        denial: float = 2.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self._capacity = capacity
        self._denial = denial
        self._jitter = jitter
        self._held: OrderedDict[Key, Held] = OrderedDict()
        self._denied: OrderedDict[Key, _Denied] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def find(self, key: Key) -> Held | None:
        """
        The token for a key, if there is one that is alive.

        Raises the refusal that was given a moment ago.
        """
        now = self.clock()
        with self._lock:
            held = self._held.get(key)
            if held is not None and now < held.dead_at:
                self._held.move_to_end(key)
                return held
            self._held.pop(key, None)
            denied = self._denied.get(key)
        if denied is not None and now < denied.until:
            raise anew(denied.refusal)
        return None

    def is_due(self, held: Held) -> bool:
        """Whether a token that is alive should be replaced by now."""
        return self.clock() >= held.refresh_at

    def put(self, key: Key, token: Token, *, subject_token: str | None, asked_at: float) -> None:
        """Remember a token that was asked for at ``asked_at``; one that is all but dead is not."""
        expires_at = asked_at + token.expires_in
        subject_expires_at = None if subject_token is None else expiry_of(subject_token)
        if subject_expires_at is not None:
            expires_at = min(expires_at, subject_expires_at)
        dead_at = expires_at - _SKEW
        if dead_at <= self.clock():
            return
        share = _REFRESH_AT + _JITTER * (2 * self._jitter() - 1)
        refresh_at = asked_at + share * (dead_at - asked_at)
        with self._lock:
            self._denied.pop(key, None)
            _remember(self._held, key, Held(token, refresh_at, dead_at), self._capacity)

    def deny(self, key: Key, refusal: Refused) -> None:
        """Remember a refusal for a moment."""
        denied = _Denied(anew(refusal), self.clock() + self._denial)
        with self._lock:
            _remember(self._denied, key, denied, self._capacity)

    def postpone(self, key: Key) -> None:
        """Let a token that could not be refreshed be, for a moment, before that is tried again."""
        later = self.clock() + self._denial
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held[key] = replace(held, refresh_at=max(held.refresh_at, later))

    def drop(self, token: Token) -> None:
        """Forget a token that was not accepted, and nothing that has taken its place already."""
        with self._lock:
            for key in [key for key, held in self._held.items() if held.token == token]:
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
