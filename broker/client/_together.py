"""Several tokens that are wanted together: which are held, which are missing, what came of asking."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from broker.client import asks
from broker.client.answers import Token
from broker.client.asks import Ask, Target
from broker.client.cache import Key, TokenCache, key_of
from broker.client.failures import Refused

_INVALID_REQUEST: Final = "invalid_request"


@dataclass(frozen=True, slots=True)
class Together:
    """
    What is wanted of one subject token, all or none.

    ``missing`` are the places of the targets that no token is remembered for, and ``key`` is what those
    are remembered by, so that whoever misses the same may wait for the same answer.
    """

    subject_token: str = field(repr=False)
    targets: Sequence[Target]
    missing: tuple[int, ...]
    key: tuple[Key, ...]

    @classmethod
    def look(cls, cache: TokenCache, subject_token: str, targets: Sequence[Target]) -> Self:
        """See what is remembered; raises a refusal of any that was given a moment ago."""
        keys = [key_of(subject_token, one.resource, one.scopes) for one in targets]
        missing = []
        for place, key in enumerate(keys):
            try:
                held = cache.find(key)
            except Refused as refusal:
                refusal.target = place
                raise
            if held is None:
                missing.append(place)
        wanted = tuple(keys[place] for place in missing)
        return cls(subject_token, tuple(targets), tuple(missing), wanted)

    def held(self) -> Mapping[int, Target]:
        """The targets that there is a token for, by their places."""
        return {place: one for place, one in enumerate(self.targets) if place not in self.missing}

    def ask(self) -> Ask[tuple[Token, ...]]:
        """The question for what is missing."""
        return asks.exchange_all(self.subject_token, [self.targets[one] for one in self.missing])

    def keep(self, cache: TokenCache, tokens: Sequence[Token], *, asked_at: float) -> None:
        """Remember what was issued, each for itself."""
        for key, token in zip(self.key, tokens, strict=True):
            cache.put(key, token, subject_token=self.subject_token, asked_at=asked_at)

    def note_refusal(self, cache: TokenCache, refusal: Refused) -> None:
        """
        Remember the refusal of one target, which alone would have been refused the same way.

        Not so an invalid request: one that is the same resource as another, say, is a good target alone.
        """
        if refusal.code == _INVALID_REQUEST:
            return
        if refusal.target is not None and refusal.target < len(self.key):
            alone = copy.copy(refusal)
            alone.target = None
            cache.deny(self.key[refusal.target], alone)

    def placed(self, refusal: Refused) -> Refused:
        """The refusal of what was missing, with the place that its target has among all."""
        if refusal.target is not None and refusal.target < len(self.missing):
            refusal.target = self.missing[refusal.target]
        return refusal

    def in_order(self, held: Mapping[int, Token], issued: Sequence[Token]) -> tuple[Token, ...]:
        """The tokens in the order of their targets."""
        found = {**held, **dict(zip(self.missing, issued, strict=True))}
        return tuple(found[place] for place in range(len(self.targets)))
