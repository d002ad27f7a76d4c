"""The transit key store against a server that lies, and against the real one while keys change."""

import base64
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from broker.errors import Reason, TemporarilyUnavailable
from broker.keys import vault_transit
from broker.keys.book import KeyBook
from broker.keys.followed import FollowedKeys
from broker.keys.life import FoundKey, KeyLife, Schedule
from broker.keys.outlook import exposure_of
from broker.keys.record import NoRecord
from broker.keys.transit_key import sign_digests
from broker.keys.vault_auth import TokenFileAuth
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore
from broker.tokens.own_keys import OwnKeys
from tests.harness import Clock
from tests.keys.pretend_vault import (
    Answer,
    PretendVault,
    pretend_vault,
    public_pem,
    refused,
    results,
)
from tests.openbao import LEAD, SCHEDULE, Transit, wait_until

HOUR = timedelta(hours=1)
KEY, SIGN = "transit/keys/es", "transit/sign/es"

FORKING = """
import os, sys, threading, time
from datetime import timedelta
from pathlib import Path
from broker.keys.book import KeyBook
from broker.keys.followed import FollowedKeys
from broker.keys.life import Schedule
from broker.keys.record import NoRecord
from broker.keys.vault_auth import TokenFileAuth
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore

print(threading.active_count() - 1, end="", flush=True)
for _ in range(2):
    if os.fork() == 0:
        hour = timedelta(hours=1)
        store = VaultTransitKeyStore(
            FollowedKeys(
                VaultSession(
                    VaultServer(sys.argv[1], read_timeout=15),
                    auth=TokenFileAuth(Path(sys.argv[2])),
                ),
                KeyBook(Schedule(hour, hour), now=lambda: int(time.time()), records=NoRecord()),
                keys={"ES256": "es"},
                mount="transit",
            ),
            sign_deadline=30,
        )
        print("", len(store.signing_key("ES256").sign(b"a.b")), end="", flush=True)
        store.close()
        os._exit(0)
    os.wait()
"""

MakeStore = Callable[..., VaultTransitKeyStore]


@pytest.fixture
def vault() -> Iterator[PretendVault]:
    with pretend_vault() as vault:
        yield vault


@pytest.fixture
def make_store(vault: PretendVault, tmp_path: Path) -> Iterator[MakeStore]:
    """Make a store that asks the pretended Vault, and by itself only when something is amiss."""
    made: list[VaultTransitKeyStore] = []
    (tmp_path / "token").write_text("hvs.token")

    def make(
        *,
        keys: Mapping[str, str] = {"ES256": "es"},
        mount: str = "transit",
        poll: timedelta = HOUR,
        book: type[KeyBook] = KeyBook,
        read_timeout: float = 15.0,
    ) -> VaultTransitKeyStore:
        server = VaultServer(vault.url, connect_timeout=15, read_timeout=read_timeout)
        session = VaultSession(server, auth=TokenFileAuth(tmp_path / "token"))
        schedule = Schedule(publish_ahead=HOUR, keep_published=HOUR, poll=poll, outage=HOUR)
        followed = FollowedKeys(
            session,
            book(schedule, now=lambda: int(time.time()), records=NoRecord()),
            keys=keys,
            mount=mount,
        )
        made.append(VaultTransitKeyStore(followed, sign_deadline=30))
        return made[-1]

    yield make
    for store in made:
        store.close()


def fault_of(call: Callable[[], object]) -> str:
    """What is in the way of signing."""
    with pytest.raises(TemporarilyUnavailable) as raised:
        call()
    assert raised.value.reason is Reason.SIGNER_UNAVAILABLE
    return raised.value.detail


def sign(store: VaultTransitKeyStore, signing_input: bytes = b"header.payload") -> bytes:
    return store.signing_key("ES256").sign(signing_input)


# What is asked of Vault.


@pytest.mark.requirement("OPS-05")
def test_a_digest_is_sent_with_every_parameter_that_makes_its_signature_a_jws(
    vault: PretendVault, make_store: MakeStore
) -> None:
    sign(make_store(), b"header.who-i-am-is-nobodys-business")

    body = vault.paths(SIGN)[-1].body
    digest = hashlib.sha256(b"header.who-i-am-is-nobodys-business").digest()
    assert body == {
        "batch_input": [{"input": base64.b64encode(digest).decode()}],
        "key_version": 1,
        "hash_algorithm": "sha2-256",
        "prehashed": True,
        "marshaling_algorithm": "jws",
    }


def test_the_mount_and_the_key_name_make_the_path(
    vault: PretendVault, make_store: MakeStore
) -> None:
    sign(make_store(keys={"ES256": "broker-at"}, mount="team-a/transit"))

    paths = {seen.path for seen in vault.seen}
    assert paths == {"team-a/transit/keys/broker-at", "team-a/transit/sign/broker-at"}


@pytest.mark.requirement("SGN-05")
@pytest.mark.parametrize("name", ["../sys/seal", "a/b", "..", "", "a?version=1", "a%2fb"])
def test_a_key_name_that_could_leave_its_place_is_refused(make_store: MakeStore, name: str) -> None:
    with pytest.raises(ValueError, match="not acceptable"):
        make_store(keys={"ES256": name})


@pytest.mark.requirement("SGN-05")
def test_a_mount_that_could_leave_its_place_is_refused(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="not acceptable"):
        make_store(mount="transit/../sys")


@pytest.mark.parametrize("algorithm", ["HS256", "none", "PS256", "EdDSA"])
def test_an_algorithm_that_transit_is_not_used_for_is_refused(
    make_store: MakeStore, algorithm: str
) -> None:
    with pytest.raises(ValueError, match="ES256 or RS256"):
        make_store(keys={algorithm: "es"})


# Answers that must not become signatures.


def der(vault: PretendVault, item: Mapping[str, str]) -> Mapping[str, str]:
    raw = base64.urlsafe_b64decode(vault.sign(item)["signature"].split(":")[2] + "==")
    assert len(raw) == 64
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    return {"signature": "vault:v1:" + base64.b64encode(encode_dss_signature(r, s)).decode()}


def by_another_key(_: PretendVault, item: Mapping[str, str]) -> Mapping[str, str]:
    with pretend_vault() as other:
        return other.sign(item)


def of_another_digest(vault: PretendVault, _: Mapping[str, str]) -> Mapping[str, str]:
    return vault.sign({"input": base64.b64encode(b"\x01" * 32).decode()})


LIES: dict[str, Callable[[PretendVault, Mapping[str, str]], Any]] = {
    "DER": der,
    "by another key": by_another_key,
    "of another digest": of_another_digest,
    "short": lambda _vault, _item: {"signature": "vault:v1:AAAA"},
    "zero": lambda _vault, _item: {"signature": "vault:v1:" + "A" * 86},
}


@pytest.mark.requirement("SGN-01")
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_signature_that_does_not_verify_with_the_published_key_is_not_released(
    vault: PretendVault, make_store: MakeStore, lie: Callable[..., Any]
) -> None:
    store = make_store()
    key = store.signing_key("ES256")
    vault.scripts[SIGN] = lambda seen: results(
        *(lie(vault, item) for item in seen.body["batch_input"])
    )

    assert "does not verify" in fault_of(lambda: key.sign(b"header.payload"))
    assert "does not verify" in fault_of(lambda: store.signing_key("ES256"))


NOTHING_SIGNED = {
    "an error": {"error": "requested version is too high", "key_version": 0},
    "nothing": {},
    "no object": 1,
    "a number": {"signature": 1},
    "no prefix": {"signature": "AAAA"},
    "the signature of another version": {"signature": "vault:v2:" + "A" * 86},
    "not base64": {"signature": "vault:v1:é"},
}


@pytest.mark.requirement("SGN-01")
@pytest.mark.parametrize("item", NOTHING_SIGNED.values(), ids=NOTHING_SIGNED)
def test_an_item_that_was_not_signed_is_refused_though_the_status_is_200(
    vault: PretendVault, make_store: MakeStore, item: Any
) -> None:
    key = make_store().signing_key("ES256")
    vault.scripts[SIGN] = lambda seen: results(*([item] * len(seen.body["batch_input"])))

    assert fault_of(lambda: key.sign(b"header.payload")) == "vault: no item of the batch was signed"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": {"signature": "vault:v1:AAAA"}},
        {"data": {"batch_results": {}}},
        {"data": {"batch_results": []}},
        {"data": {"batch_results": [{}, {}, {}]}},
    ],
)
def test_an_answer_to_a_batch_that_is_not_one_is_refused(
    vault: PretendVault, make_store: MakeStore, body: Any
) -> None:
    key = make_store().signing_key("ES256")
    vault.scripts[SIGN] = lambda _: Answer(body)

    assert fault_of(lambda: key.sign(b"header.payload")) == "vault: malformed answer"


# Keys that must not be published.


def version(**members: Any) -> Answer:
    return Answer({"data": {"type": "ecdsa-p256", "keys": {"1": members}}})


def pem_of(key: Any) -> str:
    return public_pem(key)


CREATED = {"creation_time": "2020-01-01T00:00:00Z"}
UNFIT = {
    "no data": Answer({}),
    "another type": Answer({"data": {"type": "aes256-gcm96", "keys": {"1": 1577836800}}}),
    "RSA where EC was meant": Answer({"data": {"type": "rsa-2048", "keys": {}}}),
    "versions as a list": Answer({"data": {"type": "ecdsa-p256", "keys": []}}),
    "a version that is no number": Answer({"data": {"type": "ecdsa-p256", "keys": {"x": {}}}}),
    "a version that is no object": Answer({"data": {"type": "ecdsa-p256", "keys": {"1": 5}}}),
    "no public key": version(**CREATED),
    "no moment": version(public_key="x"),
    "a moment that is none": version(creation_time="yesterday", public_key="x"),
    "a public key that is none": version(**CREATED, public_key="-----BEGIN NONSENSE-----"),
    "P-384": version(**CREATED, public_key=pem_of(ec.generate_private_key(ec.SECP384R1()))),
    "secp256k1": version(**CREATED, public_key=pem_of(ec.generate_private_key(ec.SECP256K1()))),
    "RSA": version(**CREATED, public_key=pem_of(rsa.generate_private_key(65537, 2048))),
}


@pytest.mark.parametrize("answer", UNFIT.values(), ids=UNFIT)
def test_a_key_that_is_not_fit_is_neither_published_nor_used(
    vault: PretendVault, make_store: MakeStore, answer: Answer
) -> None:
    vault.scripts[KEY] = lambda _: answer
    store = make_store()

    assert store.public_keys() == []
    assert fault_of(lambda: sign(store)) == "vault: key es is not fit for ES256"


@pytest.mark.requirement("SGN-03")
def test_a_key_that_cannot_be_read_any_more_stays_published(
    vault: PretendVault, make_store: MakeStore
) -> None:
    store = make_store()
    published = store.public_keys()
    vault.scripts[KEY] = lambda _: refused()

    assert fault_of(store.refresh) == "vault: forbidden (needs read on transit/keys/es)"
    assert store.public_keys() == published
    assert len(published) == 1


def test_one_key_that_fails_does_not_take_the_other_with_it(
    vault: PretendVault, make_store: MakeStore
) -> None:
    vault.scripts["transit/keys/rs"] = lambda _: refused()
    store = make_store(keys={"RS256": "rs", "ES256": "es"})

    assert fault_of(lambda: store.signing_key("RS256")).startswith("vault: forbidden (needs ")
    assert len(sign(store)) == 64


def test_at_most_twenty_versions_are_published_and_they_are_the_newest(
    vault: PretendVault, make_store: MakeStore
) -> None:
    versions = {
        str(number): CREATED | {"public_key": pem_of(ec.generate_private_key(ec.SECP256R1()))}
        for number in range(1, 31)
    }
    vault.scripts[KEY] = lambda _: Answer({"data": {"type": "ecdsa-p256", "keys": versions}})
    vault.scripts[SIGN] = lambda _: refused(status=500)
    store = make_store()

    published = store._keys.published()
    assert [version.number for version in published] == list(range(30, 10, -1))


# What the store does by itself.


def test_a_change_for_the_worse_or_the_better_is_logged_once(
    vault: PretendVault, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = make_store(poll=timedelta(seconds=0.1))
    kid = store.signing_key("ES256").kid
    vault.scripts[SIGN] = lambda _: refused(status=500)
    wait_until(lambda: len(caplog.records) == 2)
    failures = len(vault.paths(SIGN))
    wait_until(lambda: len(vault.paths(SIGN)) > failures + 2)
    del vault.scripts[SIGN]
    wait_until(lambda: len(caplog.records) == 3)

    assert [record.getMessage() for record in caplog.records] == [
        f"ES256 is signed with key {kid}",
        "ES256 cannot be signed: vault: server error",
        f"ES256 is signed with key {kid}",
    ]


def test_published_keys_that_cannot_be_read_anew_are_logged_though_vault_signs(
    vault: PretendVault, make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(poll=timedelta(seconds=0.1))
    vault.scripts[KEY] = lambda _: refused()
    wait_until(lambda: bool(caplog.messages))

    fault = "vault: forbidden (needs read on transit/keys/es)"
    assert caplog.messages == [f"ES256 is signed, but its keys cannot be read anew: {fault}"]
    assert len(sign(store)) == 64


def test_an_error_that_nobody_thought_of_does_not_end_the_care_for_the_keys(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    answers: Iterator[Exception | None] = iter([ZeroDivisionError("oops")])

    class OddBook(KeyBook):
        def lives(
            self, algorithm: str, found: Sequence[FoundKey], *, signed: str | None
        ) -> tuple[KeyLife, ...]:
            error = next(answers, None)
            if error is not None:
                raise error
            return super().lives(algorithm, found, signed=signed)

    store = make_store(book=OddBook)
    wait_until(lambda: store._fault("ES256") is None)

    assert len(sign(store)) == 64
    assert caplog.messages == ["the signing keys could not be looked after"]


def test_a_store_is_made_within_seconds_though_vault_says_nothing(
    vault: PretendVault, make_store: MakeStore
) -> None:
    vault.scripts[KEY] = lambda _: Answer({"data": "x" * 10_000}, drip="head")

    began = time.monotonic()
    store = make_store(keys={"ES256": "es", "RS256": "rs"}, read_timeout=1.0)

    assert time.monotonic() - began < 20
    assert store.public_keys() == []


def test_the_canary_can_never_be_taken_for_the_signature_of_a_token(
    vault: PretendVault, make_store: MakeStore
) -> None:
    make_store()

    (probe,) = vault.paths(SIGN)
    digest = base64.b64decode(probe.body["batch_input"][0]["input"])
    assert digest == hashlib.sha256(b"delegation broker: is the signer there?").digest()


def test_after_a_failure_callers_are_refused_without_asking_vault(
    vault: PretendVault, make_store: MakeStore
) -> None:
    key = make_store().signing_key("ES256")
    vault.scripts[SIGN] = lambda _: refused(status=500)
    digest = base64.b64encode(hashlib.sha256(b"header.payload").digest()).decode()

    for _ in range(20):
        assert fault_of(lambda: key.sign(b"header.payload")) == "vault: server error"

    asked = [item["input"] for seen in vault.paths(SIGN) for item in seen.body["batch_input"]]
    assert asked.count(digest) == 1


def test_a_store_makes_its_threads_in_the_process_that_made_it(
    vault: PretendVault, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hvs.token")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, vault.url, str(tmp_path / "token")],
        check=False,
        capture_output=True,
        timeout=120,
    )

    assert done.stderr == b""
    assert done.stdout == b"0 64 64"


def test_one_signature_of_several_that_does_not_verify_fails_all(
    vault: PretendVault, make_store: MakeStore
) -> None:
    key = make_store().signing_key("ES256")
    vault.scripts[SIGN] = lambda seen: results(
        *map(vault.sign, seen.body["batch_input"][:2]), {"signature": "vault:v1:" + "A" * 86}
    )

    assert "does not verify" in fault_of(lambda: key.sign_all([b"a.1", b"a.2", b"a.3"]))


# The real server, while keys change.


@pytest.fixture
def real_store(own_transit: Transit) -> Iterator[VaultTransitKeyStore]:
    store = own_transit.store()
    yield store
    store.close()


@pytest.mark.openbao
def test_sixteen_signatures_are_one_round_trip(
    transit: Transit, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[int] = []

    def counted(*arguments: Any, digests: Sequence[bytes], **named: Any) -> list[bytes | None]:
        trips.append(len(digests))
        return sign_digests(*arguments, digests=digests, **named)

    store = transit.store()
    monkeypatch.setattr(vault_transit, "sign_digests", counted)
    inputs = [b"header.payload-%d" % number for number in range(16)]
    key = store.signing_key("ES256")
    signatures = key.sign_all(inputs)
    store.close()

    assert trips == [16]
    verification = OwnKeys(store).key(key.kid, "ES256")
    assert all(map(verification.verify, inputs, signatures))


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02", "META-11")
def test_a_rotated_key_is_published_at_once_and_signs_only_after_its_lead(
    own_transit: Transit,
) -> None:
    offset = 0
    store = own_transit.store(now=lambda: int(time.time()) + offset)
    first = store.signing_key("ES256").kid

    own_transit.bao.rotate_key("own-es256")
    before = store.signing_key("ES256").sign(b"header.payload")
    store.refresh()
    published = [jwk["kid"] for jwk in store.public_keys()]
    after = store.signing_key("ES256").sign(b"header.payload")

    assert len(published) == 2
    assert published[1] == first == store.signing_key("ES256").kid
    verification = OwnKeys(store).key(first, "ES256")
    assert verification.verify(b"header.payload", before)
    assert verification.verify(b"header.payload", after)

    offset = int(LEAD.total_seconds()) + 60
    store.refresh()
    second = store.signing_key("ES256")
    assert second.kid == published[0]
    assert OwnKeys(store).key(second.kid, "ES256").verify(b"a.b", second.sign(b"a.b"))
    assert [jwk["kid"] for jwk in store.public_keys()] == published
    store.close()


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_a_version_that_was_withdrawn_is_no_longer_published(
    own_transit: Transit, real_store: VaultTransitKeyStore
) -> None:
    withdrawn = real_store.signing_key("ES256")
    own_transit.bao.rotate_key("own-es256")
    own_transit.bao.hide_versions_below("own-es256", version=2)
    real_store.refresh()

    assert withdrawn.kid not in [jwk["kid"] for jwk in real_store.public_keys()]
    assert len(real_store.public_keys()) == 1
    fault = fault_of(lambda: real_store.signing_key("ES256"))
    assert fault == "vault: no version of the key has been published for long enough"
    with pytest.raises(TemporarilyUnavailable):
        withdrawn.sign(b"header.payload")


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_a_version_that_vault_no_longer_signs_with_is_a_fault_and_no_other_takes_its_place(
    own_transit: Transit, real_store: VaultTransitKeyStore
) -> None:
    key = real_store.signing_key("ES256")
    own_transit.bao.rotate_key("own-es256")
    own_transit.bao.call("POST", "transit/keys/own-es256/config", min_encryption_version=2)

    with pytest.raises(TemporarilyUnavailable):
        key.sign(b"header.payload")
    with pytest.raises(TemporarilyUnavailable):
        real_store.signing_key("ES256")


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_key_that_was_deleted_and_made_anew_signs_nothing_for_its_lead(
    own_transit: Transit, real_store: VaultTransitKeyStore
) -> None:
    own_transit.bao.call("POST", "transit/keys/own-es256/config", deletion_allowed=True)
    own_transit.bao.call("DELETE", "transit/keys/own-es256")
    own_transit.bao.create_key("own-es256")

    for _ in range(3):
        real_store.refresh()
        fault = fault_of(lambda: real_store.signing_key("ES256"))
        assert fault == "vault: no version of the key has been published for long enough"


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_a_deleted_key_signs_nothing_and_stays_published(
    own_transit: Transit, real_store: VaultTransitKeyStore
) -> None:
    key, published = real_store.signing_key("ES256"), real_store.public_keys()
    own_transit.bao.call("POST", "transit/keys/own-es256/config", deletion_allowed=True)
    own_transit.bao.call("DELETE", "transit/keys/own-es256")

    with pytest.raises(TemporarilyUnavailable):
        key.sign(b"header.payload")
    with pytest.raises(TemporarilyUnavailable):
        real_store.refresh()
    assert real_store.public_keys() == published


@pytest.mark.openbao
@pytest.mark.requirement("R-05")
def test_what_a_policy_takes_away_is_refused_and_what_it_gives_back_is_signed(
    own_transit: Transit, real_store: VaultTransitKeyStore
) -> None:
    key = real_store.signing_key("ES256")
    own_transit.bao.allow("own", may_sign=())
    assert fault_of(lambda: key.sign(b"header.payload")).startswith("vault: forbidden (needs ")

    own_transit.bao.allow("own", may_sign=("own-es256",))
    wait_until(lambda: real_store._fault("ES256") is None)
    assert len(key.sign(b"header.payload")) == 64


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_store_that_may_not_read_the_record_signs_and_publishes_nothing(
    own_transit: Transit,
) -> None:
    """What is on record could say that the key was revoked."""
    own_transit.rotator().tend()
    policy = 'path "transit/*" { capabilities = ["read", "update"] }'
    own_transit.bao.call("PUT", "sys/policies/acl/own", policy=policy)

    store = own_transit.store(is_on_record=True)

    assert fault_of(lambda: store.signing_key("ES256")).startswith("vault: forbidden (needs ")
    assert store.public_keys() == []
    assert store.fresh_for() == 0
    own_transit.bao.allow("own", may_sign=("own-es256",))
    wait_until(lambda: store._fault("ES256") is None)
    assert len(store.signing_key("ES256").sign(b"header.payload")) == 64
    store.close()


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_replica_that_cannot_read_the_record_publishes_a_revoked_key_no_longer_than_is_told(
    own_transit: Transit,
) -> None:
    clock = Clock(int(time.time()))
    rotator = own_transit.rotator(now=clock)
    rotator.tend()
    followed = own_transit.followed(now=clock, is_on_record=True)
    followed.refresh()
    policy = 'path "transit/*" { capabilities = ["read", "update"] }'
    own_transit.bao.call("PUT", "sys/policies/acl/own", policy=policy)
    kid = rotator.look().keys[0].kid
    exposure = exposure_of(
        rotator.revoke(kid),
        schedule=SCHEDULE,
        max_age=timedelta(minutes=5),
        longest_token=timedelta(minutes=5),
    )

    clock.at += int(SCHEDULE.keep_published.total_seconds())
    assert "forbidden" in fault_of(followed.refresh)
    assert kid in {version.kid for version in followed.published()}
    assert clock.at < exposure.cut_off_until
    clock.at += 1
    assert "forbidden" in fault_of(followed.refresh)
    assert followed.published() == []
    assert clock.at + followed.fresh_for() <= exposure.cut_off_until

    own_transit.bao.allow("own", may_sign=("own-es256",))
    followed.refresh()
    assert kid not in {version.kid for version in followed.published()}
    assert followed.published()
    followed.close()


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02")
def test_a_record_that_is_deleted_under_a_store_is_a_fault_and_not_forgotten(
    own_transit: Transit,
) -> None:
    own_transit.rotator().tend()
    store = own_transit.store(is_on_record=True)
    published = store.public_keys()
    own_transit.bao.call("DELETE", "kv/metadata/broker/keys/record")

    assert fault_of(store.refresh) == "the record of the keys is gone"
    assert store.public_keys() == published
    store.close()


@pytest.mark.openbao
@pytest.mark.requirement("R-08")
def test_a_version_that_should_sign_and_is_not_shown_lets_no_other_sign(
    own_transit: Transit,
) -> None:
    """As when a key was made anew under its name, or a standby lags behind."""
    own_transit.rotator().tend()
    store = own_transit.store(is_on_record=True)
    own_transit.bao.call("POST", "transit/keys/own-es256/config", deletion_allowed=True)
    own_transit.bao.call("DELETE", "transit/keys/own-es256")
    own_transit.bao.create_key("own-es256")

    store.refresh()

    fault = fault_of(lambda: store.signing_key("ES256"))
    assert fault == "vault: the version that should sign is not shown"
    assert store.public_keys() == []
    store.close()
