"""A broker whose files change while it runs, and the operator who changes them."""

import copy
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.e2e.patience import until
from tests.e2e.running import RunningBroker
from tests.e2e.setting import POLICIES, READ, Document, Setting, exchange, new_setting
from tests.e2e.wires import Wire, settled, wire

WORKERS: Final = frozenset({"grpc-0", "http-0"})
SECONDS: Final = 30.0
"""Within so many seconds an order is carried out, whatever else runs on the machine."""

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

_TICKETS_CLIENT, _API_RESOURCE, _IDP = 1, 1, 0

Edit = Callable[[Document], None]


def groups(name: str) -> Edit:
    """Both the client and the scope belong to the group of this name: one without the other is no."""

    def edit(document: Document) -> None:
        document["clients"][_TICKETS_CLIENT]["groups"] = [name]
        document["resources"][_API_RESOURCE]["scopes"][READ]["groups"] = [name]

    return edit


def disable_client(document: Document) -> None:
    """Let the tickets server do nothing any more."""
    document["clients"][_TICKETS_CLIENT]["disabled"] = True


def disable_issuer(document: Document) -> None:
    """Accept nothing of the identity provider any more."""
    document["issuers"][_IDP]["disabled"] = True


def disable_policies(document: Document) -> None:
    """Let it be as if nothing were permitted."""
    document["disabled_policies"] = ["in-step", "in-step-too"]


def disable_resource(document: Document) -> None:
    """Issue nothing for the API any more."""
    document["resources"][_API_RESOURCE]["disabled"] = True


def take_key_away(document: Document) -> None:
    """Give the tickets server another key than the one it has."""
    other_keys = document["clients"][0]["auth"]["jwks"]
    document["clients"][_TICKETS_CLIENT]["auth"]["jwks"] = other_keys


class Operator:
    """Changes the files of a running broker and tells it."""

    def __init__(self, broker: RunningBroker) -> None:
        self.broker = broker
        self.setting: Setting = broker.setting
        self._policy_file = Path(self.setting.document["policies"]) / "permits.cedar"

    def change(self, edit: Edit) -> None:
        """Put a changed configuration in force."""
        self.edit(edit)
        self.reload()

    def edit(self, edit: Edit) -> None:
        """Write a changed configuration, and order nothing."""
        document = copy.deepcopy(self.setting.document)
        edit(document)
        self.setting.write(document)

    def write_policies(self, text: str) -> None:
        """Write other policies, and order nothing."""
        self._policy_file.write_text(text)

    def withdraw_permit(self) -> None:
        """Put policies in force that permit the tickets server nothing."""
        self.write_policies(PERMIT.replace('ClientGroup::"odd"', 'ClientGroup::"none"'))
        self.reload()

    def break_policies(self) -> None:
        """Leave half a policy in the folder."""
        self.write_policies(PERMIT + "permit (principal")

    def break_configuration(self) -> None:
        """Leave in the file what is not YAML."""
        self.setting.file.write_text("issuer: [")

    def empty_configuration(self) -> None:
        """Leave nothing in the file."""
        self.setting.file.write_bytes(b"")

    def reload(self) -> None:
        """Tell the broker to read its files again."""
        self.broker.send(signal.SIGHUP)

    def reload_in_vain(self) -> list[dict[str, Any]]:
        """Tell the broker to read files that are not good; what the workers record of it."""
        before = {record["event_id"] for record in self.broker.records("config.rejected")}

        def rejected() -> list[dict[str, Any]]:
            records = self.broker.records("config.rejected")
            return [record for record in records if record["event_id"] not in before]

        self.reload()
        until(lambda: len(rejected()) >= len(WORKERS), seconds=30, what="the workers recorded it")
        return rejected()

    def restore(self) -> None:
        """Put everything back, and wait until it is in force."""
        self.setting.write()
        self.write_policies(PERMIT)
        self.reload()
        with both_faces(self.setting) as faces:
            for face in faces:
                until(partial(is_granted, face, self.setting), seconds=30, what="it works again")


@contextmanager
def reloadable(directory: Path, **sections: Any) -> Iterator[RunningBroker]:
    """A ready broker whose policies are its own, with these sections in its document."""
    policies = directory / "policies"
    policies.mkdir()
    shutil.copy(POLICIES / "broker.cedarschema", policies)
    (policies / "permits.cedar").write_text(PERMIT)
    setting = new_setting(directory, policies=str(policies), **sections)
    groups("odd")(setting.document)
    broker = RunningBroker(setting)
    try:
        broker.wait_until_ready()
        yield broker
    finally:
        broker.close()


@contextmanager
def both_faces(setting: Setting) -> Iterator[tuple[Wire, Wire]]:
    """New connections to both faces."""
    with wire("http", setting) as http, wire("grpc", setting) as grpc:
        yield http, grpc


def is_granted(face: Wire, setting: Setting) -> bool:
    """Whether an exchange works."""
    return settled(face, partial(exchange, setting)).is_granted


def is_refused(face: Wire, setting: Setting) -> bool:
    """Whether it does not."""
    return not is_granted(face, setting)


def assert_soon_refused(faces: tuple[Wire, Wire], setting: Setting, *, error: str) -> float:
    """Soon both faces refuse, and once they did they do; how many seconds it took."""
    began = time.monotonic()
    for face in faces:
        until(partial(is_refused, face, setting), seconds=SECONDS, what="it is refused")
    took = time.monotonic() - began
    for face in faces:
        assert_refused(face, setting, error=error)
    return took


def assert_refused(face: Wire, setting: Setting, *, error: str) -> None:
    """It refuses, time and again."""
    again = [settled(face, partial(exchange, setting)) for _ in range(5)]
    assert {answer.error for answer in again} == {error}
