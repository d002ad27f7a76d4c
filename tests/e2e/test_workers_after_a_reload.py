"""Workers that take the place of others after a reload: they serve what was accepted last."""

import os
import signal
from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.patience import until
from tests.e2e.reloading import (
    PERMIT,
    WORKERS,
    Operator,
    assert_refused,
    assert_soon_refused,
    both_faces,
    disable_client,
    disable_issuer,
    disable_resource,
    is_granted,
)
from tests.e2e.running import RunningBroker
from tests.e2e.setting import login
from tests.e2e.wires import Wire, settled

LOGIN_PERMIT: Final = """\
@id("login")
permit (
  principal == Client::"agent-desk", action == Action::"exchange", resource
);
"""


def replace_workers(broker: RunningBroker) -> None:
    """Kill the workers of both faces, and wait for those that come in their place."""
    broker.wait_until_steady()
    before = {worker: broker.worker_process(worker) for worker in WORKERS}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: all(
            broker.serving_process(worker) and broker.worker_process(worker) != pid
            for worker, pid in before.items()
        ),
        seconds=60,
        what="there are other workers",
    )
    broker.wait_until_ready()


@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    ("withdraw", "damage", "error"),
    [
        pytest.param(
            lambda operator: operator.change(disable_client),
            Operator.break_configuration,
            "invalid_client",
            marks=pytest.mark.requirement("CAU-15"),
            id="a client",
        ),
        pytest.param(
            lambda operator: operator.change(disable_issuer),
            Operator.break_policies,
            "invalid_request",
            marks=pytest.mark.requirement("KEY-14"),
            id="an issuer",
        ),
        pytest.param(
            lambda operator: operator.change(disable_resource),
            Operator.empty_configuration,
            "invalid_target",
            id="a resource",
        ),
        pytest.param(
            Operator.withdraw_permit,
            Operator.break_configuration,
            "invalid_target",
            marks=pytest.mark.requirement("POL-05"),
            id="a permit",
        ),
    ],
)
def test_what_was_withdrawn_does_not_come_back_with_a_new_worker_after_a_broken_reload(
    operator: Operator,
    faces: tuple[Wire, Wire],
    withdraw: Callable[[Operator], None],
    damage: Callable[[Operator], None],
    error: str,
) -> None:
    withdraw(operator)
    assert_soon_refused(faces, operator.setting, error=error)
    damage(operator)
    operator.reload_in_vain()

    replace_workers(operator.broker)

    with both_faces(operator.setting) as new_faces:
        for face in new_faces:
            assert_refused(face, operator.setting, error=error)


@pytest.mark.requirement("R-28")
def test_everybody_else_is_served_by_workers_that_replace_others_after_a_broken_reload(
    operator: Operator, faces: tuple[Wire, Wire]
) -> None:
    operator.write_policies(PERMIT + LOGIN_PERMIT)
    operator.change(disable_client)
    assert_soon_refused(faces, operator.setting, error="invalid_client")
    operator.break_configuration()
    operator.reload_in_vain()

    replace_workers(operator.broker)

    with both_faces(operator.setting) as new_faces:
        for face in new_faces:
            answer = settled(face, lambda: login(operator.setting))
            assert answer.is_granted, answer.everything
            assert_refused(face, operator.setting, error="invalid_client")


@pytest.mark.requirement("R-27")
@pytest.mark.usefixtures("faces")
def test_a_new_worker_does_not_take_up_an_edit_that_nobody_ordered(operator: Operator) -> None:
    operator.edit(disable_client)
    operator.write_policies(PERMIT.replace('ClientGroup::"odd"', 'ClientGroup::"none"'))

    replace_workers(operator.broker)

    with both_faces(operator.setting) as new_faces:
        for face in new_faces:
            assert is_granted(face, operator.setting)
        operator.reload()
        assert_soon_refused(new_faces, operator.setting, error="invalid_client")
