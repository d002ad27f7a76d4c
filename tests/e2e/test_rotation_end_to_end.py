"""Keys that are rotated and revoked under load, while a verifier keeps the key set for its full max-age."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Starting
from tests.e2e.load import Load, unserved
from tests.e2e.patience import until
from tests.e2e.rotating import SHORT, TOKENS, keys
from tests.e2e.running import RunningBroker
from tests.e2e.setting import new_setting
from tests.e2e.vault import Vault, running_vault
from tests.e2e.verifying import KeepingVerifier
from tests.e2e.wires import UNABLE

ROTATIONS: Final = 2
FOLLOWED: Final = 30.0


@pytest.fixture
def own_vault(tmp_path: Path) -> Iterator[Vault]:
    """An OpenBao whose keys nobody else signs with."""
    with running_vault(tmp_path / "vault") as one:
        yield one


def active(broker: RunningBroker, algorithm: str) -> str:
    """The id of the key that signs now."""
    (kid,) = [
        key["kid"]
        for key in keys(broker, "list")["keys"]
        if key["state"] == "active" and key["algorithm"] == algorithm
    ]
    return str(kid)


def settle(broker: RunningBroker) -> None:
    """Return when no successor is waiting for its time, and a spare could sign."""

    def is_settled() -> bool:
        events = keys(broker, "plan")["events"]
        awaited = [event["at"] for event in events if event["change"] in {"begins", "known"}]
        # The plan says when; asking before that would only start one command after another.
        wait_for_moment(max(awaited, default=0))
        return not awaited

    until(is_settled, seconds=120, what="the successor signs")


def wait_for_moment(moment: int) -> None:
    """Return at this second of the Unix clock."""
    until(lambda: time.time() >= moment, seconds=60, what="the moment that the plan names")


@pytest.mark.requirement("SGN-02", "ITR-06", "R-08")
def test_embedded_keys_are_rotated_and_revoked_by_command_under_load(
    starting: Starting, tmp_path: Path
) -> None:
    setting = new_setting(tmp_path, tokens=TOKENS)
    setting = setting.with_document(keys=setting.document["keys"] | SHORT)
    rotate_and_revoke(starting(setting))


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02", "ITR-06", "R-08")
def test_keys_in_openbao_are_rotated_by_age_and_revoked_by_command_under_load(
    starting: Starting, own_vault: Vault, tmp_path: Path
) -> None:
    settings = own_vault.rotating_keys(rotate_every="10s", **SHORT)
    broker = starting(new_setting(tmp_path, tokens=TOKENS, keys=settings))

    with Load(broker.setting, callers=2, pause=0.1) as load:
        load.wait_for(5)
        with KeepingVerifier(broker.setting, load) as verifier:
            until(lambda: len(verifier.kids) > 2, seconds=240, what="two keys gave way to others")
            began, ended = revoke_active(broker, load, verifier)

    assert verifier.failures == []
    refused = unserved(load.calls, broker.records())
    # Vault refuses the revoked version at once, and a worker knows another within half a second.
    assert all(call.answer and call.answer.error == UNABLE for call in refused)
    late = [round(call.begun + call.seconds - ended, 1) for call in refused]
    details = {one.get("detail") for one in broker.records() if one["decision"] == "deny"}
    assert all(began - ended < moment < FOLLOWED for moment in late), (began - ended, late, details)
    assert {one["initiator"] for one in broker.records("key.rotate")} == {"age"}
    assert_on_record(broker, verifier)


def rotate_and_revoke(broker: RunningBroker) -> None:
    with Load(broker.setting, callers=2, pause=0.1) as load:
        load.wait_for(5)
        with KeepingVerifier(broker.setting, load) as verifier:
            for _ in range(ROTATIONS):
                keys(broker, "rotate")
                settle(broker)
                load.wait_for(10)
            assert len(verifier.kids) >= ROTATIONS
            revoke_active(broker, load, verifier)

    assert_on_record(broker, verifier)
    assert verifier.failures == []
    assert not unserved(load.calls, broker.records())
    assert sum(verifier.kids.values()) > 50


def assert_on_record(broker: RunningBroker, verifier: KeepingVerifier) -> None:
    """Every key that signed was announced, but for the first, and seen to be active; one was revoked."""
    announced, seen = (
        {
            (change["kid"], change["to_state"])
            for event in events
            for record in broker.records(event)
            for change in record["key_changes"]
        }
        for events in (("key.publish", "key.rotate", "key.revoke"), ("key.seen",))
    )
    active = {(kid, "active") for kid in verifier.kids}
    assert active <= announced
    assert active <= seen
    (revoked,) = broker.records("key.revoke")
    assert (revoked["kid"], "revoked") in announced & seen
    assert revoked["exposure"]["stopped_at"] <= revoked["exposure"]["accepted_until"]
    assert broker.verify_audit().returncode == 0


def revoke_active(
    broker: RunningBroker, load: Load, verifier: KeepingVerifier
) -> tuple[float, float]:
    """
    Revoke the key that signs; tokens of others go on verifying, its own are not looked at.

    Returns the moments of the monotonic clock before and after the command.
    """
    settle(broker)
    kid = active(broker, "RS256")
    verifier.revoked.add(kid)
    begun = time.monotonic()
    told = keys(broker, "revoke", kid)
    ended = time.monotonic()
    until(
        lambda: kid not in {key["kid"] for key in broker.key_set()["keys"]},
        seconds=30,
        what="the revoked key is published no more",
    )
    until(lambda: verifier.kids.get(told["signing"], 0) > 5, seconds=60, what="its successor signs")
    load.wait_for(20)
    return begun, ended
