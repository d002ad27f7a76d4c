"""What any key store must do, shown on each of them."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from joserfc import jws
from joserfc.jwk import import_key

from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import KeyStore
from broker.keys.dev import DevKeyStore
from broker.tokens.own_keys import OwnKeys
from tests.openbao import Transit

ALGORITHMS = ("ES256", "RS256")
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
SIGNING_INPUT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9"

MakeStore = Callable[[], KeyStore]


@pytest.fixture(params=["dev", pytest.param("vault-transit", marks=pytest.mark.openbao)])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Make a store over the same keys each time, as a second process would."""
    made: list[KeyStore] = []

    def make() -> KeyStore:
        if request.param == "dev":
            made.append(DevKeyStore(tmp_path / "keys", algorithms=ALGORITHMS))
        else:
            transit: Transit = request.getfixturevalue("transit")
            made.append(transit.store())
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

    assert [jwk["alg"] for jwk in published] == list(ALGORITHMS)
    assert len({jwk["kid"] for jwk in published}) == len(published)
    for jwk in published:
        assert PRIVATE_MEMBERS.isdisjoint(jwk)
        assert jwk["use"] == "sig"


def test_a_key_is_named_by_its_thumbprint(store: KeyStore) -> None:
    """RFC 7638, with another library as the judge."""
    for jwk in store.public_keys():
        assert jwk["kid"] == import_key(dict(jwk)).thumbprint()


def test_two_processes_over_one_store_publish_and_sign_with_the_same_keys(
    make_store: MakeStore,
) -> None:
    one, other = make_store(), make_store()

    assert one.public_keys() == other.public_keys()
    assert one.signing_key("ES256").kid == other.signing_key("ES256").kid


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
