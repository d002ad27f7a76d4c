"""A real OpenBao that is sealed, frozen, killed or busy, and what the key store makes of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.errors import TemporarilyUnavailable
from broker.interfaces import KeyStore
from broker.keys.vault_transit import VaultTransitKeyStore
from broker.signing_vault import vault_server
from broker.tokens.own_keys import OwnKeys
from tests.openbao import LEAD, SCHEDULE, OpenBao, Transit, single_key, wait_until

pytestmark = pytest.mark.openbao

RECOVERY_SECONDS = 5.0
DETECTION_SECONDS = 5.0
REFUSAL_SECONDS = 0.3
# What the broker itself gives Vault for a signature and for an answer.
DEADLINE: float = (VaultTransitKeyStore.__init__.__kwdefaults__ or {})["sign_deadline"]
PATIENCE: float = (vault_server.__kwdefaults__ or {})["read_timeout"]
SIGNING_INPUT = b"header.payload"


@pytest.mark.requirement("R-03")
def test_a_caller_waits_for_a_signature_as_long_as_the_operations_page_says() -> None:
    assert (DEADLINE, PATIENCE) == (1.5, 1.0)


@dataclass
class Load:
    """Callers that sign without a pause: how long each refusal took, and what was signed."""

    store: KeyStore
    signed: int = 0
    wrong: int = 0
    refusals: list[float] = field(default_factory=list)
    slowest: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> None:
        """Sign until it is over; a refused caller pauses a little, as a client would."""
        while not self.is_over.is_set():
            began = time.monotonic()
            try:
                key = self.store.signing_key("ES256")
                signature = key.sign(SIGNING_INPUT)
            except TemporarilyUnavailable:
                self.count(began, is_refusal=True)
                self.is_over.wait(0.005)
            else:
                verification = OwnKeys(self.store).key(key.kid, "ES256")
                self.count(began, is_wrong=not verification.verify(SIGNING_INPUT, signature))

    def count(self, began: float, *, is_refusal: bool = False, is_wrong: bool = False) -> None:
        took = time.monotonic() - began
        with self.turn:
            self.slowest = max(self.slowest, took)
            if is_refusal:
                self.refusals.append(took)
            else:
                self.signed += 1
                self.wrong += is_wrong

    def p99_of_refusals(self) -> float:
        """The seconds within which 99 of 100 refusals came."""
        return sorted(self.refusals)[int(len(self.refusals) * 0.99)]


@contextmanager
def load_on(store: KeyStore, *, callers: int = 8) -> Iterator[Load]:
    load = Load(store)
    threads = [threading.Thread(target=load.call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.is_over.set()
        for thread in threads:
            thread.join()


def is_refused(store: KeyStore) -> bool:
    try:
        store.signing_key("ES256").sign(SIGNING_INPUT)
    except TemporarilyUnavailable:
        return True
    return False


def seconds_of_refusal(store: KeyStore) -> float:
    began = time.monotonic()
    assert is_refused(store)
    return time.monotonic() - began


@pytest.fixture
def audited_transit(tmp_path: Path) -> Iterator[Transit]:
    """A key in a server that answers only what it could write into its audit log."""
    bao = OpenBao(tmp_path, is_audited=True)
    try:
        bao.set_up()
        yield single_key(bao)
    finally:
        bao.close()


@contextmanager
def opened(transit: Transit) -> Iterator[VaultTransitKeyStore]:
    store = replace(transit, patience=PATIENCE).store(sign_deadline=DEADLINE)
    try:
        yield store
    finally:
        store.close()


def restart(bao: OpenBao) -> None:
    bao.start()
    bao.unseal()


def fill_audit(bao: OpenBao) -> None:
    bao.audit_into(Path("/dev/full"))


OUTAGES: dict[str, tuple[Callable[[OpenBao], None], Callable[[OpenBao], None]]] = {
    "sealed": (OpenBao.seal, OpenBao.unseal),
    "frozen": (OpenBao.freeze, OpenBao.thaw),
    "killed": (OpenBao.kill, restart),
}
# Under each of these it says that it is well.
AUDIT_OUTAGES: dict[str, tuple[Callable[[OpenBao], None], Callable[[OpenBao], None]]] = {
    "audit full": (fill_audit, OpenBao.audit_anew),
    "audit blocked": (OpenBao.block_audit, OpenBao.audit_anew),
}


@pytest.mark.requirement("R-01")
@pytest.mark.requirement("SGN-03")
@pytest.mark.parametrize(("begin", "end"), OUTAGES.values(), ids=OUTAGES)
def test_a_store_that_starts_without_vault_signs_nothing_and_recovers_by_itself(
    own_transit: Transit, begin: Callable[[OpenBao], None], end: Callable[[OpenBao], None]
) -> None:
    begin(own_transit.bao)
    with opened(own_transit) as store:
        assert store.public_keys() == []
        assert is_refused(store)

        end(own_transit.bao)
        wait_until(lambda: not is_refused(store), seconds=RECOVERY_SECONDS)

        assert len(store.public_keys()) == 1


@pytest.mark.requirement("R-02")
@pytest.mark.requirement("R-03")
@pytest.mark.requirement("R-04")
@pytest.mark.requirement("SGN-03")
@pytest.mark.parametrize(("begin", "end"), OUTAGES.values(), ids=OUTAGES)
def test_under_load_an_outage_means_fast_refusals_and_no_wrong_signature_and_ends_by_itself(
    own_transit: Transit, begin: Callable[[OpenBao], None], end: Callable[[OpenBao], None]
) -> None:
    with opened(own_transit) as store, load_on(store) as load:
        published = store.public_keys()
        wait_until(lambda: load.signed > 50)

        begin(own_transit.bao)
        wait_until(lambda: len(load.refusals) > 2000, seconds=60)
        assert store.public_keys() == published
        signed = load.signed

        end(own_transit.bao)
        wait_until(lambda: load.signed > signed + 50, seconds=RECOVERY_SECONDS)

    assert load.wrong == 0
    assert load.p99_of_refusals() < REFUSAL_SECONDS
    assert load.slowest < DEADLINE + 5


@pytest.mark.requirement("R-05")
def test_tokens_revoked_under_load_are_replaced_by_one_login(own_transit: Transit) -> None:
    with opened(own_transit) as store, load_on(store) as load:
        wait_until(lambda: load.signed > 50)
        own_transit.bao.revoke_tokens()
        wait_until(lambda: load.signed > 200)

        assert len(living_tokens(own_transit.bao)) == 1
    assert load.wrong == 0


@pytest.mark.requirement("R-03")
def test_an_outage_leaves_no_more_threads_than_there_were(own_transit: Transit) -> None:
    with opened(own_transit) as store:
        before = threading.active_count()
        own_transit.bao.freeze()
        with load_on(store) as load:
            wait_until(lambda: len(load.refusals) > 500, seconds=60)
        wait_until(lambda: threading.active_count() <= before)
        own_transit.bao.thaw()


@pytest.mark.requirement("R-02")
def test_a_store_can_be_closed_while_vault_hangs(own_transit: Transit) -> None:
    store = replace(own_transit, patience=PATIENCE).store()
    own_transit.bao.freeze()
    is_refused(store)

    began = time.monotonic()
    store.close()

    assert time.monotonic() - began < 20
    wait_until(lambda: not store._care.is_alive and not store._batches._thread.is_alive())


@pytest.mark.requirement("R-07")
@pytest.mark.parametrize(("begin", "end"), AUDIT_OUTAGES.values(), ids=AUDIT_OUTAGES)
def test_a_server_that_cannot_write_its_audit_log_is_found_out_without_a_caller(
    audited_transit: Transit,
    begin: Callable[[OpenBao], None],
    end: Callable[[OpenBao], None],
) -> None:
    """It reports that it is well all the while."""
    bao, schedule = audited_transit.bao, replace(SCHEDULE, poll=timedelta(seconds=1))
    impatient = replace(audited_transit, patience=PATIENCE)
    store = impatient.store(schedule=schedule, sign_deadline=DEADLINE)
    try:
        wait_until(lambda: not is_refused(store))

        begin(bao)
        wait_until(lambda: store._fault("ES256") is not None, seconds=DETECTION_SECONDS)
        assert bao.health() == 200
        # Whoever waits does so each time, and whoever had no turn does not.
        assert min(seconds_of_refusal(store) for _ in range(5)) < REFUSAL_SECONDS
        assert len(store.public_keys()) == 1

        end(bao)
        wait_until(lambda: not is_refused(store), seconds=RECOVERY_SECONDS)
    finally:
        store.close()


@pytest.mark.requirement("R-07")
def test_a_server_that_is_healthy_and_forbids_to_sign_is_found_out_without_a_caller(
    own_transit: Transit,
) -> None:
    store = own_transit.store(schedule=replace(SCHEDULE, poll=timedelta(seconds=0.1), outage=LEAD))
    own_transit.bao.allow("own", may_sign=())

    wait_until(lambda: store._fault("ES256") is not None)
    assert own_transit.bao.health() == 200
    store.close()


def living_tokens(bao: OpenBao) -> list[str]:
    """The accessors of the tokens that live, root's apart."""
    accessors = bao.call("LIST", "auth/token/accessors")["data"]["keys"]
    found = (bao.call("POST", "auth/token/lookup-accessor", accessor=a)["data"] for a in accessors)
    return [data["accessor"] for data in found if data["path"] == "auth/approle/login"]
