"""What is in force: accepted in one place, taken by others as it is, and seen as a whole."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from broker.app import Process
from broker.config import load_settings
from broker.errors import TemporarilyUnavailable
from broker.in_force import Accepted, Configuration, InForce, OneConfigurationPerEntry
from broker.metrics import Metrics, prepare_directory
from broker.metrics.measures import CACHES
from broker.model import (
    Delegation,
    KeySource,
    PolicyQuery,
    Relation,
    RequestContext,
    Subject,
)
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


def _is_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _leads_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nowhere")


def _leads_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _is_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


BAD_FILES: Final[dict[str, Callable[[Path], object]]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "half": _is_half,
    "a byte order mark": lambda file: file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes()),
    "not UTF-8": lambda file: file.write_bytes(file.read_bytes().replace(b"issuer", b"\xff")),
    "a zero byte": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a list": lambda file: file.write_text("[]"),
    "a word": lambda file: file.write_text("yes"),
    "wrong types": lambda file: file.write_text(json.dumps({"issuer": [1], "clients": "many"})),
    "a folder": _is_a_folder,
    "a link that leads nowhere": _leads_nowhere,
    "a link that leads to itself": _leads_to_itself,
    "megabytes": lambda file: file.write_text("# " + "x" * 20_000_000),
}


@pytest.mark.requirement("R-28")
@pytest.mark.parametrize("spoil", BAD_FILES.values(), ids=BAD_FILES)
def test_whatever_became_of_the_file_the_last_good_one_stays_in_force(
    setting: Setting, spoil: Callable[[Path], object]
) -> None:
    supervisor = accepted(setting)
    before = supervisor.configuration
    spoil(setting.file)

    order = supervisor.reload()

    assert "broker.yaml" in order.problem
    assert supervisor.configuration is before


@pytest.mark.requirement("R-28")
def test_a_file_behind_a_link_that_is_swapped_is_the_new_one_and_never_half_of_it(
    setting: Setting,
) -> None:
    """So do Kubernetes' volumes replace what they hold."""
    supervisor = accepted(setting)
    rewrite(setting, disable_client)
    good = setting.file.rename(setting.directory / "good.yaml")
    bad = setting.directory / "bad.yaml"
    bad.write_text("issuer: [")
    for target in (bad, good):
        draft = setting.directory / "draft"
        draft.symlink_to(target)
        draft.replace(setting.file)
        order = supervisor.reload()
        assert bool(order.problem) == (target is bad)
        assert is_disabled(supervisor.configuration) == (target is good)


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
    assert process.memories().keys() == set(CACHES), "each is measured under its name"
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


@pytest.mark.requirement("LOG-07")
@pytest.mark.parametrize(
    "wrong",
    [
        {"disabled_subjects": ["canary-alice", "canary-alice"]},
        {"disabled_subjects": ["canary alice\n"]},
        {"authorization_servers": [{"issuer": "x", "subjects": {"canary-alice.b": "canary\n"}}]},
        {"issuers": [{"issuer": "https://idp.example", "accounts": {"canary-alice": 7}}]},
    ],
)
def test_why_a_reload_was_refused_is_told_without_the_people_in_the_file(
    setting: Setting, wrong: Document
) -> None:
    supervisor = accepted(setting)

    rewrite(setting, lambda document: document.update(wrong))
    with capture_logs() as logs:
        order = supervisor.reload()

    [refused] = [one for one in logs if one["event"] == "reload_refused"]
    for told in (order.problem, refused["problems"]):
        assert "broker.yaml:" in told
        assert next(iter(wrong)) in told
        assert "canary" not in told


@pytest.mark.requirement("R-27", "CIMD-13")
def test_hosts_of_client_documents_are_listed_and_taken_off_by_a_reload(setting: Setting) -> None:
    supervisor = accepted(setting)
    worker = supervisor.configuration
    url = "https://c.test/app.json"

    def listed(document: Document) -> None:
        document["client_documents"] = {"hosts": ["c.test"], "groups": ["apps"]}

    rewrite(setting, listed)
    worker = worker.changed_to(supervisor.reload().in_force)
    client = worker.registry.client(url)
    assert client is not None
    assert (client.groups, client.keys) == (frozenset({"apps"}), KeySource(document=url))
    assert worker.registry.has_client_documents
    setting.write()
    worker = worker.changed_to(supervisor.reload().in_force)

    assert worker.registry.client(url) is None
    assert not worker.registry.has_client_documents


def test_a_process_fetches_no_clients_document_ahead_of_the_client(setting: Setting) -> None:
    auth = {"method": "private_key_jwt", "document": True}

    def known_by_document(document: Document) -> None:
        document["clients"].append({"id": "https://127-0-0-1.test/a", "auth": auth})

    rewrite(setting, known_by_document)
    supervisor = accepted(setting)
    folder = setting.directory / "state" / "metrics"
    os.makedirs(folder, mode=0o700)  # noqa: PTH103 - The mode counts for the folder above, too.
    prepare_directory(folder)
    process = Process(
        supervisor.configuration, writer="http-0", metrics=Metrics(folder, "http-0", issuers=[IDP])
    )
    try:
        process.reload(Order(supervisor.reload().in_force, "", generation=1))
        assert process._foundation.in_force.has_client_documents
        assert process._foundation._key_ring.status() == {}
    finally:
        process.close()


AS: Final = "https://as.example"
CLUSTER: Final = "https://cluster.example"
WORKER: Final = "worker"
WORKER_RULE: Final = {"client": WORKER, "claims": {"/kubernetes.io/namespace": "prod"}}


def declare_everything(document: Document) -> None:
    """Declare one of everything that can be switched off, with all that can be said of it."""
    bundle = {"keys": [{**idp_key().jwk, "use": "jwt-svid"}]}
    svid_rule = {"client": WORKER, "claims": {"sub": "spiffe://td.example/worker"}}
    trusted = {"purposes": ["workload"], "algorithms": ["ES256"]}
    document["clients"].append({"id": WORKER, "grants": ["jwt_bearer"], "introspect": [API]})
    document["issuers"] += [
        {"issuer": CLUSTER, **trusted, "single_use": True, "workloads": [WORKER_RULE]},
        {"issuer": "spiffe://td.example", **trusted, "jwks": bundle, "workloads": [svid_rule]},
        {
            "issuer": "https://partner.example",
            "purposes": ["id_jag"],
            "algorithms": ["ES256"],
            "multi_tenant": True,
            "accounts": {"t1": {"u1": "ann"}},
        },
    ]
    document["authorization_servers"] = [
        {
            "issuer": AS,
            "names": ["wiki"],
            "client_ids": {TICKETS: "tickets-at-wiki"},
            "subject": "mapped",
            "subjects": {"ann": "ann-at-wiki"},
            "resources": [{"resource": "https://wiki.example", "scopes": ["read"]}],
        }
    ]


@pytest.mark.requirement("R-27")
def test_everything_that_is_declared_reaches_a_worker_unchanged(setting: Setting) -> None:
    supervisor = accepted(setting)
    worker = supervisor.configuration
    rewrite(setting, declare_everything)
    order = supervisor.reload()

    assert order.problem == ""
    assert worker.changed_to(order.in_force).settings == supervisor.configuration.settings
    loaded = load_settings(setting.file, {})
    assert supervisor.configuration.settings.issuers == loaded.issuers
    assert supervisor.configuration.settings.authorization_servers == loaded.authorization_servers


def _switch(section: str, at: int) -> Callable[[Document], None]:
    def edit(document: Document) -> None:
        document[section][at]["disabled"] = True

    return edit


def _no_rules(document: Document) -> None:
    issuer = next(one for one in document["issuers"] if one["issuer"] == CLUSTER)
    issuer["workloads"] = []


def _no_subject(document: Document) -> None:
    document["disabled_subjects"] = ["ann"]


def _off(found: Any) -> bool:
    assert found is not None
    return bool(found.is_disabled)


Looking = Callable[[InForce], bool]
SWITCHES: Final[dict[str, tuple[Callable[[Document], None], Looking]]] = {
    "client": (_switch("clients", 1), lambda seen: _off(seen.client(TICKETS))),
    "workload": (_switch("clients", 2), lambda seen: _off(seen.client(WORKER))),
    "issuer": (_switch("issuers", 0), lambda seen: _off(seen.issuer(IDP))),
    "cluster": (_switch("issuers", 1), lambda seen: _off(seen.issuer(CLUSTER))),
    "resource": (_switch("resources", 1), lambda seen: _off(seen.resource(API))),
    "server": (
        _switch("authorization_servers", 0),
        lambda seen: _off(seen.authorization_server(AS)),
    ),
    "name": (
        _switch("authorization_servers", 0),
        lambda seen: _off(seen.authorization_server("wiki")),
    ),
    "rules": (_no_rules, lambda seen: not getattr(seen.issuer(CLUSTER), "workloads", ())),
    "subject": (_no_subject, lambda seen: seen.is_subject_disabled("ann")),
}
"""What an operator can switch off, and where the core would see it."""


@pytest.mark.requirement("KEY-14", "CAU-15", "R-27")
@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_is_thrown_and_thrown_back_by_a_reload(setting: Setting, name: str) -> None:
    edit, is_off = SWITCHES[name]
    rewrite(setting, declare_everything)
    supervisor = accepted(setting)
    in_force = InForce(supervisor.configuration)
    assert not is_off(in_force)

    def both(document: Document) -> None:
        declare_everything(document)
        edit(document)

    for change, expected in ((both, True), (declare_everything, False)):
        rewrite(setting, change)
        order = supervisor.reload()
        assert order.problem == ""
        in_force.take(in_force.current.changed_to(order.in_force))
        assert is_off(in_force) is expected


def disable_policies(*policy_ids: str) -> Callable[[Document], None]:
    def edit(document: Document) -> None:
        document["disabled_policies"] = list(policy_ids)

    return edit


def permits(in_force: InForce) -> bool:
    """Whether the one permit there is still permits."""
    client, resource = in_force.client(TICKETS), in_force.resource(API)
    assert client is not None
    assert resource is not None
    subject = Subject("ann", IDP)
    delegation = Delegation(subject, Relation.AUDIENCE, frozenset(), not_after=None)
    query = PolicyQuery(client, delegation, resource, tuple(resource.scopes.values()), now=0)
    return bool(in_force.decide(query).granted)


@pytest.mark.requirement("POL-05")
def test_a_policy_is_switched_off_and_on_by_a_reload(setting: Setting) -> None:
    supervisor = accepted(setting)
    in_force = InForce(supervisor.configuration)
    digests = {in_force.digest}
    assert permits(in_force)
    for policy_ids, expected in ((("all",), False), ((), True)):
        rewrite(setting, disable_policies(*policy_ids))
        order = supervisor.reload()
        assert order.problem == ""
        in_force.take(in_force.current.changed_to(order.in_force))
        digests.add(in_force.digest)
        assert permits(in_force) is expected

    assert len(digests) == 2


@pytest.mark.requirement("POL-03", "CFG-01")
def test_a_policy_that_is_not_there_cannot_be_switched_off(setting: Setting) -> None:
    """Somebody who misspells it must not believe that it is off."""
    supervisor = accepted(setting)
    before = supervisor.configuration
    rewrite(setting, disable_policies("al"))

    order = supervisor.reload()

    assert "The policy to disable, al, does not exist. Did you mean all?" in order.problem
    assert supervisor.configuration is before
    with pytest.raises(PolicyLoadError, match="The policy to disable, al, does not exist"):
        Configuration.load(load_settings(setting.file, {}))


def widen_what_waits(document: Document) -> None:
    """Change what a reload takes, and what it does not."""
    disable_client(document)
    document["limits"] = {"per_client": {"rate": "7/s"}}
    document["workers"] = {"http": 3}
    document["log"] = {"level": "debug"}
    document["policies"] = str(POLICIES)
    document["issuers"][0]["key_hosts"] = ["keys.idp.example"]
    document["issuers"][0] |= {"jwks_uri": "https://keys.idp.example/jwks"}
    del document["issuers"][0]["jwks"]


def test_a_reload_says_which_changes_wait_for_a_restart(setting: Setting) -> None:
    supervisor = accepted(setting)
    rewrite(setting, widen_what_waits)

    with structlog.testing.capture_logs() as logs:
        order = supervisor.reload()

    waiting = ("workers", "limits", "log", "policies", "issuers.key_hosts")
    assert (order.problem, order.needs_restart) == ("", waiting)
    assert [line.get("needs_restart") for line in logs] == [list(waiting)]
    assert is_disabled(supervisor.configuration)
    # They wait for as long as they are not in force, and are told of each time.
    assert supervisor.reload().needs_restart == waiting


def test_a_reload_of_what_can_be_reloaded_waits_for_nothing(setting: Setting) -> None:
    supervisor = accepted(setting)
    rewrite(setting, declare_everything)

    with structlog.testing.capture_logs() as logs:
        assert supervisor.reload().needs_restart == ()

    assert [(line["event"], "needs_restart" in line) for line in logs] == [
        ("reload_accepted", False)
    ]


def test_what_waits_for_a_restart_is_on_record(setting: Setting) -> None:
    supervisor = accepted(setting)
    folder = setting.directory / "state" / "metrics"
    os.makedirs(folder, mode=0o700)  # noqa: PTH103 - The mode counts for the folder above, too.
    prepare_directory(folder)
    measured = Metrics(folder, "http-0", issuers=[IDP])
    process = Process(supervisor.configuration, writer="http-0", metrics=measured)
    try:
        waiting = ("workers", "limits")
        process.reload(Order(supervisor.reload().in_force, generation=1, needs_restart=waiting))
    finally:
        process.close()
    [loaded] = read_records(setting.audit_directory, "config.loaded")
    assert loaded["detail"] == "needs_restart: [workers, limits]"
