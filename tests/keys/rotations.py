"""A world of replicas that sign and verifiers that keep the key set, under a clock that a test moves."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from broker.endpoints.discovery import DiscoveryEndpoint, KeySet
from broker.errors import TemporarilyUnavailable
from broker.interfaces import KeyStore, VerificationKey
from broker.keys.life import Schedule
from broker.registry import FileRegistry
from broker.tokens.jwk import verification_key
from tests.harness import Clock

MAX_AGE = timedelta(minutes=5)
LONGEST_TOKEN = timedelta(minutes=10)
LEEWAY = timedelta(seconds=30)
SCHEDULE = Schedule(
    publish_ahead=MAX_AGE + timedelta(seconds=45),
    keep_published=LONGEST_TOKEN + LEEWAY + timedelta(seconds=45),
)
"""The least that the settings allow, so that a second too few would show."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a replica signed; a verifier accepts it until ``expires_at``, if it knows the key."""

    kid: str
    signing_input: bytes
    signature: bytes
    expires_at: int


@dataclass(slots=True)
class Verifier:
    """Keeps the key set for as long as it was told to, and looks at nothing else."""

    keys: dict[str, VerificationKey] = field(default_factory=dict)
    kept_until: int = -1

    def keep(self, key_set: KeySet, now: int) -> None:
        """Have these keys and no others, for as long as the set says."""
        known = self.keys
        self.keys = {
            jwk["kid"]: known.get(jwk["kid"]) or verification_key(jwk, jwk["alg"])
            for jwk in key_set.keys
        }
        self.kept_until = now + key_set.max_age

    def accepts(self, token: Token) -> bool:
        """Whether the token verifies with what is kept."""
        key = self.keys.get(token.kid)
        return key is not None and key.verify(token.signing_input, token.signature)


@dataclass(frozen=True, slots=True)
class OwnClock:
    """A replica's clock, which is this many seconds ahead of the true one."""

    true: Clock
    ahead: int

    def __call__(self) -> int:
        return self.true.at + self.ahead


@dataclass
class World:
    """
    Replicas, verifiers, and what was signed and not yet verified for the last time.

    ``look`` has a replica read what is on record. Time passes in steps of up to ``stride`` seconds.
    """

    clock: Clock
    replicas: Sequence[KeyStore]
    look: Callable[[KeyStore], None]
    stride: int = 40
    verifiers: Sequence[Verifier] = field(default_factory=lambda: [Verifier() for _ in range(5)])
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311
    tokens: list[Token] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    signed: int = 0
    kids: set[str] = field(default_factory=set)
    verified: int = 0
    refused: int = 0
    unverifiable: list[tuple[Token, int]] = field(default_factory=list)

    def pass_time(self, seconds: int) -> None:
        """Let time pass in uneven steps, in each of which replicas sign and verifiers verify."""
        until = self.clock.at + seconds
        while self.clock.at < until:
            self.clock.at = min(until, self.clock.at + self.chance.randint(1, self.stride))
            self._step()

    def look_well(self, replica: KeyStore) -> None:
        """Have a replica look until it has seen what there is; one look in four comes to nothing."""
        for _ in range(20):
            self.look(replica)

    def known(self) -> set[str]:
        """The ids of all keys that a verifier has at present."""
        return {kid for verifier in self.verifiers for kid in verifier.keys}

    def _step(self) -> None:
        for replica in self.replicas:
            self.look(replica)
            self._sign(replica)
        for verifier in self.verifiers:
            if self.clock.at >= verifier.kept_until:
                self._fetch(verifier)
        self.tokens = [
            token
            for token in self.tokens
            if token.expires_at + LEEWAY.total_seconds() > self.clock.at
            and token.kid not in self.revoked
        ]
        for token in self.chance.sample(self.tokens, min(len(self.tokens), 6)):
            self._verify(token)
        # Whoever verifies as late as possible sees what is withdrawn too early.
        for token in self.tokens[:3]:
            self._verify(token)

    def _sign(self, replica: KeyStore) -> None:
        signing_input = b"header.%d" % self.signed
        try:
            key = replica.signing_key("ES256")
            signature = key.sign(signing_input)
        except TemporarilyUnavailable:
            self.refused += 1
            return
        expires_at = self.clock.at + int(LONGEST_TOKEN.total_seconds())
        token = Token(key.kid, signing_input, signature, expires_at)
        self.tokens.append(token)
        self.kids.add(key.kid)
        self.signed += 1
        # The first use of a key is where one that was not published for long enough shows.
        for verifier in self.verifiers:
            if self.clock.at < verifier.kept_until:
                self._judge(token, verifier)

    def _fetch(self, verifier: Verifier) -> None:
        store, registry = self.chance.choice(self.replicas), FileRegistry((), (), ())
        discovery = DiscoveryEndpoint("https://broker.example", registry, store, (), MAX_AGE)
        verifier.keep(discovery.key_set(), self.clock.at)

    def _verify(self, token: Token) -> None:
        verifier = self.chance.choice(self.verifiers)
        if self.clock.at < verifier.kept_until:
            self._judge(token, verifier)

    def _judge(self, token: Token, verifier: Verifier) -> None:
        self.verified += 1
        if not verifier.accepts(token):
            self.unverifiable.append((token, self.clock.at))
