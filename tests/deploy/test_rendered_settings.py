"""The broker reads what the chart renders, mounted as a kubelet mounts it."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli import main
from broker.config import ConfigError, Settings, load_settings
from broker.policy.files import read_files
from tests.deploy.chart import ROOT, Document, changed, example, render
from tests.deploy.kubelet import Pod
from tests.deploy.test_rendered_manifests import OVERLAYS
from tests.idp import signer

_PAIR = {"tls.crt": "certificate", "tls.key": "key", "ca.crt": "authority"}
SECRETS = dict.fromkeys(
    ("broker-grpc-tls", "broker-http-tls", "callers-ca", "broker-metrics-tls"), _PAIR
)
SECRETS["broker-valkey"] = {"password": "p", "sentinel-password": "s", "ca.crt": "authority"}
CONFIG_MAPS = {
    "vault-ca": {"ca.crt": "authority"},
    "broker-clients": {"mcp-tickets.jwks.json": json.dumps(signer("mcp-tickets").jwks)},
}
DELIVERED = {
    file.relative_to(ROOT / "policies").as_posix(): file.read_text()
    for pattern in ("*.cedarschema", "*.cedar", "decisions/*.yaml")
    for file in (ROOT / "policies").glob(pattern)
}


def mounted(values: Document, root: Path) -> Pod:
    """A pod with what the values ask for."""
    pod = Pod(render(values), root, secrets=SECRETS, config_maps=CONFIG_MAPS)
    pod.mount()
    return pod


def loaded(pod: Pod) -> Settings:
    """The settings as the broker in the pod reads them."""
    environment = pod.environment()
    return load_settings(Path(environment["BROKER_CONFIG"]), environment)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_broker_reads_every_file_of_settings_that_is_rendered(
    name: str, tmp_path: Path
) -> None:
    settings = loaded(mounted(changed(example(), OVERLAYS[name]), tmp_path))

    assert settings.issuer == "https://broker.acme.example"
    assert settings.listen.admin.is_loopback
    assert not settings.workers.is_pinned
    assert settings.keys.store == "vault-transit"
    assert settings.state.directory == tmp_path / "var/lib/broker/state"
    assert settings.audit.directory == tmp_path / "var/lib/broker/audit"
    assert settings.keys.vault
    assert settings.keys.vault.auth.jwt_file == tmp_path / "var/run/secrets/vault/token"


def test_settings_that_the_broker_refuses_would_be_noticed(tmp_path: Path) -> None:
    """What only the broker itself can tell: that this resource is nobody's."""
    change: Document = {"settings": {"default_resource": "https://elsewhere.example"}}

    with pytest.raises(ConfigError, match="default_resource"):
        loaded(mounted(changed(example(), change), tmp_path))


@pytest.mark.requirement("CFG-04")
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    pod = mounted(example(), tmp_path)
    key = pod.place("/etc/broker/tls/grpc/tls.key").resolve()
    assert stat.S_IMODE(key.stat().st_mode) == 0o440

    key.chmod(0o444)

    with pytest.raises(ConfigError, match="open to others"):
        loaded(pod)


def test_the_settings_name_no_file_that_is_not_mounted(tmp_path: Path) -> None:
    change: Document = {"files": []}

    with pytest.raises(ConfigError, match="No such file"):
        loaded(mounted(changed(example(), change), tmp_path))


def test_policies_arrive_whole_and_once(tmp_path: Path) -> None:
    """They are there a second time, in the folder that the links lead to."""
    pod = mounted(changed(example(), {"policies": DELIVERED}), tmp_path)

    directory = loaded(pod).policies
    assert directory == pod.place("/etc/broker/policies")
    found, delivered = read_files(directory), read_files(ROOT / "policies")
    assert found == delivered
    checked = CliRunner().invoke(main, ["policy", "test", str(directory)])
    assert checked.exit_code == 0, checked.output


def test_workers_are_held_to_cores_where_the_operator_says_so(tmp_path: Path) -> None:
    settings = loaded(
        mounted(changed(example(), {"settings": {"workers": {"pin": "auto"}}}), tmp_path)
    )

    assert settings.workers.is_pinned
    assert (settings.workers.http, settings.workers.grpc) == (2, 2)
