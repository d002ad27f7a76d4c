"""Brokers whose keys are in the memory of their workers, with a real OpenBao that goes away for a while."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Starting
from tests.e2e.load import Load, unserved
from tests.e2e.patience import until
from tests.e2e.rotating import SHORT, TOKENS, keys
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Document, new_setting
from tests.e2e.vault import CERTIFIER, Vault, running_vault
from tests.e2e.verifying import KeepingVerifier

pytestmark = pytest.mark.openbao

EPHEMERAL: Final[Document] = {
    "outage": "20s",
    "ephemeral": {"certifier": CERTIFIER, "lifetime": "15s"},
}
SETTINGS: Final = {**SHORT, "keep_published": "40s"}


@pytest.fixture
def own_vault(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Vault]:
    """An OpenBao whose keys nobody else signs with."""
    is_exportable = getattr(request, "param", False)
    with running_vault(tmp_path / "vault", is_exportable=is_exportable) as one:
        yield one


def in_memory(broker: RunningBroker) -> list[Document]:
    """The keys in the memory of workers."""
    listed: list[Document] = keys(broker, "list")["in_memory"]
    return listed


@pytest.mark.requirement("SGN-02", "ITR-06")
def test_every_worker_signs_with_a_key_of_its_own_that_others_know(
    starting: Starting, own_vault: Vault, tmp_path: Path
) -> None:
    settings = own_vault.recorded_keys(EPHEMERAL, store="vault-ephemeral", **SETTINGS)
    broker = starting(new_setting(tmp_path, tokens=TOKENS, keys=settings))
    in_vault = {one["kid"] for one in keys(broker, "list")["keys"]}

    with Load(broker.setting, callers=2, pause=0.1) as load:
        load.wait_for(5)
        with KeepingVerifier(broker.setting, load) as verifier:
            # Each of the two workers renews its key at least twice.
            until(
                lambda: len(verifier.kids.keys() - in_vault) >= 6,
                seconds=240,
                what="keys in memory signed and were renewed",
            )
            (own, *_) = active = [one for one in in_memory(broker) if one["state"] == "active"]
            told = keys(broker, "plan", "--revoke", own["kid"])

    assert verifier.failures == []
    assert not unserved(load.calls, broker.records())
    assert told["exposure"]["accepted_until"] > own["published_at"]
    # A replica is named by its host, its worker, and something that no other has.
    assert {one["replica"].rpartition("-")[0][-7:] for one in active} == {"-grpc-0", "-http-0"}
    # Who ends in order says so; what is left are keys that stay published for their tokens.
    assert {one["state"] for one in in_memory(broker)} > {"active"}
    assert broker.stop() == 0
    assert {one["state"] for one in in_memory(broker)} <= {"retiring", "retired"}


def test_a_key_in_memory_signs_through_an_outage_of_openbao(
    starting: Starting, own_vault: Vault, tmp_path: Path
) -> None:
    settings = own_vault.recorded_keys(EPHEMERAL, store="vault-ephemeral", **SETTINGS)
    broker = starting(new_setting(tmp_path, tokens=TOKENS, keys=settings))
    in_vault = {one["kid"] for one in keys(broker, "list")["keys"]}
    load = Load(broker.setting, callers=2, pause=0.1)
    with load, KeepingVerifier(broker.setting, load) as verifier:
        until(lambda: len(verifier.kids.keys() - in_vault) >= 2, seconds=180, what="own keys")
        own_vault.bao.seal()
        load.wait_for(30)
        own_vault.bao.unseal()
        load.wait_for(10)

    assert verifier.failures == []
    assert not unserved(load.calls, broker.records())
    assert not broker.events("worker_died")


@pytest.mark.parametrize("own_vault", [True], indirect=True)
@pytest.mark.requirement("SGN-02")
def test_keys_taken_out_of_openbao_are_rotated_and_warned_of(
    starting: Starting, own_vault: Vault, tmp_path: Path
) -> None:
    settings = own_vault.rotating_keys(store="vault-export", rotate_every="12s", **SETTINGS)
    settings["vault"]["outage"] = "20s"
    broker = starting(new_setting(tmp_path, tokens=TOKENS, keys=settings))

    with Load(broker.setting, callers=2, pause=0.1) as load:
        load.wait_for(5)
        with KeepingVerifier(broker.setting, load) as verifier:
            until(lambda: len(verifier.kids) > 2, seconds=180, what="two keys gave way to others")

    assert verifier.failures == []
    assert not unserved(load.calls, broker.records())
    assert broker.session.text.count("the private keys are taken out of Vault") == 2
    assert "PRIVATE KEY" not in broker.session.text


@pytest.mark.requirement("SGN-03")
def test_keys_that_may_not_be_taken_out_sign_nothing(
    starting: Starting, own_vault: Vault, tmp_path: Path
) -> None:
    settings = own_vault.recorded_keys({"outage": "20s"}, store="vault-export", **SETTINGS)

    broker = starting(new_setting(tmp_path, tokens=TOKENS, keys=settings), is_awaited=False)

    until(
        lambda: (
            "signer_unavailable" in broker.findings() and "is not exportable" in broker.session.text
        ),
        seconds=90,
        what="it says what is missing",
    )
    assert not broker.is_ready()
