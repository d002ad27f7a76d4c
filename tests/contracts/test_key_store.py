"""What any key store must do, shown on each of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import pytest
from joserfc import jws
from joserfc.jwk import import_key

from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import KeyStore
from broker.keys.dev import DevKeyStore
from broker.keys.life import Schedule
from broker.tokens.own_keys import OwnKeys
from tests.openbao import Transit, wait_until

ALGORITHMS = ("ES256", "RS256")
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
# A key in memory signs as soon as it is stated.
AT_ONCE = Schedule(
    publish_ahead=timedelta(0),
    keep_published=timedelta(hours=1),
    poll=timedelta(seconds=1),
    clock_difference=timedelta(0),
)
SIGNING_INPUT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9"

MakeStore = Callable[[], KeyStore]


def in_vault(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.openbao)


@pytest.fixture(
    params=["dev", in_vault("vault-transit"), in_vault("vault-ephemeral"), in_vault("vault-export")]
)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Make a store over the same keys each time, as a second process would."""
    made: list[KeyStore] = []
    # A folder of one's own, since statements of keys stay in it for a while.
    folder = f"broker/{uuid4().hex}"

    def open_one() -> KeyStore:
        if request.param == "dev":
            return DevKeyStore(tmp_path / "keys", algorithms=ALGORITHMS)
        if request.param == "vault-transit":
            transit: Transit = request.getfixturevalue("transit")
            return transit.store()
        if request.param == "vault-export":
            exportable: Transit = request.getfixturevalue("exportable_transit")
            return exportable.export_store()
        shared: Transit = request.getfixturevalue("transit")
        replicas = replace(shared, folder=folder)
        return replicas.ephemeral_store(schedule=AT_ONCE, lifetime=timedelta(hours=1))

    def make() -> KeyStore:
        made.append(open_one())
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> KeyStore:
    return make_store()


def compact(store: KeyStore, algorithm: str, *, payload: str = '{"sub":"alice"}') -> str:
    """A JWS in compact form, put together as the broker does it."""
    key = store.signing_key(algorithm)
    header = jwt.utils.base64url_encode(
        f'{{"alg":"{key.algorithm}","kid":"{key.kid}"}}'.encode()
    ).decode()
    signing_input = f"{header}.{jwt.utils.base64url_encode(payload.encode()).decode()}"
    signature = jwt.utils.base64url_encode(key.sign(signing_input.encode())).decode()
    return f"{signing_input}.{signature}"


@pytest.mark.requirement("OPS-05")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_libraries_verify_a_signature_with_the_published_key(
    store: KeyStore, algorithm: str
) -> None:
    token = compact(store, algorithm)
    jwk = {key["kid"]: key for key in store.public_keys()}[store.signing_key(algorithm).kid]

    assert jwt.decode(token, jwt.PyJWK.from_dict(dict(jwk)), [algorithm]) == {"sub": "alice"}
    verified = jws.deserialize_compact(token, import_key(dict(jwk)), [algorithm])
    assert verified.payload == b'{"sub":"alice"}'


@pytest.mark.requirement("SGN-01")
def test_an_es256_signature_is_r_and_s_and_not_der(store: KeyStore) -> None:
    assert len(store.signing_key("ES256").sign(SIGNING_INPUT)) == 64


@pytest.mark.requirement("SGN-02")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_key_that_signs_is_published(store: KeyStore, algorithm: str) -> None:
    key = store.signing_key(algorithm)

    published = {jwk["kid"]: jwk["alg"] for jwk in store.public_keys()}

    assert published[key.kid] == algorithm == key.algorithm


@pytest.mark.requirement("META-10")
@pytest.mark.requirement("ITR-06")
def test_what_is_published_is_public_named_and_meant_for_signatures(store: KeyStore) -> None:
    published = store.public_keys()

    assert {jwk["alg"] for jwk in published} == set(ALGORITHMS)
    assert len({jwk["kid"] for jwk in published}) == len(published)
    for jwk in published:
        assert PRIVATE_MEMBERS.isdisjoint(jwk)
        assert jwk["use"] == "sig"


def test_a_key_is_named_by_its_thumbprint(store: KeyStore) -> None:
    """RFC 7638, with another library as the judge."""
    for jwk in store.public_keys():
        assert jwk["kid"] == import_key(dict(jwk)).thumbprint()


@pytest.mark.requirement("SGN-02")
def test_what_one_process_signs_with_the_others_publish(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()

    def kids(store: KeyStore) -> list[str]:
        return sorted(jwk["kid"] for jwk in store.public_keys())

    wait_until(lambda: kids(one) == kids(other), seconds=60)
    for store in (one, other):
        for algorithm in ALGORITHMS:
            assert store.signing_key(algorithm).kid in kids(one)


def test_callers_at_the_same_time_each_get_the_signature_of_their_own_input(
    store: KeyStore,
) -> None:
    key, published = store.signing_key("ES256"), OwnKeys(store)
    inputs = [b"input.%d" % number for number in range(200)]

    with ThreadPoolExecutor(32) as pool:
        signatures = list(pool.map(key.sign, inputs))

    verification = published.key(key.kid, "ES256")
    assert all(map(verification.verify, inputs, signatures))
    assert not any(map(verification.verify, inputs, reversed(signatures)))


def test_a_caller_that_edits_what_is_published_changes_nothing(store: KeyStore) -> None:
    for jwk in store.public_keys():
        jwk.clear()  # type: ignore[attr-defined]  # The type forbids it; this is who does it anyway.

    assert all(jwk["kid"] for jwk in store.public_keys())


def test_an_algorithm_without_a_key_is_refused(store: KeyStore) -> None:
    with pytest.raises(LookupError, match="PS256"):
        store.signing_key("PS256")


def test_nothing_is_signed_after_the_store_was_closed(store: KeyStore) -> None:
    store.close()

    with pytest.raises(TemporarilyUnavailable) as refused:
        store.signing_key("ES256")
    assert refused.value.reason is Reason.SIGNER_UNAVAILABLE


def test_closing_twice_is_as_good_as_once(store: KeyStore) -> None:
    store.close()
    store.close()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_text_of_a_store_or_key_shows_no_secret(store: KeyStore, algorithm: str) -> None:
    text = f"{store!r} {store.signing_key(algorithm)!r}"

    assert "PRIVATE" not in text
    assert "RSAPrivateKey" not in text
    assert "EllipticCurvePrivateKey" not in text
