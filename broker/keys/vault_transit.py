"""The key store whose private keys never leave Vault: its transit engine signs, in batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.interfaces import SigningKey
from broker.keys.batches import Batches
from broker.keys.care import Care
from broker.keys.followed import FollowedKeys
from broker.keys.transit_key import KeyVersion, sign_digests
from broker.keys.unavailable import signer_unavailable

_LOGGER: Final = logging.getLogger(__name__)
# It has no dot, so no signature of it can ever pass for that of a JWS.
_CANARY: Final = b"delegation broker: is the signer there?"


@dataclass(frozen=True, slots=True)
class TransitSigningKey:
    """A version of a transit key; what is to be signed waits for the next batch."""

    version: KeyVersion
    _batches: Batches[KeyVersion] = field(repr=False)

    @property
    def kid(self) -> str:
        return self.version.published.kid

    @property
    def algorithm(self) -> str:
        return self.version.algorithm

    def sign(self, signing_input: bytes) -> bytes:
        return self.sign_all((signing_input,))[0]

    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]:
        digests = [hashlib.sha256(one).digest() for one in signing_inputs]
        signatures = self._batches.submit_all(self.version, digests)
        return [self._verified(*one) for one in zip(signing_inputs, signatures, strict=True)]

    def probe(self) -> None:
        """Find out whether Vault signs, and close the breaker if it does."""
        signature = self._batches.probe(self.version, hashlib.sha256(_CANARY).digest())
        self._verified(_CANARY, signature)
        self._batches.mend(self.version.name)

    def _verified(self, signing_input: bytes, signature: bytes) -> bytes:
        if self.version.published.verification.verify(signing_input, signature):
            return signature
        fault = "vault: a signature does not verify with the published key"
        self._batches.trip(self.version.name, fault)
        raise signer_unavailable(fault)


class VaultTransitKeyStore:
    """
    Signs in Vault, with the keys that it follows.

    While Vault is away nothing is signed, and the last good public keys are still there. The store
    never raises for that when it is made, and is made within seconds: a background thread asks again
    until it succeeds, reads keys and record at every poll of the schedule, and makes sure that Vault
    signs. Every signature is verified with its published key before anybody gets it.

    A caller of ``sign`` waits for at most ``sign_deadline`` seconds. Make a store in the process
    that uses it, after any fork. What it follows becomes the store's, which closes it.
    """

    def __init__(self, keys: FollowedKeys, *, sign_deadline: float = 1.5) -> None:
        self._keys = keys
        self._told: dict[str, str] = {}
        self._batches = Batches(self._send, deadline=sign_deadline)
        self._care = Care(
            self._tend,
            interval=keys.book.schedule.poll.total_seconds(),
            is_troubled=self._is_troubled,
            choose=keys.choose,
        )
        self._care.start()

    def signing_key(self, algorithm: str) -> SigningKey:
        if algorithm not in self._keys.names:
            raise LookupError(f"no key is configured for {algorithm}")
        fault, signing = self._fault(algorithm), self._signing(algorithm)
        if fault is not None or signing is None:
            raise signer_unavailable(fault or "vault: the key was withdrawn")
        return signing

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return [version.published.members() for version in self._keys.published()]

    def fresh_for(self) -> int:
        return self._keys.fresh_for()

    def refresh(self) -> None:
        """
        Read the published versions and choose anew which one signs.

        Raises ``TemporarilyUnavailable`` if any key could not be read; what was known of it stays.
        """
        self._keys.refresh()

    def close(self) -> None:
        self._batches.close()
        self._care.close()
        self._keys.close()

    def _signing(self, algorithm: str) -> TransitSigningKey | None:
        key_set = self._keys.of(algorithm)
        if key_set is None or key_set.signing is None:
            return None
        return TransitSigningKey(key_set.signing, self._batches)

    def _send(self, version: KeyVersion, digests: Sequence[bytes]) -> Sequence[bytes | None]:
        return sign_digests(self._keys.session, self._keys.path, version=version, digests=digests)

    def _is_troubled(self) -> bool:
        return self._keys.is_behind or any(map(self._fault, self._keys.names))

    def _fault(self, algorithm: str) -> str | None:
        """What is in the way of signing, if anything is."""
        return self._keys.fault(algorithm) or self._batches.fault(algorithm)

    def _tend(self) -> None:
        # What could be read is in use; a fault keeps its breaker open, or its key set as it was, and
        # this thread comes back.
        with suppress(TemporarilyUnavailable):
            self.refresh()
        for signing in map(self._signing, self._keys.names):
            with suppress(TemporarilyUnavailable):
                if signing is not None:
                    signing.probe()
        for algorithm in self._keys.names:
            with suppress(TemporarilyUnavailable):
                self._tell(algorithm)

    def _tell(self, algorithm: str) -> None:
        """Log what became of an algorithm, once."""
        level, state = self._state(algorithm)
        if self._told.get(algorithm) != state:
            self._told[algorithm] = state
            _LOGGER.log(level, "%s %s", algorithm, state)

    def _state(self, algorithm: str) -> tuple[int, str]:
        fault, unread = self._fault(algorithm), self._keys.unread(algorithm)
        if fault is not None:
            return logging.WARNING, f"cannot be signed: {fault}"
        if unread is not None:
            return logging.WARNING, f"is signed, but its keys cannot be read anew: {unread}"
        return logging.INFO, f"is signed with key {self.signing_key(algorithm).kid}"
