"""A token that is remembered is judged like any other; only its signature is not verified again."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.bounded import MemoryStatus
from broker.errors import Reason, TokenRejected
from broker.interfaces import SigningKey, VerificationKey
from broker.model import KeySource, TrustedIssuer
from broker.registry import FileRegistry
from broker.state.memory import MemoryState
from broker.tokens.jwk import verification_key
from broker.tokens.own_keys import OwnKeys
from broker.tokens.seen import SeenTokens
from broker.tokens.standing import Standing
from broker.tokens.verifier import ACCESS_TOKEN, ID_TOKEN, Profile, TokenVerifier, VerifiedToken
from tests.idp import Signer, signer
from tests.world import (
    IDP_A,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    Cast,
    good_access_token,
    good_access_token_claims,
)

KEY = signer("a1")
OWN = signer("broker")
LEEWAY = timedelta(seconds=30)


@dataclass(frozen=True)
class WatchedKey:
    """A key that notes each time it is asked."""

    inner: VerificationKey
    asked: list[bytes] = field(default_factory=list, compare=False)

    @property
    def kid(self) -> str | None:
        return self.inner.kid

    @property
    def algorithm(self) -> str:
        return self.inner.algorithm

    def verify(self, signing_input: bytes, signature: bytes) -> bool:
        self.asked.append(signature)
        return self.inner.verify(signing_input, signature)


class Ring:
    """A key ring that holds one key, or none."""

    def __init__(self, key: VerificationKey | None) -> None:
        self.held = key

    def key(self, _source: KeySource, _kid: str | None, _algorithm: str) -> VerificationKey:
        if self.held is None:
            raise TokenRejected(Reason.UNKNOWN_KEY)
        return self.held


class Published:
    """A key store that publishes these keys and signs nothing."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def signing_key(self, algorithm: str) -> SigningKey:
        raise LookupError(algorithm)

    def public_keys(self) -> list[Any]:
        return self.keys

    def fresh_for(self) -> int:
        return 60

    def close(self) -> None:
        pass


def watched(key: Signer) -> WatchedKey:
    return WatchedKey(verification_key(key.jwk, "ES256"))


@dataclass
class Scene:
    """A verifier whose every part can be exchanged, with one memory throughout."""

    key: WatchedKey = field(default_factory=lambda: watched(KEY))
    now: int = NOW
    cast: Cast = field(default_factory=Cast)
    seen: SeenTokens[VerifiedToken] = field(default_factory=SeenTokens)

    def __post_init__(self) -> None:
        self.ring = Ring(self.key)
        self.store = Published()
        self.state = MemoryState(now=lambda: self.now)

    def verify(self, token: str, profile: Profile = ACCESS_TOKEN) -> VerifiedToken:
        """What the token says here and now."""
        registry = FileRegistry(self.cast.clients, self.cast.resources, self.cast.issuers)
        verifier = TokenVerifier(
            ISS,
            registry,
            self.ring,
            OwnKeys(self.store),
            Standing(ISS, registry, self.state, MCP_CLAIM),
            lambda: self.now,
            LEEWAY,
            self.seen,
        )
        return verifier.verify(token, profile, client=self.cast.client("mcp1-srv"))

    def change_issuer(self, **changes: Any) -> None:
        """Register the issuer otherwise."""
        self.cast = self.cast.with_issuer(replace(self.issuer, **changes))

    @property
    def issuer(self) -> TrustedIssuer:
        """The issuer of the tokens."""
        return self.cast.issuer(IDP_A)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_signature_is_verified_once(scene: Scene) -> None:
    token = good_access_token()

    first = scene.verify(token)
    again = scene.verify(token)

    assert first == again
    assert len(scene.key.asked) == 1
    assert again is first, "what it says was not read again either"
    assert scene.seen.memories() == {
        "tokens": MemoryStatus(entries=1, capacity=4096, hits=1, misses=1),
        "readings": MemoryStatus(entries=1, capacity=4096, hits=1, misses=1),
    }


def test_what_a_token_says_is_read_again_where_its_issuer_is_trusted_otherwise(
    scene: Scene,
) -> None:
    token = good_access_token()
    scene.verify(token)
    scene.change_issuer(subject_prefix="a|")

    verified = scene.verify(token)

    assert verified.trusted_issuer is not None
    assert verified.trusted_issuer.subject_prefix == "a|"


def test_a_login_that_is_yet_to_come_is_refused_though_it_was_past_before(scene: Scene) -> None:
    token = good_access_token(iat=NOW - 60, auth_time=NOW)
    scene.verify(token)
    scene.now -= 45

    with pytest.raises(TokenRejected) as rejected:
        scene.verify(token)
    assert rejected.value.reason is Reason.CLAIM_INCONSISTENT


def test_every_other_token_is_verified(scene: Scene) -> None:
    for _ in range(3):
        scene.verify(good_access_token())

    assert len(scene.key.asked) == 3


def test_a_key_that_was_fetched_anew_is_the_same_key(scene: Scene) -> None:
    token = good_access_token()
    scene.verify(token)
    scene.ring.held = fetched_again = watched(KEY)

    scene.verify(token)

    assert not fetched_again.asked


def _expire(scene: Scene) -> None:
    scene.now += 7200


def _go_back(scene: Scene) -> None:
    scene.now -= 7200


def _lose_key(scene: Scene) -> None:
    scene.ring.held = None


def _replace_key(scene: Scene) -> None:
    scene.ring.held = watched(signer("another"))


def _disable(scene: Scene) -> None:
    scene.change_issuer(is_disabled=True)


def _serve_nothing(scene: Scene) -> None:
    scene.change_issuer(purposes=frozenset())


def _pin_otherwise(scene: Scene) -> None:
    scene.change_issuer(algorithms=frozenset({"RS256"}))


def _shorten(scene: Scene) -> None:
    scene.change_issuer(max_token_lifetime=timedelta(seconds=1))


def _forget_issuer(scene: Scene) -> None:
    others = tuple(one for one in scene.cast.issuers if one.issuer != IDP_A)
    scene.cast = replace(scene.cast, issuers=others)


def _keep_from_client(scene: Scene) -> None:
    client = replace(scene.cast.client("mcp1-srv"), issuers=frozenset({"https://other.example"}))
    scene.cast = scene.cast.with_client(client)


CHANGES: dict[str, tuple[Callable[[Scene], None], Reason]] = {
    "it expired": (_expire, Reason.TOKEN_EXPIRED),
    "the clock went back": (_go_back, Reason.NOT_YET_VALID),
    "its key is gone": (_lose_key, Reason.UNKNOWN_KEY),
    "another key has its name": (_replace_key, Reason.SIG_INVALID),
    "its issuer is off": (_disable, Reason.ISSUER_DISABLED),
    "its issuer is trusted with nothing": (_serve_nothing, Reason.ISSUER_NOT_FOR_PURPOSE),
    "its issuer signs otherwise": (_pin_otherwise, Reason.ALG_NOT_ALLOWED),
    "its issuer may say less": (_shorten, Reason.LIFETIME_TOO_LONG),
    "its issuer is gone": (_forget_issuer, Reason.ISS_UNKNOWN),
    "its issuer is not for this client": (_keep_from_client, Reason.ISSUER_NOT_FOR_CLIENT),
}


@pytest.mark.requirement("KEY-14")
@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=list(CHANGES))
def test_what_changes_counts_for_a_token_that_is_remembered(
    scene: Scene, change: Callable[[Scene], None], reason: Reason
) -> None:
    token = good_access_token()
    scene.verify(token)

    change(scene)

    with pytest.raises(TokenRejected) as rejected:
        scene.verify(token)
    assert rejected.value.reason is reason


def test_a_token_that_is_remembered_fits_no_other_slot(scene: Scene) -> None:
    token = good_access_token()
    scene.verify(token)

    with pytest.raises(TokenRejected) as rejected:
        scene.verify(token, ID_TOKEN)
    assert rejected.value.reason is Reason.WRONG_TOKEN_TYPE


def test_the_same_token_with_another_signature_is_another_token(scene: Scene) -> None:
    token = good_access_token()
    scene.verify(token)
    forged = token.rpartition(".")[0] + "." + good_access_token().rpartition(".")[2]

    for _ in range(2):
        with pytest.raises(TokenRejected) as rejected:
            scene.verify(forged)
        assert rejected.value.reason is Reason.SIG_INVALID
    assert len(scene.key.asked) == 3
    assert len(scene.seen.memory) == 1


def test_nobody_fills_the_memory_with_tokens_that_nobody_signed(scene: Scene) -> None:
    for number in range(20):
        with pytest.raises(TokenRejected):
            scene.verify(signer("stranger").sign(good_access_token_claims(jti=str(number))))

    assert not any(one.entries for one in scene.seen.memories().values())


def test_the_memory_is_bounded_in_number_and_in_length() -> None:
    scene = Scene(seen=SeenTokens(8))
    for _ in range(50):
        scene.verify(good_access_token())
    assert all(0 < one.entries <= one.capacity == 8 for one in scene.seen.memories().values())

    scene = Scene()
    long = good_access_token(groups=["g" * 100] * 50)
    scene.verify(long)
    assert not any(one.entries for one in scene.seen.memories().values())


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_token_of_ours_that_is_withdrawn_is_refused_though_it_is_remembered(
    scene: Scene, *, is_revoked: bool
) -> None:
    scene.store.keys.append(OWN.jwk)
    token = own_token()
    assert scene.verify(token).is_own
    if is_revoked:
        scene.state.revoke("one", NOW + 9999)
    else:
        scene.store.keys.clear()
        scene.store.keys.append(signer("successor").jwk)

    with pytest.raises(TokenRejected) as rejected:
        scene.verify(token)
    assert rejected.value.reason is (Reason.REVOKED if is_revoked else Reason.UNKNOWN_KEY)


def own_token() -> str:
    """A token that this broker issued."""
    claims = good_access_token_claims(iss=ISS, aud=RES_1, jti="one", exp=NOW + 300)
    return OWN.sign(claims, typ="at+jwt")
