"""Our own published keys, ready to verify what we signed."""

from broker.errors import Reason, TemporarilyUnavailable, TokenRejected
from broker.interfaces import KeyStore, VerificationKey
from broker.tokens.jwk import verification_key


class OwnKeys:
    """
    The key store's public side as verification keys, parsed once per key.

    A key that the store no longer publishes no longer verifies.
    """

    def __init__(self, key_store: KeyStore) -> None:
        self._key_store = key_store
        self._parsed: dict[str, VerificationKey] = {}

    def key(self, kid: str | None, algorithm: str) -> VerificationKey:
        """
        The published key with this id; raises ``TokenRejected`` if there is none such.

        Raises ``TemporarilyUnavailable`` while no key is known: nothing can be said of any token then.
        """
        published = {jwk["kid"]: jwk for jwk in self._key_store.public_keys()}
        if not published:
            raise TemporarilyUnavailable(Reason.SIGNER_UNAVAILABLE)
        if kid is None or kid not in published:
            raise TokenRejected(Reason.UNKNOWN_KEY)
        if kid not in self._parsed:
            still_published = {old: key for old, key in self._parsed.items() if old in published}
            jwk = published[kid]
            self._parsed = {**still_published, kid: verification_key(jwk, jwk["alg"])}
        key = self._parsed[kid]
        if key.algorithm != algorithm:
            raise TokenRejected(Reason.KEY_ALG_MISMATCH)
        return key
