"""Client secrets against their stored hashes, at a price that is paid once and bounded."""

import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
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
    one is hashed by argon2id; at most ``parallel`` of these run at once, and a success is remembered
    by a keyed hash that lives in this process only. Every failure costs one argon2id computation while
    ``has_chosen_secrets`` says so, and the time tells nothing about the client.
    """

    def __init__(
        self,
        *,
        has_chosen_secrets: Callable[[], bool],
        now: Now,
        parallel: int = 2,
        patience: float = 2.0,
    ) -> None:
        self._has_chosen_secrets = has_chosen_secrets
        self._now = now
        self._patience = patience
        self._hasher = PasswordHasher()
        self._slots = threading.BoundedSemaphore(parallel)
        self._memory_key = os.urandom(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._decoy: str | None = None

    def is_one_of(self, secret: str, stored: Sequence[SecretHash]) -> bool:
        """
        Whether ``secret`` matches a stored hash that is still in its time.

        Raises ``TemporarilyUnavailable`` (``overloaded``) when no slot for argon2id comes free.
        """
        raw = secret.encode("utf-8", "surrogatepass")
        if not 0 < len(raw) <= LONGEST_SECRET:
            raw = b""
        now = self._now()
        current = [one for one in stored if one.not_after is None or now < one.not_after]
        is_generated_match = self._matches_generated(raw, current)
        if raw and (is_generated_match or self._matches_chosen(raw, current)):
            return True
        if self._has_chosen_secrets():
            self._spend_time(raw)
        return False

    def _spend_time(self, raw: bytes) -> None:
        if self._decoy is None:
            self._decoy = self._hasher.hash(os.urandom(16))
        self._verify_slowly(self._decoy, raw)

    def _matches_generated(self, raw: bytes, stored: Sequence[SecretHash]) -> bool:
        digest = GENERATED_PREFIX + hashlib.sha256(raw).hexdigest()
        matches = [hmac.compare_digest(digest, one.encoded) for one in stored if _is_generated(one)]
        return any(matches)

    def _matches_chosen(self, raw: bytes, stored: Sequence[SecretHash]) -> bool:
        return any(self._matches_one_chosen(raw, one) for one in stored if not _is_generated(one))

    def _matches_one_chosen(self, raw: bytes, stored: SecretHash) -> bool:
        name = hmac.digest(self._memory_key, stored.encoded.encode() + b"\0" + raw, "sha256")
        with self._lock:
            if name in self._remembered:
                self._remembered.move_to_end(name)
                return True
        if not self._verify_slowly(stored.encoded, raw):
            return False
        with self._lock:
            self._remembered[name] = None
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return True

    def _verify_slowly(self, encoded: str, raw: bytes) -> bool:
        if not self._slots.acquire(timeout=self._patience):
            raise TemporarilyUnavailable(Reason.OVERLOADED, detail="argon2id slots")
        try:
            return self._hasher.verify(encoded, raw)
        except (Argon2Error, InvalidHashError):
            return False
        finally:
            self._slots.release()


def _is_generated(stored: SecretHash) -> bool:
    return stored.encoded.startswith(GENERATED_PREFIX)
