"""Client secrets against their stored hashes, at a price that is paid once and bounded."""

import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import Now
from broker.model import SecretHash

GENERATED_PREFIX: Final = "sha256:"
CHOSEN_PREFIX: Final = "$argon2id$"
LONGEST_SECRET: Final = 1024
_MOST_REMEMBERED: Final = 4096


class SecretVerifier:
    """
    Tells whether a secret is one of those whose hashes are stored.

    A generated secret has 256 bits, so a plain SHA-256 protects it and costs next to nothing. A chosen
    one is hashed by argon2id; one of these runs at a time, ``waiting`` more may wait for it, and a
    success is remembered by a keyed hash that lives in this process only. ``most_chosen`` is the
    greatest number of chosen secrets that any client has: every failure costs that many argon2id
    computations, whoever it names, so that the time tells nothing.
    """

    def __init__(
        self, *, most_chosen: Callable[[], int], now: Now, waiting: int = 2, patience: float = 2.0
    ) -> None:
        self._most_chosen = most_chosen
        self._now = now
        self._patience = patience
        self._hasher = PasswordHasher()
        self._places = threading.BoundedSemaphore(1 + waiting)
        self._turn = threading.Lock()
        self._memory_key = os.urandom(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._decoy: str | None = None

    def is_one_of(self, spellings: Sequence[str], stored: Sequence[SecretHash]) -> bool:
        """
        Whether the secret, in one of its ``spellings``, matches a stored hash that is in its time.

        Only the first spelling is tried on chosen secrets. Raises ``TemporarilyUnavailable``
        (``overloaded``), at once, when too many callers wait for argon2id already.
        """
        raws = [_raw(spelling) for spelling in spellings]
        now = self._now()
        current = [one for one in stored if one.not_after is None or now < one.not_after]
        generated = [one for one in current if _is_generated(one)]
        chosen = [one for one in current if not _is_generated(one)]
        is_generated_match = [
            raw != b"" and self._matches_generated(raw, generated) for raw in raws
        ]
        return any(is_generated_match) or self._matches_chosen(raws[0], chosen)

    def _matches_generated(self, raw: bytes, stored: Sequence[SecretHash]) -> bool:
        digest = GENERATED_PREFIX + hashlib.sha256(raw).hexdigest()
        matches = [hmac.compare_digest(digest, one.encoded) for one in stored]
        return any(matches)

    def _matches_chosen(self, raw: bytes, stored: Sequence[SecretHash]) -> bool:
        names = [self._name(raw, one.encoded) for one in stored]
        with self._lock:
            for name in names:
                if name in self._remembered:
                    self._remembered.move_to_end(name)
                    return True
        rounds = self._most_chosen()
        if rounds == 0:
            return False
        with self._place():
            matches = [self._is_verified(one.encoded, raw) for one in stored]
            for _ in range(rounds - len(stored)):
                self._is_verified(self._decoy_hash(), raw)
        for name, is_match in zip(names, matches, strict=True):
            if is_match and raw:
                self._remember(name)
                return True
        return False

    def _name(self, raw: bytes, encoded: str) -> bytes:
        return hmac.digest(self._memory_key, encoded.encode() + b"\0" + raw, "sha256")

    def _remember(self, name: bytes) -> None:
        with self._lock:
            self._remembered[name] = None
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place in the short queue for argon2id, whose length is what keeps others served."""
        if not self._places.acquire(blocking=False):
            raise TemporarilyUnavailable(Reason.OVERLOADED, detail="argon2id queue")
        try:
            if not self._turn.acquire(timeout=self._patience):
                raise TemporarilyUnavailable(Reason.OVERLOADED, detail="argon2id turn")
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def _decoy_hash(self) -> str:
        if self._decoy is None:
            self._decoy = self._hasher.hash(os.urandom(16))
        return self._decoy

    def _is_verified(self, encoded: str, raw: bytes) -> bool:
        try:
            return self._hasher.verify(encoded, raw)
        except (Argon2Error, InvalidHashError):
            return False


def _raw(secret: str) -> bytes:
    raw = secret.encode("utf-8", "surrogatepass")
    return raw if len(raw) <= LONGEST_SECRET else b""


def _is_generated(stored: SecretHash) -> bool:
    return stored.encoded.startswith(GENERATED_PREFIX)
