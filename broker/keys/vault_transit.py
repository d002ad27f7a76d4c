"""The key store whose private keys never leave Vault: its transit engine signs, in batches."""

import hashlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.interfaces import SigningKey
from broker.keys.batches import Batches
from broker.keys.transit_key import (
    TRANSIT_ALGORITHMS,
    KeyVersion,
    SigningChoice,
    read_versions,
    sign_digests,
)
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_name, vault_path
from broker.keys.vault_session import VaultSession

_LOGGER: Final = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.5
_FIRST_ROUND_SECONDS: Final = 3.0
_JOIN_SECONDS: Final = 5.0
# It has no dot, so no signature of it can ever pass for that of a JWS.
_CANARY: Final = b"delegation broker: is the signer there?"


@dataclass(frozen=True, slots=True)
class TransitSigningKey:
    """A version of a transit key; ``sign`` waits for the next batch."""

    version: KeyVersion
    _batches: Batches[KeyVersion] = field(repr=False)

    @property
    def kid(self) -> str:
        return self.version.published.kid

    @property
    def algorithm(self) -> str:
        return self.version.algorithm

    def sign(self, signing_input: bytes) -> bytes:
        digest = hashlib.sha256(signing_input).digest()
        return self._verified(signing_input, self._batches.submit(self.version, digest))

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


@dataclass(frozen=True, slots=True)
class _KeySet:
    """
    What is known of one key: what is published, what signs if any may, and what signed last.

    The last is remembered even while nothing may sign, since verifiers remember it too.
    """

    published: tuple[KeyVersion, ...]
    signing: TransitSigningKey | None
    last: KeyVersion | None


class VaultTransitKeyStore:
    """
    Signs in Vault. ``keys`` names a transit key for each algorithm, ``ES256`` or ``RS256``.

    While Vault is away nothing is signed, and the last good public keys are still there. The store
    never raises for that when it is made, and is made within seconds: a background thread asks again
    until it succeeds, reads the published versions every ``refresh_interval`` seconds, and makes
    sure that Vault signs. A version signs only when ``signing_version`` chose it out of those that
    are published here. Every signature is verified with its published key before anybody gets it.

    A caller of ``sign`` waits for at most ``sign_deadline`` seconds. Make a store in the process
    that uses it, after any fork. The session becomes the store's, which closes it. Raises
    ``ValueError`` for names that are not acceptable in a path, and for unknown algorithms.
    """

    def __init__(
        self,
        session: VaultSession,
        *,
        keys: Mapping[str, str],
        signing_version: SigningChoice,
        mount: str = "transit",
        sign_deadline: float = 1.5,
        refresh_interval: float = 5.0,
    ) -> None:
        if not TRANSIT_ALGORITHMS.issuperset(keys):
            raise ValueError("a transit key signs ES256 or RS256")
        self._session = session
        self._path = vault_path(mount)
        self._names = {algorithm: vault_name(name) for algorithm, name in keys.items()}
        self._choose = signing_version
        self._interval = refresh_interval
        self._sets: dict[str, _KeySet] = {}
        self._unread: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._one_refresh = threading.Lock()
        self._closing = threading.Event()
        self._batches = Batches(self._send, deadline=sign_deadline)
        self._first_round = threading.Event()
        self._tender = threading.Thread(target=self._run, name="broker-keys", daemon=True)
        self._tender.start()
        self._first_round.wait(_FIRST_ROUND_SECONDS)

    def signing_key(self, algorithm: str) -> SigningKey:
        if algorithm not in self._names:
            raise LookupError(f"no key is configured for {algorithm}")
        key_set = self._sets.get(algorithm)
        fault = self._fault(algorithm)
        if fault is not None or key_set is None or key_set.signing is None:
            raise signer_unavailable(fault or "vault: the key was withdrawn")
        return key_set.signing

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        sets = self._sets
        return [
            version.published.members()
            for algorithm in self._names
            if algorithm in sets
            for version in sets[algorithm].published
        ]

    def refresh(self) -> None:
        """
        Read the published versions and choose anew which one signs.

        Raises ``TemporarilyUnavailable`` if any key could not be read; what was known of it stays.
        """
        faults = []
        with self._one_refresh:
            for algorithm, name in self._names.items():
                try:
                    self._refresh_one(algorithm, name)
                except TemporarilyUnavailable as error:
                    self._unread[algorithm] = error.detail
                    faults.append(error)
        if faults:
            raise faults[0]

    def close(self) -> None:
        self._closing.set()
        self._batches.close()
        self._tender.join(_JOIN_SECONDS)
        self._session.close()

    def _refresh_one(self, algorithm: str, name: str) -> None:
        known = self._sets.get(algorithm)
        last = known.last if known else None
        published = read_versions(self._session, self._path, key_name=name, algorithm=algorithm)
        chosen = self._choose(published, last)
        signing = TransitSigningKey(chosen, self._batches) if chosen else None
        # What is published and what signs are replaced together, so that neither is ahead.
        self._sets = {**self._sets, algorithm: _KeySet(published, signing, chosen or last)}
        self._unread.pop(algorithm, None)

    def _send(self, version: KeyVersion, digests: Sequence[bytes]) -> Sequence[bytes | None]:
        return sign_digests(self._session, self._path, version=version, digests=digests)

    def _run(self) -> None:
        due_at = time.monotonic()
        while not self._closing.is_set():
            if self._is_troubled() or time.monotonic() >= due_at:
                self._tend_and_go_on()
                due_at = time.monotonic() + self._interval
            self._first_round.set()
            self._closing.wait(_RETRY_SECONDS)

    def _tend_and_go_on(self) -> None:
        try:
            self._tend()
        except Exception:
            # Without this thread nothing that is amiss now would ever be put right.
            _LOGGER.exception("the signing keys could not be looked after")

    def _is_troubled(self) -> bool:
        return bool(self._unread) or any(map(self._fault, self._names))

    def _fault(self, algorithm: str) -> str | None:
        """What is in the way of signing, if anything is."""
        if algorithm not in self._sets:
            return self._unread.get(algorithm, "vault: the key has not been read yet")
        if self._sets[algorithm].signing is None:
            return "vault: no version of the key has been published for long enough"
        return self._batches.fault(algorithm)

    def _tend(self) -> None:
        # What could be read is in use; a fault keeps its breaker open, or its key set as it was, and
        # this thread comes back.
        with suppress(TemporarilyUnavailable):
            self.refresh()
        for key_set in self._sets.values():
            with suppress(TemporarilyUnavailable):
                if key_set.signing is not None:
                    key_set.signing.probe()
        for algorithm in self._names:
            with suppress(TemporarilyUnavailable):
                self._tell(algorithm)

    def _tell(self, algorithm: str) -> None:
        """Log what became of an algorithm, once."""
        level, state = self._state(algorithm)
        if self._told.get(algorithm) != state:
            self._told[algorithm] = state
            _LOGGER.log(level, "%s %s", algorithm, state)

    def _state(self, algorithm: str) -> tuple[int, str]:
        fault, unread = self._fault(algorithm), self._unread.get(algorithm)
        if fault is not None:
            return logging.WARNING, f"cannot be signed: {fault}"
        if unread is not None:
            return logging.WARNING, f"is signed, but its keys cannot be read anew: {unread}"
        return logging.INFO, f"is signed with key {self.signing_key(algorithm).kid}"
