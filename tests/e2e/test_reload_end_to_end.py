"""SIGHUP while callers call: what it takes away is gone at once, what it breaks changes nothing."""

from collections.abc import Callable
from typing import Final

import pytest

from tests.e2e.load import Load
from tests.e2e.patience import holds, is_swift
from tests.e2e.reloading import (
    PERMIT,
    WORKERS,
    Edit,
    Operator,
    assert_soon_refused,
    disable_client,
    disable_issuer,
    disable_policies,
    disable_resource,
    groups,
    is_granted,
    take_key_away,
)
from tests.e2e.wires import UNABLE, Wire

RELOADS: Final = 20
EVERYWHERE: Final = 5.0
"""Within so many seconds what is disabled is refused by all."""


@pytest.mark.requirement("POL-05")
def test_a_permit_that_is_removed_soon_permits_nothing_any_more(
    operator: Operator, faces: tuple[Wire, Wire]
) -> None:
    operator.withdraw_permit()

    assert_soon_refused(faces, operator.setting, error="invalid_target")


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        pytest.param(disable_client, "invalid_client", marks=pytest.mark.requirement("CAU-15")),
        pytest.param(take_key_away, "invalid_client", marks=pytest.mark.requirement("CAU-15")),
        pytest.param(disable_issuer, "invalid_request", marks=pytest.mark.requirement("KEY-14")),
        pytest.param(disable_resource, "invalid_target"),
        pytest.param(disable_policies, "invalid_target", marks=pytest.mark.requirement("POL-05")),
    ],
)
def test_what_is_disabled_is_soon_refused_on_both_faces(
    operator: Operator, faces: tuple[Wire, Wire], edit: Edit, error: str
) -> None:
    def seconds_until_refused() -> float:
        operator.restore()
        operator.change(edit)
        return assert_soon_refused(faces, operator.setting, error=error)

    assert is_swift(seconds_until_refused, seconds=EVERYWHERE)


@pytest.mark.requirement("POL-03")
@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    "damage",
    [Operator.break_policies, Operator.break_configuration, Operator.empty_configuration],
)
def test_a_broken_file_changes_nothing_is_on_record_and_can_be_mended(
    operator: Operator, faces: tuple[Wire, Wire], damage: Callable[[Operator], None]
) -> None:
    damage(operator)
    rejected = operator.reload_in_vain()

    assert {record["writer"] for record in rejected} == WORKERS
    assert all(record["detail"] for record in rejected)
    for face in faces:
        assert is_granted(face, operator.setting)
    assert holds(operator.broker.is_ready, pause=0.5)

    operator.write_policies(PERMIT)
    operator.change(disable_resource)
    assert_soon_refused(faces, operator.setting, error="invalid_target")


@pytest.mark.requirement("R-27")
def test_no_request_is_decided_by_half_of_one_configuration_and_half_of_the_next(
    operator: Operator,
) -> None:
    with Load(operator.setting) as load:
        load.wait_for(20)
        for number in range(RELOADS):
            operator.change(groups(("odd", "even")[number % 2]))
            load.wait_for(8)
    decided = [call for call in load.calls if call.answer is None or call.answer.error != UNABLE]
    unserved = [call for call in decided if not call.token]

    loaded = operator.broker.records("config.loaded")
    assert {record["writer"] for record in loaded} == WORKERS
    assert not unserved, unserved[0]
