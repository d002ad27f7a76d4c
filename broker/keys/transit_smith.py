"""Makes the versions of keys in Vault's transit engine, and closes off old ones."""

import time
from collections.abc import Mapping, Sequence
from typing import Final

from broker.keys.life import FoundKey
from broker.keys.transit_key import KeyVersion, read_versions
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_http import vault_name, vault_path
from broker.keys.vault_session import VaultSession

_SEEN_WITHIN_SECONDS: Final = 3.0
_LOOK_AGAIN_SECONDS: Final = 0.1


class TransitSmith:
    """
    Rotates transit keys. ``keys`` names the key of each algorithm.

    Its login has rights that signing does not need: to rotate these keys, and to say which of their
    versions still sign and can still be seen.
    """

    def __init__(
        self, session: VaultSession, *, keys: Mapping[str, str], mount: str = "transit"
    ) -> None:
        self._session = session
        self._path = vault_path(mount)
        self._names = {algorithm: vault_name(name) for algorithm, name in keys.items()}

    def found(self, algorithm: str) -> Sequence[FoundKey]:
        return self._versions(algorithm)

    def make(self, algorithm: str) -> None:
        newest = max(version.number for version in self._versions(algorithm))
        self._session.post_once(f"{self._path}/keys/{self._names[algorithm]}/rotate", {})
        deadline = time.monotonic() + _SEEN_WITHIN_SECONDS
        # A standby may answer from what it had a moment ago.
        while max(version.number for version in self._versions(algorithm)) <= newest:
            if time.monotonic() > deadline:
                raise signer_unavailable("vault: the new version of the key cannot be seen")
            time.sleep(_LOOK_AGAIN_SECONDS)

    def settle(self, algorithm: str, *, signs_from: int, gone: frozenset[int]) -> None:
        """
        Have Vault refuse to sign with what is below ``signs_from``, and hide what is gone.

        Only the oldest versions can be hidden, up to the first that is still needed.
        """
        name = self._names[algorithm]
        numbers = sorted(version.number for version in self._versions(algorithm))
        lowest = min((number for number in numbers if number not in gone), default=signs_from)
        self._raise(name, "min_encryption_version", signs_from)
        self._raise(name, "min_decryption_version", min(lowest, signs_from))

    def _raise(self, name: str, setting: str, version: int) -> None:
        """Set a bound of a key, unless it is as high already."""
        answer = self._session.get(f"{self._path}/keys/{name}")
        try:
            present = int(answer["data"][setting])
        except (LookupError, TypeError, ValueError):
            raise signer_unavailable("vault: malformed answer") from None
        # A bound of 0 is as good as 1: the first version has that number.
        if max(present, 1) < version:
            self._session.post(f"{self._path}/keys/{name}/config", {setting: version})

    def _versions(self, algorithm: str) -> tuple[KeyVersion, ...]:
        name = self._names[algorithm]
        return read_versions(self._session, self._path, key_name=name, algorithm=algorithm)
