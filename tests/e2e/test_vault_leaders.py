"""Three OpenBao servers, of which now one leads and now another, and a broker that knows only one of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.conftest import Starting
from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.setting import new_setting
from tests.e2e.vault import with_keys
from tests.e2e.verifying import KeepingVerifier
from tests.e2e.wires import UNABLE
from tests.openbao_raft import Node, leader, running_cluster

pytestmark = pytest.mark.openbao

RECOVERY: Final = 60.0
"""A leader that is gone is missed after a second or two; the broker asks again every half second."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node, Node]]:
    """The servers, of which the first leads."""
    with running_cluster(tmp_path / "vault") as three:
        yield three


@pytest.mark.requirement("R-06", "R-02", "P-C")
def test_a_broker_signs_through_its_own_server_whoever_leads_and_goes_to_no_other(
    nodes: tuple[Node, Node, Node], starting: Starting, tmp_path: Path
) -> None:
    own, *others = nodes
    keys = with_keys(own).keys()
    keys["vault"] = keys["vault"] | {"url": own.door_url}
    broker = starting(new_setting(tmp_path, keys=keys))

    with (
        Load(broker.setting, callers=2, pause=0.05) as load,
        KeepingVerifier(broker.setting, load) as verifier,
    ):
        load.wait_for(5)
        own.step_down()
        second = leader(others)
        load.wait_for(5, seconds=RECOVERY)

        # It stands by, and sends away whom it cannot help; to a door that counts who comes.
        assert own.sends_to() == second.door_url
        second.kill()
        until(lambda: load.refused(UNABLE), seconds=RECOVERY, what="a caller is told")
        leader([node for node in nodes if node is not second])
        load.wait_for(5, seconds=RECOVERY)
        seen = load.granted()
        until(lambda: sum(verifier.kids.values()) >= seen, seconds=60, what="all are verified")

    refused = [call for call in load.calls if not call.token]
    assert {call.answer.error if call.answer else "none" for call in refused} == {UNABLE}
    assert verifier.failures == []
    assert verifier.late == 0
    assert own.door.accepted
    assert [node.door.accepted for node in others] == [0, 0]
