"""The key store whose keys live briefly in this process, certified by a key that never leaves Vault."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from broker.errors import TemporarilyUnavailable
from broker.interfaces import SigningKey
from broker.keys.care import Care
from broker.keys.ephemeral import EphemeralKeys
from broker.keys.vault_transit import VaultTransitKeyStore

_LOGGER: Final = logging.getLogger(__name__)


class VaultEphemeralKeyStore:
    """
    Signs with a key of this process, and in Vault until that key has been published for long enough.

    Nothing is published before it is known what other replicas publish. While Vault is away its own
    key signs on, for as long as the schedule allows for an outage; then it is forgotten. On closing it
    is forgotten too, and stated to have ended. Make a store in the process that uses it, after any
    fork; ``fallback`` becomes the store's, which closes it.
    """

    def __init__(self, keys: EphemeralKeys, fallback: VaultTransitKeyStore, *, poll: float) -> None:
        self._keys = keys
        self._fallback = fallback
        self._told = ""
        self._is_troubled = False
        self._care = Care(self._tend, interval=poll, is_troubled=lambda: self._is_troubled)
        self._care.start()

    def signing_key(self, algorithm: str) -> SigningKey:
        own = None if self._care.is_over else self._keys.signing(algorithm)
        return own if own is not None else self._fallback.signing_key(algorithm)

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        in_vault = self._fallback.public_keys()
        if not in_vault or self._keys.read_at is None:
            # What others sign with is not known yet, and a set without it would be kept.
            return []
        in_memory = (key.members() for key in self._keys.published())
        # A set that names a key twice is refused by verifiers as a whole.
        return list({jwk["kid"]: jwk for jwk in (*in_memory, *in_vault)}.values())

    def fresh_for(self) -> int:
        return min(self._fallback.fresh_for(), self._keys.fresh_for())

    def refresh(self) -> None:
        """Look at everything anew; raises ``TemporarilyUnavailable`` if any of it cannot be read."""
        self._fallback.refresh()
        self._keys.look()

    def close(self) -> None:
        if self._care.is_over:
            return
        self._care.close()
        with suppress(TemporarilyUnavailable):
            self._keys.withdraw()
        self._fallback.close()

    def _tend(self) -> None:
        try:
            self._keys.look()
        except TemporarilyUnavailable as error:
            self._is_troubled = True
            self._keys.forget_if_cut_off()
            self._tell(logging.WARNING, f"the keys of replicas cannot be seen: {error.detail}")
        else:
            self._is_troubled = False
            self._tell(logging.INFO, "the keys of all replicas are known")

    def _tell(self, level: int, state: str) -> None:
        """Log what became of it, once."""
        if self._told != state:
            self._told = state
            _LOGGER.log(level, "%s", state)
