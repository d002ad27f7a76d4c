"""What is in force: accepted in one place, taken by others as it is, and seen as a whole."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broker.app import Process
from broker.config import load_settings
from broker.errors import TemporarilyUnavailable
from broker.in_force import Accepted, Configuration, InForce, OneConfigurationPerEntry
from broker.metrics import Metrics, prepare_directory
from broker.model import RequestContext
from broker.orders import Order
from broker.policy.problems import PolicyLoadError
from tests.e2e.running import read_records
from tests.e2e.setting import (
    API,
    IDP,
    POLICIES,
    TICKETS,
    Document,
    Setting,
    idp_key,
    new_setting,
)
from tests.fakes import RecordingAuditLog

PERMIT: Final = '@id("all")\npermit (principal, action == Action::"exchange", resource);\n'


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    policies = tmp_path / "policies"
    policies.mkdir()
    shutil.copy(POLICIES / "broker.cedarschema", policies)
    (policies / "permits.cedar").write_text(PERMIT)
    setting = new_setting(tmp_path, policies=str(policies))
    setting.write()
    return setting


def accepted(setting: Setting) -> Accepted:
    return Accepted(Configuration.load(load_settings(setting.file, {})), {})


def rewrite(setting: Setting, edit: Callable[[Document], None]) -> None:
    document = json.loads(json.dumps(setting.document))
    edit(document)
    setting.write(document)


def disable_client(document: Document) -> None:
    document["clients"][1]["disabled"] = True


def is_disabled(configuration: Configuration) -> bool:
    client = configuration.registry.client(TICKETS)
    assert client is not None
    return client.is_disabled


@pytest.mark.requirement("R-28")
def test_a_reload_that_is_refused_keeps_the_last_good_one_and_not_the_first(
    setting: Setting,
) -> None:
    supervisor = accepted(setting)
    rewrite(setting, disable_client)
    good = supervisor.reload()
    setting.file.write_text("issuer: [")

    refused = supervisor.reload()

    assert (good.problem, refused.in_force) == ("", good.in_force)
    assert "broker.yaml" in refused.problem
    assert is_disabled(supervisor.configuration)


@pytest.mark.requirement("POL-03")
@pytest.mark.parametrize("trouble", ["policies", "key set", "gone"])
def test_trouble_with_any_file_refuses_all_of_them(setting: Setting, trouble: str) -> None:
    key_set = setting.directory / "idp.jwks"
    key_set.write_text(json.dumps(idp_key().jwks))

    def by_file(document: Document) -> None:
        del document["issuers"][0]["jwks"]
        document["issuers"][0]["jwks_file"] = key_set.name

    rewrite(setting, by_file)
    supervisor = accepted(setting)
    before = supervisor.configuration
    if trouble == "policies":
        (setting.directory / "policies" / "permits.cedar").write_text("permit (")
        rewrite(setting, disable_client)
    elif trouble == "key set":
        key_set.write_text("{}")
    else:
        setting.file.unlink()

    order = supervisor.reload()

    assert order.problem
    assert supervisor.configuration is before


@pytest.mark.requirement("R-27")
def test_a_worker_takes_what_was_accepted_whatever_became_of_the_files(setting: Setting) -> None:
    supervisor = accepted(setting)
    worker = supervisor.configuration
    rewrite(setting, disable_client)
    order = supervisor.reload()
    setting.write()
    shutil.rmtree(setting.directory / "policies")

    taken = worker.changed_to(order.in_force)

    assert is_disabled(taken)
    assert taken.settings == supervisor.configuration.settings
    assert taken.policy.digest == supervisor.configuration.policy.digest


@pytest.mark.requirement("R-27")
def test_the_keys_in_a_file_are_part_of_what_is_accepted(setting: Setting) -> None:
    key_set = setting.directory / "idp.jwks"
    key_set.write_text(json.dumps(idp_key().jwks))

    def by_file(document: Document) -> None:
        del document["issuers"][0]["jwks"]
        document["issuers"][0]["jwks_file"] = key_set.name

    rewrite(setting, by_file)
    supervisor = accepted(setting)
    worker = supervisor.configuration
    key_set.write_text(json.dumps({"keys": [{**idp_key().jwks["keys"][0], "kid": "next"}]}))

    order = supervisor.reload()
    key_set.unlink()

    issuer = worker.changed_to(order.in_force).registry.issuer(IDP)
    assert issuer is not None
    assert issuer.keys.jwks is not None
    assert issuer.keys.jwks["keys"][0]["kid"] == "next"


def test_what_processes_are_built_from_does_not_change_with_a_reload(setting: Setting) -> None:
    """Otherwise a worker that is replaced would differ from its neighbour."""
    supervisor = accepted(setting)

    def edit(document: Document) -> None:
        disable_client(document)
        document["tokens"] = {"lifetime": "1m"}
        document["policies"] = str(POLICIES)

    rewrite(setting, edit)
    before = supervisor.configuration
    assert supervisor.reload().problem == ""

    now = supervisor.configuration
    assert is_disabled(now)
    assert now.settings.tokens == before.settings.tokens
    assert now.settings.policies == before.settings.policies
    assert now.policy is before.policy


def test_what_does_not_change_is_the_same_and_keeps_what_was_decided(setting: Setting) -> None:
    supervisor = accepted(setting)
    before = supervisor.configuration

    order = supervisor.reload()

    assert order.problem == ""
    assert supervisor.configuration is before


@pytest.mark.parametrize("encoded", [b"", b"{}", b"[]", b"\xff", b"x" * 1000])
def test_anything_but_accepted_files_is_refused(setting: Setting, encoded: bytes) -> None:
    configuration = accepted(setting).configuration

    with pytest.raises((ValueError, PolicyLoadError)):
        configuration.changed_to(encoded)


def changed(setting: Setting) -> tuple[Configuration, Configuration]:
    supervisor = accepted(setting)
    before = supervisor.configuration

    def edit(document: Document) -> None:
        disable_client(document)
        document["resources"][1]["disabled"] = True

    rewrite(setting, edit)
    (setting.directory / "policies" / "permits.cedar").write_text(PERMIT.replace("all", "new"))
    assert supervisor.reload().problem == ""
    return before, supervisor.configuration


def seen(in_force: InForce) -> tuple[bool, bool, str]:
    client, resource = in_force.client(TICKETS), in_force.resource(API)
    assert client is not None
    assert resource is not None
    return client.is_disabled, resource.is_disabled, in_force.digest


@pytest.mark.requirement("R-27")
def test_registry_and_policy_change_in_one_step(setting: Setting) -> None:
    before, after = changed(setting)
    in_force = InForce(before)
    assert seen(in_force) == (False, False, before.policy.digest)

    in_force.take(after)

    assert seen(in_force) == (True, True, after.policy.digest)


@pytest.mark.requirement("R-27")
def test_a_request_sees_one_configuration_from_its_beginning_to_its_end(setting: Setting) -> None:
    before, after = changed(setting)
    in_force = InForce(before)
    audit = OneConfigurationPerEntry(RecordingAuditLog(), in_force)

    with audit.entry("token.issue", RequestContext("http", "req-1")):
        in_force.take(after)
        during = seen(in_force)
        others: list[Any] = []
        other = threading.Thread(target=lambda: others.append(seen(in_force)))
        other.start()
        other.join()

    assert during == (False, False, before.policy.digest)
    assert others == [(True, True, after.policy.digest)]
    assert seen(in_force) == (True, True, after.policy.digest)


def test_a_request_that_fails_holds_on_to_nothing(setting: Setting) -> None:
    before, after = changed(setting)
    in_force = InForce(before)

    def fail() -> None:
        with in_force.held():
            in_force.take(after)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert seen(in_force) == (True, True, after.policy.digest)


@pytest.mark.requirement("R-28")
def test_a_process_that_cannot_take_what_is_in_force_serves_on_but_is_not_ready(
    setting: Setting,
) -> None:
    supervisor = accepted(setting)
    folder = setting.directory / "state" / "metrics"
    os.makedirs(folder, mode=0o700)  # noqa: PTH103 - The mode counts for the folder above, too.
    prepare_directory(folder)
    process = Process(
        supervisor.configuration, writer="http-0", metrics=Metrics(folder, "http-0", issuers=[IDP])
    )
    check = next(one for one in process.checks() if one.name == "configuration")
    check.run()
    try:
        with pytest.raises(ValueError, match=r"."):
            process.reload(Order(b"half of a configur", generation=1))
        with pytest.raises(TemporarilyUnavailable):
            check.run()

        rewrite(setting, disable_client)
        process.reload(Order(supervisor.reload().in_force, "another problem", generation=2))
        check.run()
    finally:
        process.close()
    rejected = read_records(setting.audit_directory, "config.rejected")
    assert [record["detail"] for record in rejected] == ["another problem"]
