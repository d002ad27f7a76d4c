"""SIGHUP while callers call: what it takes away is gone at once, what it breaks changes nothing."""

import copy
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.load import Load
from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import (
    API,
    POLICIES,
    READ,
    Document,
    Setting,
    exchange,
    login,
    new_setting,
)
from tests.e2e.wires import UNABLE, Wire, settled, wire

TICKETS_CLIENT, API_RESOURCE, IDP = 1, 1, 0
RELOADS: Final = 50
SECONDS: Final = 2.0
PERMIT: Final = """\
@id("in-step")
permit (
  principal in ClientGroup::"odd", action == Action::"exchange", resource in ScopeGroup::"odd"
);
@id("in-step-too")
permit (
  principal in ClientGroup::"even", action == Action::"exchange", resource in ScopeGroup::"even"
);
"""
LOGIN_PERMIT: Final = """\
@id("login")
permit (
  principal == Client::"agent-desk", action == Action::"exchange", resource
);
"""


class Operator:
    """Changes the files of a running broker and tells it."""

    def __init__(self, broker: RunningBroker) -> None:
        self.broker = broker
        self.setting: Setting = broker.setting
        self.policy_file = Path(self.setting.document["policies"]) / "permits.cedar"

    def change(self, edit: Callable[[Document], None]) -> None:
        """Put a changed configuration in force."""
        document = copy.deepcopy(self.setting.document)
        edit(document)
        self.setting.write(document)
        self.reload()

    def reload(self) -> None:
        """Tell the broker to read its files again."""
        self.broker.send(signal.SIGHUP)

    def restore(self) -> None:
        """Put everything back, and wait until it is in force."""
        self.setting.write()
        self.policy_file.write_text(PERMIT)
        self.reload()
        for face in ("http", "grpc"):
            with wire(face, self.setting) as connection:
                until(partial(is_granted, connection, self.setting), seconds=10, what="it works")

    def writers(self, event: str) -> set[str]:
        """The workers that have recorded the event."""
        return {record["writer"] for record in self.broker.records(event)}


def is_granted(connection: Wire, setting: Setting) -> bool:
    return settled(connection, lambda: exchange(setting)).is_granted


def is_refused(connection: Wire, setting: Setting) -> bool:
    return not is_granted(connection, setting)


def groups(name: str) -> Callable[[Document], None]:
    """Both the client and the scope belong to the group of this name: one without the other is no."""

    def edit(document: Document) -> None:
        document["clients"][TICKETS_CLIENT]["groups"] = [name]
        document["resources"][API_RESOURCE]["scopes"][READ]["groups"] = [name]

    return edit


@pytest.fixture(scope="module")
def _reloadable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    directory = tmp_path_factory.mktemp("reloadable")
    policies = directory / "policies"
    policies.mkdir()
    shutil.copy(POLICIES / "broker.cedarschema", policies)
    (policies / "permits.cedar").write_text(PERMIT)
    setting = new_setting(directory, policies=str(policies))
    groups("odd")(setting.document)
    broker = RunningBroker(setting)
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


@pytest.fixture
def operator(_reloadable: RunningBroker) -> Iterator[Operator]:
    """Whoever may change the files; what was changed is undone afterwards."""
    operator = Operator(_reloadable)
    yield operator
    operator.restore()


@pytest.fixture
def faces(operator: Operator) -> Iterator[tuple[Wire, Wire]]:
    """Connections to both faces, on which an exchange works now."""
    with wire("http", operator.setting) as http, wire("grpc", operator.setting) as grpc:
        for connection in (http, grpc):
            assert is_granted(connection, operator.setting)
        yield http, grpc


def assert_soon_refused(faces: tuple[Wire, Wire], setting: Setting, *, error: str) -> None:
    """Within two seconds both faces refuse, and once they did they do."""
    for connection in faces:
        until(partial(is_refused, connection, setting), seconds=SECONDS, what="it is refused")
        again = [settled(connection, partial(exchange, setting)) for _ in range(5)]
        assert {answer.error for answer in again} == {error}


@pytest.mark.requirement("POL-05")
def test_a_permit_that_is_removed_permits_nothing_any_more_within_two_seconds(
    operator: Operator, faces: tuple[Wire, Wire]
) -> None:
    operator.policy_file.write_text(PERMIT.replace('ClientGroup::"odd"', 'ClientGroup::"none"'))
    operator.reload()

    assert_soon_refused(faces, operator.setting, error="invalid_target")


def _disable_client(document: Document) -> None:
    document["clients"][TICKETS_CLIENT]["disabled"] = True


def _disable_issuer(document: Document) -> None:
    document["issuers"][IDP]["disabled"] = True


def _disable_resource(document: Document) -> None:
    document["resources"][API_RESOURCE]["disabled"] = True


def _take_key_away(document: Document) -> None:
    keys = document["clients"][0]["auth"]["jwks"]
    document["clients"][TICKETS_CLIENT]["auth"]["jwks"] = keys


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        pytest.param(
            _disable_client,
            "invalid_client",
            marks=pytest.mark.requirement("CAU-15"),
            id="the client is disabled",
        ),
        pytest.param(
            _take_key_away,
            "invalid_client",
            marks=pytest.mark.requirement("CAU-15"),
            id="the client's key is replaced",
        ),
        pytest.param(
            _disable_issuer,
            "invalid_request",
            marks=pytest.mark.requirement("KEY-14"),
            id="the issuer is disabled",
        ),
        pytest.param(_disable_resource, "invalid_target", id="the resource is disabled"),
    ],
)
def test_what_is_disabled_is_refused_on_both_faces_within_two_seconds(
    operator: Operator,
    faces: tuple[Wire, Wire],
    edit: Callable[[Document], None],
    error: str,
) -> None:
    operator.change(edit)

    assert_soon_refused(faces, operator.setting, error=error)


def _break_policies(operator: Operator) -> None:
    operator.policy_file.write_text(PERMIT + "permit (principal")


def _break_configuration(operator: Operator) -> None:
    operator.setting.file.write_text("issuer: [")


def _empty_configuration(operator: Operator) -> None:
    operator.setting.file.write_bytes(b"")


@pytest.mark.requirement("POL-03")
@pytest.mark.requirement("R-28")
@pytest.mark.parametrize("damage", [_break_policies, _break_configuration, _empty_configuration])
def test_a_broken_file_changes_nothing_is_on_record_and_can_be_mended(
    operator: Operator, faces: tuple[Wire, Wire], damage: Callable[[Operator], None]
) -> None:
    before = {record["event_id"] for record in operator.broker.records("config.rejected")}
    damage(operator)
    operator.reload()

    def rejected() -> list[dict[str, Any]]:
        records = operator.broker.records("config.rejected")
        return [record for record in records if record["event_id"] not in before]

    until(lambda: len(rejected()) == 2, seconds=10, what="both workers recorded it")
    assert {record["writer"] for record in rejected()} == {"grpc-0", "http-0"}
    assert all(record["detail"] for record in rejected())
    for connection in faces:
        assert is_granted(connection, operator.setting)
    assert operator.broker.is_ready()

    operator.policy_file.write_text(PERMIT)
    operator.change(_disable_resource)
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

    assert operator.writers("config.loaded") == {"grpc-0", "http-0"}
    assert not unserved, unserved[0]
    assert {record["resource"] for record in operator.broker.records()[-20:]} == {API}


WORKERS: Final = ("http-0", "grpc-0")


def replace_workers(broker: RunningBroker) -> None:
    """Kill the workers of both faces, and wait for those that come in their place."""
    before = {worker: broker.worker_process(worker) for worker in WORKERS}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    until(
        lambda: all(
            broker.serving_process(worker) and broker.worker_process(worker) != pid
            for worker, pid in before.items()
        ),
        seconds=20,
        what="there are other workers",
    )
    broker.wait_until_ready()


def _withdraw_permit(operator: Operator) -> None:
    withdrawn = PERMIT.replace('ClientGroup::"odd"', 'ClientGroup::"none"')
    operator.policy_file.write_text(withdrawn)
    operator.reload()


def _by(edit: Callable[[Document], None]) -> Callable[[Operator], None]:
    return lambda operator: operator.change(edit)


@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    ("withdraw", "damage", "error"),
    [
        pytest.param(
            _by(_disable_client),
            _break_configuration,
            "invalid_client",
            marks=pytest.mark.requirement("CAU-15"),
            id="a client",
        ),
        pytest.param(
            _by(_disable_issuer),
            _break_policies,
            "invalid_request",
            marks=pytest.mark.requirement("KEY-14"),
            id="an issuer",
        ),
        pytest.param(
            _by(_disable_resource), _empty_configuration, "invalid_target", id="a resource"
        ),
        pytest.param(
            _withdraw_permit,
            _break_configuration,
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
    refused_before = len(operator.broker.records("config.rejected"))
    damage(operator)
    operator.reload()
    until(
        lambda: len(operator.broker.records("config.rejected")) == refused_before + 2,
        seconds=10,
        what="both workers recorded it",
    )

    replace_workers(operator.broker)

    for name in ("http", "grpc"):
        with wire(name, operator.setting) as connection:
            answers = [connection.exchange(exchange(operator.setting)) for _ in range(5)]
            assert {answer.error for answer in answers} == {error}


@pytest.mark.requirement("R-28")
def test_everybody_else_is_served_by_workers_that_replace_others_after_a_broken_reload(
    operator: Operator, faces: tuple[Wire, Wire]
) -> None:
    operator.policy_file.write_text(PERMIT + LOGIN_PERMIT)
    operator.change(_disable_client)
    assert_soon_refused(faces, operator.setting, error="invalid_client")
    _break_configuration(operator)
    operator.reload()

    replace_workers(operator.broker)

    for name in ("http", "grpc"):
        with wire(name, operator.setting) as connection:
            answer = connection.exchange(login(operator.setting))
            assert answer.is_granted, answer.everything
            assert connection.exchange(exchange(operator.setting)).error == "invalid_client"


@pytest.mark.requirement("R-27")
@pytest.mark.usefixtures("faces")
def test_a_new_worker_does_not_take_up_an_edit_that_nobody_ordered(operator: Operator) -> None:
    document = copy.deepcopy(operator.setting.document)
    _disable_client(document)
    operator.setting.write(document)
    operator.policy_file.write_text(PERMIT.replace('ClientGroup::"odd"', 'ClientGroup::"none"'))

    replace_workers(operator.broker)

    for name in ("http", "grpc"):
        with wire(name, operator.setting) as connection:
            assert is_granted(connection, operator.setting)
    operator.reload()
    for name in ("http", "grpc"):
        with wire(name, operator.setting) as connection:
            until(
                lambda: connection.exchange(exchange(operator.setting)).error == "invalid_client",
                seconds=SECONDS,
                what="the order put the edit in force",
            )
