"""Tokens that were taken apart and whose signature was right a moment ago, so that neither is done again."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar, Final, Generic, TypeVar

from broker.bounded import BoundedMemory, MemoryStatus
from broker.interfaces import VerificationKey
from broker.jws import UnverifiedToken, read_token
from broker.unshown import Unshown

DEFAULT_CAPACITY: Final = 4_096
_LONGEST_REMEMBERED: Final = 4_096

_Reading = TypeVar("_Reading")
_Terms = tuple[object, object]


class TakenToken(Unshown, frozen=True):
    """
    A token taken apart, and the key by which its signature was right before, if it was.

    ``digest`` is the SHA-256 of the token's text; ``None`` for one that is too long to be remembered.
    """

    unshown: ClassVar = frozenset({"verified_with"})

    unverified: UnverifiedToken
    digest: bytes | None = None
    verified_with: VerificationKey | None = None


class SeenTokens(Generic[_Reading]):
    """
    Remembers of at most ``capacity`` tokens the container, the signature and what it says, and no judgement.

    Whatever else decides about a token is asked each time anew: its times, its issuer and what that one
    may vouch for, whether its key is still published, whether it was withdrawn, who presents it. Only
    tokens whose signature was right are remembered, by the hash of their text, so nobody can fill the
    memory who cannot have tokens signed. Tokens of more than 4,096 characters are not.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.memory: BoundedMemory[bytes, TakenToken] = BoundedMemory(capacity)
        self._readings: BoundedMemory[bytes, tuple[_Terms, _Reading]] = BoundedMemory(capacity)

    def memories(self) -> Mapping[str, MemoryStatus]:
        """How the memories of verified tokens, and of what they say, are doing."""
        return {"tokens": self.memory.status(), "readings": self._readings.status()}

    def take(self, token: str) -> TakenToken:
        """The token taken apart; raises ``TokenRejected`` as ``read_token`` does."""
        if len(token) > _LONGEST_REMEMBERED:
            return TakenToken(read_token(token))
        # Whatever cannot be encoded is refused when it is taken apart, by whatever name it is known.
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        return self.memory.get(digest) or TakenToken(read_token(token), digest)

    def is_signed_by(self, taken: TakenToken, key: VerificationKey) -> bool:
        """Whether the signature is right by this very key, which is still good for it."""
        known = taken.verified_with
        if known is key or (known is not None and known == key):
            return True
        unverified = taken.unverified
        if not key.verify(unverified.signing_input, unverified.signature):
            return False
        if taken.digest is not None:
            self.memory.put(taken.digest, TakenToken(unverified, taken.digest, key))
        return True

    def reading(self, taken: TakenToken, terms: _Terms) -> _Reading | None:
        """What the token was read to say on the same terms, which are all that it depends on."""
        known = None if taken.digest is None else self._readings.get(taken.digest)
        return known[1] if known is not None and known[0] == terms else None

    def remember_reading(self, taken: TakenToken, terms: _Terms, reading: _Reading) -> None:
        """Remember what a token says whose signature was right."""
        if taken.digest is not None:
            self._readings.put(taken.digest, (terms, reading))
