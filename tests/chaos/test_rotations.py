"""Keys that give way every few seconds, while verifiers keep the key set for its full max-age."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.reporting import Report, budget, progress
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.rotating import SHORT, TOKENS, keys
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Document, Setting, exchange, login, new_setting
from tests.e2e.vault import running_vault
from tests.e2e.verifying import KeepingVerifier
from tests.e2e.wires import UNABLE
from tests.world import Parameters

SHARE: Final = 32
LEAST: Final = 2
"""Rotations before each emergency, of both stores together, however short the time is."""

PATIENCE: Final = 60.0
# The least age at which keys may give way by themselves under these settings.
TIMES: Final[Document] = SHORT | {"rotate_every": "7s"}
EMERGENCIES: Final = 2


@dataclass
class Rotating:
    """A broker whose keys give way by themselves, its callers, and a verifier of all that they get."""

    name: str
    broker: RunningBroker
    load: Load
    verifier: KeepingVerifier
    revocations: int = 0

    @property
    def rotations(self) -> int:
        """How often a key gave way to another, as the tokens show: the first of each algorithm did not."""
        return max(0, len(self.verifier.kids) - 2)

    def revoke(self) -> None:
        """Revoke the key that signs, as in an emergency."""
        listed = keys(self.broker, "list")["keys"]
        active = [key["kid"] for key in listed if key["state"] == "active"]
        kid = active[self.revocations % len(active)]
        self.verifier.revoked.add(kid)
        told = keys(self.broker, "revoke", kid)
        self.revocations += 1
        until(lambda: told["signing"] in self.verifier.kids, seconds=30, what="its successor signs")


_number = count()


def of_either_key(setting: Setting) -> Parameters:
    """What is signed with ES256 and what is with RS256, in turn."""
    return (exchange, login)[next(_number) // 2 % 2](setting)


@pytest.fixture
def rotating(tmp_path: Path) -> Iterator[list[Rotating]]:
    """One with embedded keys, and one with its keys in OpenBao."""
    with ExitStack() as closing:
        folders = {name: tmp_path / name for name in ("embedded", "openbao")}
        for folder in folders.values():
            folder.mkdir()
        vault = closing.enter_context(running_vault(tmp_path / "vault"))
        dev = new_setting(folders["embedded"], tokens=TOKENS)
        settings = {
            "embedded": dev.with_document(keys=dev.document["keys"] | TIMES),
            "openbao": new_setting(
                folders["openbao"], tokens=TOKENS, keys=vault.rotating_keys(**TIMES)
            ),
        }
        made = []
        for name, setting in settings.items():
            broker = RunningBroker(setting)
            closing.callback(broker.close)
            broker.wait_until_ready(60)
            load = Load(setting, callers=4, pause=0.1, ask=of_either_key)
            closing.enter_context(load)
            load.wait_for(5)
            verifier = KeepingVerifier(setting, load)
            closing.enter_context(verifier)
            made.append(Rotating(name, broker, load, verifier))
        yield made


@pytest.mark.openbao
@pytest.mark.requirement("SGN-02", "ITR-06", "R-08", "P-C")
def test_keys_rotate_and_are_revoked_under_load_and_every_token_verifies(
    rotating: list[Rotating], report: Report
) -> None:
    case = "rotations"
    began = time.monotonic()

    def rotations() -> int:
        return sum(one.rotations for one in rotating)

    def state() -> str:
        told = ", ".join(
            f"{one.name} {one.rotations} ({len(one.verifier.failures)} unverifiable)"
            for one in rotating
        )
        return f"{rotations()} rotations: {told}"

    with progress(case, state), ThreadPoolExecutor(len(rotating)) as pool:
        for number in range(1, EMERGENCIES + 1):
            go_on(rotations, budget() / (EMERGENCIES + 1 - number))
            for revoking in [pool.submit(one.revoke) for one in rotating]:
                revoking.result()
    for one in rotating:
        refused = [call for call in one.load.calls if not call.token]
        report.add(
            f"{case}, {one.name}",
            rotations=one.rotations,
            emergency_revocations=one.revocations,
            tokens=one.load.granted(),
            verifications=sum(one.verifier.kids.values()),
            unverifiable=len(one.verifier.failures),
            looked_at_too_late=one.verifier.late,
            calls_refused=len(refused),
            seconds=round(time.monotonic() - began),
        )
        assert one.verifier.failures == []
        assert one.verifier.late < sum(one.verifier.kids.values()) / 2
        assert {call.answer.error for call in refused if call.answer} <= {UNABLE}


def go_on(rotations: Callable[[], int], seconds: float) -> None:
    """Return after so many seconds, and not before keys gave way a few times."""
    goal, end = rotations() + LEAST, time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, seconds=seconds + PATIENCE, what="the time is over")
    until(lambda: rotations() >= goal, seconds=PATIENCE, what=f"{goal} rotations")
