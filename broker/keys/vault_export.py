"""The key store that takes its private keys out of Vault and signs with them in this process."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.errors import TemporarilyUnavailable
from broker.interfaces import SigningKey
from broker.keys.care import Care
from broker.keys.followed import FollowedKeys
from broker.keys.key_files import LocalSigningKey
from broker.keys.published import KeyUnfit, published_key
from broker.keys.transit_key import KeyVersion
from broker.keys.unavailable import signer_unavailable

_LOGGER: Final = logging.getLogger(__name__)
_MISLEADING: Final = (LookupError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm)


class VaultExportKeyStore:
    """
    Signs with private keys that Vault gave out, which must be marked as ``exportable`` there.

    That mark can never be taken back, and whoever reads this process's memory has the keys: a warning
    says so at every start. While Vault is away it signs on, for as long as the schedule allows for an
    outage; then the keys are forgotten until Vault gives them out again. Make a store in the process
    that uses it, after any fork. What it follows becomes the store's, which closes it.
    """

    def __init__(self, keys: FollowedKeys) -> None:
        _LOGGER.warning(
            "the private keys are taken out of Vault into this process: whoever reads its memory can"
            " sign in its name until they are revoked; prefer vault-transit or vault-ephemeral"
        )
        self._keys = keys
        self._private: Mapping[str, LocalSigningKey] = {}
        self._faults: Mapping[str, str] = {}
        self._told: dict[str, str] = {}
        self._care = Care(
            self._tend,
            interval=keys.book.schedule.poll.total_seconds(),
            is_troubled=self._is_troubled,
            choose=keys.choose,
        )
        self._care.start()

    def signing_key(self, algorithm: str) -> SigningKey:
        if self._care.is_over:
            raise signer_unavailable("the key store is closed")
        if algorithm not in self._keys.names:
            raise LookupError(f"no key is configured for {algorithm}")
        fault, key_set = self._keys.fault(algorithm), self._keys.of(algorithm)
        signing = key_set.signing if key_set is not None else None
        private = self._private.get(signing.kid) if signing is not None else None
        if fault is not None or private is None:
            untold = "vault: the key has not been given out yet"
            raise signer_unavailable(fault or self._faults.get(algorithm, untold))
        return private

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return [version.published.members() for version in self._keys.published()]

    def fresh_for(self) -> int:
        return self._keys.fresh_for()

    def refresh(self) -> None:
        """
        Look at the keys anew, and take those out that are missing.

        Raises ``TemporarilyUnavailable`` if any of it cannot be done; what was known stays.
        """
        try:
            self._keys.refresh()
        finally:
            self._take_out()

    def close(self) -> None:
        self._care.close()
        self._private = {}
        self._keys.close()

    def _take_out(self) -> None:
        """Have the private halves of the keys that sign or will soon, and of no others."""
        private: dict[str, LocalSigningKey] = {}
        faults: dict[str, str] = {}
        for algorithm in self._keys.names:
            try:
                found = [self._private_half(version) for version in self._needed(algorithm)]
            except TemporarilyUnavailable as error:
                faults[algorithm] = error.detail
                found = [key for key in self._private.values() if key.algorithm == algorithm]
            private |= {key.kid: key for key in found}
        self._private, self._faults = private, faults

    def _needed(self, algorithm: str) -> Sequence[KeyVersion]:
        key_set = self._keys.of(algorithm)
        if key_set is None or self._keys.fault(algorithm) is not None:
            return ()
        signs_from = key_set.signing.number if key_set.signing is not None else 0
        return [version for version in key_set.published if version.number >= signs_from]

    def _private_half(self, version: KeyVersion) -> LocalSigningKey:
        known = self._private.get(version.kid)
        return known if known is not None else self._taken_out(version)

    def _taken_out(self, version: KeyVersion) -> LocalSigningKey:
        path, session = self._keys.path, self._keys.session
        about = session.get(f"{path}/keys/{version.key_name}").get("data")
        if not isinstance(about, dict) or about.get("exportable") is not True:
            raise signer_unavailable(f"vault: key {version.key_name} is not exportable")
        number = str(version.number)
        answer = session.get(f"{path}/export/signing-key/{version.key_name}/{number}")
        try:
            pem = answer["data"]["keys"][number]
            private_key = load_pem_private_key(pem.encode("ascii"), password=None)
            if not isinstance(private_key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
                raise KeyUnfit("the key is not of a kind that signs here")
            published = published_key(private_key.public_key(), version.algorithm)
        except _MISLEADING:
            raise signer_unavailable("vault: malformed answer") from None
        if published.kid != version.kid:
            raise signer_unavailable("vault: the key given out is not the one that is published")
        return LocalSigningKey(
            published, version.algorithm, version.number, version.created_at, private_key
        )

    def _is_troubled(self) -> bool:
        return self._keys.is_behind or any(map(self._keys.fault, self._keys.names))

    def _tend(self) -> None:
        # It is told below what a failure means for each algorithm.
        with suppress(TemporarilyUnavailable):
            self.refresh()
        for algorithm in self._keys.names:
            self._tell(algorithm)

    def _tell(self, algorithm: str) -> None:
        """Log what became of an algorithm, once."""
        try:
            state = f"is signed with key {self.signing_key(algorithm).kid}"
        except TemporarilyUnavailable as error:
            state = f"cannot be signed: {error.detail}"
        if self._told.get(algorithm) != state:
            self._told[algorithm] = state
            _LOGGER.warning("%s %s", algorithm, state)
