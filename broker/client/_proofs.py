"""A DPoP proof (RFC 9449 4, 7) shows that whoever presents a token holds the key it is bound to."""

import base64
import hashlib
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from broker.client._claims import read_text, read_time
from broker.client._key_set import KeyUnusable, PublicKey, read_key
from broker.client.refusals import Unverifiable
from broker.errors import Reason, TokenRejected
from broker.jws import UnverifiedToken, read_token_with_key
from broker.oauth import PROOF_ALGORITHMS, TYP_DPOP

_LONGEST_PROOF: Final = 4096
_LONGEST_AGE: Final = 60
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# What a public key has, and what the key APIs of browsers and libraries add when they export it.
_MEMBERS: Final = frozenset(
    {"alg", "crv", "e", "ext", "key_ops", "kid", "kty", "n", "use", "x", "y"}
)


@dataclass(frozen=True, slots=True)
class Proof:
    """
    What came along with a token: every value of the ``DPoP`` header, and the request they are for.

    ``url`` is the address as the client knows it, whatever a proxy made of it.
    """

    values: tuple[str, ...] = field(repr=False)
    method: str
    url: str


class SpentProofs:
    """
    Proofs that were taken, each until it is too old anyway.

    There are at most ``capacity`` of them, and an eighth of that for one key, so that whoever holds it
    takes nobody else's place.
    """

    def __init__(self, capacity: int = 65_536) -> None:
        self._capacity = capacity
        self._share = max(1, capacity // 8)
        self._until: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def spend(self, key: str, jti: str, *, until: float, now: float) -> None:
        """
        Take a proof of a key that nobody took before, or raise ``TokenRejected`` (``replay``).

        Raises ``Unverifiable`` when there is no room: none is forgotten before its time.
        """
        name = key, hashlib.sha256(jti.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            while self._until and next(iter(self._until.values())) < now:
                (gone, _), _ = self._until.popitem(last=False)
                self._counts[gone] -= 1
                if not self._counts[gone]:
                    del self._counts[gone]
            if name in self._until:
                raise TokenRejected(Reason.REPLAY)
            if len(self._until) >= self._capacity or self._counts[key] >= self._share:
                raise Unverifiable(Reason.OVERLOADED.sentence)
            self._until[name] = until
            self._counts[key] += 1


def check_proof(
    proof: Proof, token: str, bound_to: str, *, now: float, leeway: float, spent: SpentProofs
) -> None:
    """
    Raise ``TokenRejected`` unless the proof is by the key of that thumbprint, for this token and request.

    It must have been made just now, and serves once.
    """
    if len(proof.values) != 1 or len(proof.values[0]) > _LONGEST_PROOF:
        raise TokenRejected(Reason.POP_MALFORMED)
    said = _read(proof.values[0])
    if said.method != proof.method:
        raise TokenRejected(Reason.POP_HTM)
    if _place(said.url) != _place(proof.url):
        raise TokenRejected(Reason.POP_HTU)
    if not said.made_at - leeway <= now <= said.made_at + _LONGEST_AGE + leeway:
        raise TokenRejected(Reason.POP_STALE)
    if said.thumbprint != bound_to or said.token_hash != _hash(token):
        raise TokenRejected(Reason.POP_MISMATCH)
    # All are remembered for the longest time that any can be good for, so that the oldest goes first.
    spent.spend(bound_to, said.jti, until=now + _LONGEST_AGE + 2 * leeway, now=now)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a proof says, signed by the key of that thumbprint."""

    thumbprint: str
    method: str
    url: str
    made_at: int
    token_hash: str
    jti: str


def _read(value: str) -> _Said:
    """What the proof says; whatever is wrong with its form makes it malformed, or badly signed."""
    try:
        unverified = read_token_with_key(value)
        key = _key_of(unverified)
        claims = unverified.unverified_claims
        said = _Said(
            key.thumbprint,
            method=read_text(claims, "htm"),
            url=read_text(claims, "htu"),
            made_at=read_time(claims, "iat"),
            token_hash=read_text(claims, "ath"),
            jti=read_text(claims, "jti"),
        )
    except (TokenRejected, KeyUnusable):
        raise TokenRejected(Reason.POP_MALFORMED) from None
    try:
        key.check(unverified.signing_input, unverified.signature)
    except TokenRejected:
        raise TokenRejected(Reason.POP_SIGNATURE) from None
    return said


def _key_of(unverified: UnverifiedToken) -> PublicKey:
    """The key that the proof carries: a public one, spelt in the one way that thumbprints agree on."""
    header = unverified.header
    algorithm, jwk = header.unverified_algorithm, header.unverified_jwk
    if header.unverified_typ != TYP_DPOP or algorithm not in PROOF_ALGORITHMS:
        raise KeyUnusable("It is no proof, or by no key that can make one.")
    if not _MEMBERS.issuperset(jwk) or jwk.get("alg", algorithm) != algorithm:
        raise KeyUnusable("The key has members besides a public key's, or is for something else.")
    key = read_key(jwk, algorithm)
    if any(jwk[name] != value for name, value in key.material.items()):
        raise KeyUnusable("The key is not spelt canonically.")
    return key


def _hash(token: str) -> str:
    """What ``ath`` must be (RFC 9449 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def _place(url: str) -> tuple[str, str, int | None, str]:
    """An address without query and fragment, normalised by scheme, host and port (RFC 9449 4.3)."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        raise TokenRejected(Reason.POP_HTU) from None
    if parts.username is not None:
        raise TokenRejected(Reason.POP_HTU)
    return parts.scheme, parts.hostname or "", port, parts.path or "/"
