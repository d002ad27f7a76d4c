"""What the Helm chart makes: valid for Kubernetes, restricted, and as the broker needs it."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import kubernetes_validate
import pytest

from broker import __version__
from broker.config.durations import parse_duration
from broker.serving import GRACE
from tests.deploy.chart import (
    CHART,
    Document,
    Rendered,
    changed,
    example,
    findings,
    read_yaml,
    render,
    several,
)

_OLDEST, _NEWEST = 29, 37
_POLICIES = {
    "broker.cedarschema": "entity A;\n",
    "acme.cedar": '@id("a") permit (principal, action, resource);\n',
    "decisions/acme.yaml": "[]\n",
}
EVERYTHING: Document = {
    "grpc": {"clientCaSecret": "callers-ca"},
    "streams": {"enabled": True},
    "policies": _POLICIES,
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": [{"name": "registry"}]},
    "persistence": {"storageClass": "fast", "accessMode": "ReadWriteOncePod"},
    "serviceAccount": {"annotations": {"acme.example/owner": "identity"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "acme.example/dedicated", "operator": "Exists"}],
    "priorityClassName": "high",
    "podAnnotations": {"acme.example/contact": "identity"},
    "podLabels": {"acme.example/tier": "identity"},
    "networkPolicy": {"ingress": {"streams": [{"podSelector": {}}]}},
}
LEAST: Document = {
    "http": {"enabled": False},
    "topologySpread": [],
    "networkPolicy": {"enabled": False},
    "metrics": {"enabled": False},
    "serviceAccount": {"create": False, "name": "elsewhere"},
}
OVERLAYS: dict[str, Document] = {
    "acme": {},
    "several": several(),
    "everything": EVERYTHING,
    "least": LEAST,
    "own TLS over IPv6": {
        "listenAddress": "::",
        "http": {"tlsSecret": "broker-http-tls"},
        "settings": {"http": {"is_behind_proxy": False, "trusted_proxies": []}},
    },
}


def variant(name: str) -> Rendered:
    """The manifests of one way to fill in the values."""
    return render(changed(example(), OVERLAYS[name]))


@pytest.fixture
def acme() -> Rendered:
    """The example as it stands."""
    return render(example())


@pytest.mark.parametrize("name", OVERLAYS)
def test_helm_finds_nothing_wrong_with_the_chart(name: str) -> None:
    assert findings(changed(example(), OVERLAYS[name])) == []


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("minor", [_OLDEST, _NEWEST])
def test_every_manifest_is_what_kubernetes_takes(name: str, minor: int) -> None:
    """By the schemas of the oldest release that the chart admits and the newest there is."""
    manifests = variant(name)

    assert len(manifests) >= 5
    for manifest in manifests:
        kubernetes_validate.validate(manifest, f"1.{minor}", strict=True)


def test_a_manifest_with_a_field_that_does_not_exist_would_be_noticed(acme: Rendered) -> None:
    broken = changed(acme.only("StatefulSet"), {"spec": {"replica": 3}})

    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, f"1.{_NEWEST}", strict=True)


def test_the_chart_admits_the_releases_that_it_is_checked_for() -> None:
    chart = read_yaml((CHART / "Chart.yaml").read_text())

    assert chart["kubeVersion"] == f">=1.{_OLDEST}.0-0"
    assert kubernetes_validate.latest_version() == f"1.{_NEWEST}.0"
    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_satisfies_the_restricted_standard(name: str) -> None:
    """Rule by rule as the Pod Security Standards have it, and a root that is read-only besides."""
    pod = variant(name).pod

    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    allowed = {"configMap", "emptyDir", "projected", "secret"}
    assert {kind for one in pod["volumes"] for kind in one if kind != "name"} <= allowed
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert "hostPort" not in str(container["ports"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_mount_has_its_volume_and_every_volume_is_mounted(name: str) -> None:
    manifests = variant(name)
    pod = manifests.pod

    claims = manifests.only("StatefulSet")["spec"]["volumeClaimTemplates"]
    there = {one["name"] for one in [*pod["volumes"], *(claim["metadata"] for claim in claims)]}
    mounts = [mount for one in pod["containers"] for mount in one["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == there
    assert len({one["name"] for one in pod["volumes"]}) == len(pod["volumes"])
    writable = {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
    assert writable == {"/var/lib/broker", "/tmp"}  # noqa: S108 - a path of the container


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_selector_finds_the_pods_of_this_release_alone(name: str) -> None:
    manifests = variant(name)
    other = render(changed(example(), OVERLAYS[name]), release="another")

    selectors = list(_selectors(manifests))
    assert len(selectors) >= 3
    assert all(_matches(one, _pod_labels(manifests)) for one in selectors)
    assert not any(_matches(one, _pod_labels(other)) for one in selectors)


def _pod_labels(manifests: Rendered) -> Mapping[str, str]:
    labels: Mapping[str, str] = next(iter(manifests.all("StatefulSet")))["spec"]["template"][
        "metadata"
    ]["labels"]
    return labels


def _selectors(manifests: Rendered) -> Iterator[Mapping[str, str]]:
    for service in manifests.all("Service"):
        yield service["spec"]["selector"]
    for kind, member in (
        ("StatefulSet", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        for one in manifests.all(kind):
            yield one["spec"][member]["matchLabels"]
    for spread in manifests.pod.get("topologySpreadConstraints", []):
        yield spread["labelSelector"]["matchLabels"]


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


@pytest.mark.requirement("CFG-03")
def test_the_operators_port_is_on_loopback_and_nothing_leads_to_it(acme: Rendered) -> None:
    admin = acme.settings["listen"]["admin"]

    assert admin == "127.0.0.1:9443"
    assert {"name": "BROKER_ADMIN", "value": f"http://{admin}"} in acme.container()["env"]
    open_ports = [port for one in acme.pod["containers"] for port in one["ports"]]
    assert "9443" not in str(open_ports)
    assert "9443" not in str(acme.all("Service") + acme.all("NetworkPolicy"))


def test_probes_ask_inside_the_container_and_only_readiness_depends_on_others(
    acme: Rendered,
) -> None:
    broker = acme.container()
    commands = {
        name: broker[f"{name}Probe"]["exec"]["command"]
        for name in ("startup", "readiness", "liveness")
    }

    assert commands == {
        "startup": ["broker", "health", "--live"],
        "readiness": ["broker", "health"],
        "liveness": ["broker", "health", "--live"],
    }
    assert all(broker[f"{name}Probe"]["timeoutSeconds"] > 5 for name in commands)


@pytest.mark.parametrize("seconds", [0, 10, 300])
def test_a_pod_has_the_time_that_its_broker_takes_to_stop(seconds: int) -> None:
    manifests = render(changed(example(), {"drainSeconds": seconds}))

    drain = parse_duration(manifests.settings["drain_delay"])
    assert drain == timedelta(seconds=seconds)
    patience = manifests.pod["terminationGracePeriodSeconds"]
    assert patience >= (drain + GRACE).total_seconds() + 5


def test_a_replica_keeps_its_records_on_a_volume_that_outlives_it(acme: Rendered) -> None:
    replicas = acme.only("StatefulSet")["spec"]

    assert replicas["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Retain",
        "whenScaled": "Retain",
    }
    (claim,) = replicas["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    mount = {"name": claim["metadata"]["name"], "mountPath": "/var/lib/broker"}
    assert mount in acme.container()["volumeMounts"]
    assert {"name": "BROKER_DATA_DIR", "value": "/var/lib/broker"} in acme.container()["env"]
    assert not {"state", "audit"} & {
        section for section in ("state", "audit") if "directory" in acme.settings.get(section, {})
    }


def test_the_volume_is_given_to_the_group_once_and_not_at_every_start(acme: Rendered) -> None:
    """Each time would open the files of the broker to the group again, one by one, for minutes."""
    security = acme.pod["securityContext"]

    assert security["fsGroup"] == 65532
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"


def test_variables_of_services_do_not_reach_the_broker(acme: Rendered) -> None:
    """A Service that is called broker makes variables that look like settings."""
    assert acme.pod["enableServiceLinks"] is False


@pytest.mark.requirement("CFG-04")
def test_the_pod_holds_one_token_that_is_for_vault_and_short(acme: Rendered) -> None:
    assert acme.pod["automountServiceAccountToken"] is False
    assert acme.only("ServiceAccount")["automountServiceAccountToken"] is False
    (source,) = acme.volume("vault-token")["projected"]["sources"]
    assert source == {
        "serviceAccountToken": {"audience": "vault", "expirationSeconds": 600, "path": "token"}
    }
    assert acme.settings["keys"]["vault"]["auth"] == {
        "method": "kubernetes",
        "role": "broker",
        "mount": "kubernetes",
        "jwt_file": "/var/run/secrets/vault/token",
    }


@pytest.mark.requirement("CFG-04")
def test_secrets_are_mounted_by_name_and_closed_to_others() -> None:
    manifests = variant("everything")

    assert not manifests.all("Secret")
    secrets = [one["secret"] for one in manifests.pod["volumes"] if "secret" in one]
    assert {one["secretName"] for one in secrets} == {
        "broker-grpc-tls",
        "callers-ca",
        "broker-metrics-tls",
        "prometheus-ca",
    }
    assert all(one["defaultMode"] == 0o440 for one in secrets)
    assert "valueFrom" not in str(manifests.pod)


def test_of_an_authority_the_certificate_alone_is_mounted() -> None:
    """The Secret that holds it may hold its key as well."""
    for name in ("grpc-clients", "metrics-clients"):
        authority = variant("everything").volume(name)["secret"]
        assert authority["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_a_change_of_the_configuration_restarts_the_brokers(acme: Rendered) -> None:
    def sums(manifests: Rendered) -> Mapping[str, str]:
        metadata = manifests.only("StatefulSet")["spec"]["template"]["metadata"]
        found: Mapping[str, str] = metadata["annotations"]
        return found

    other_settings = render(changed(example(), {"settings": {"tokens": {"lifetime": "1m"}}}))
    other_policies = render(changed(example(), {"policies": _POLICIES}))

    assert sums(acme)["checksum/settings"] != sums(other_settings)["checksum/settings"]
    assert sums(acme)["checksum/policies"] != sums(other_policies)["checksum/policies"]
    assert sums(acme) == sums(render(example()))


def test_the_network_admits_whom_the_values_name_and_nobody_else(acme: Rendered) -> None:
    policy = acme.only("NetworkPolicy")["spec"]

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    admitted = {
        rule["ports"][0]["port"]: rule["from"][0]["namespaceSelector"]["matchLabels"]
        for rule in policy["ingress"]
    }
    assert admitted == {
        8080: {"kubernetes.io/metadata.name": "ingress"},
        8443: {"broker.acme.example/calls": "true"},
        9464: {"kubernetes.io/metadata.name": "monitoring"},
    }
    assert [rule["ports"][0]["port"] for rule in policy["egress"]] == [53, 8200, 443]
    assert all(rule["to"] and rule["ports"] for rule in policy["egress"])
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])


def test_a_list_of_peers_that_is_empty_admits_nobody() -> None:
    """In a NetworkPolicy itself an empty ``from`` would admit everybody."""
    nobody: Document = {"http": [], "grpc": [], "streams": [], "metrics": []}
    policies = {"ingress": nobody, "dns": [], "egress": []}

    manifests = render(changed(example(), {"networkPolicy": policies}))

    policy = manifests.only("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy.get("ingress")
    assert not policy.get("egress")


def test_a_face_that_is_off_has_no_port_and_no_address() -> None:
    manifests = variant("least")

    assert manifests.settings["listen"]["http"] is None
    assert [port["name"] for port in manifests.container()["ports"]] == ["grpc"]
    for service in manifests.all("Service"):
        assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"]


def test_images_go_by_their_digest_where_there_is_one(acme: Rendered) -> None:
    assert acme.container()["image"] == f"delegation-broker:{__version__}"
    assert variant("everything").container()["image"] == "delegation-broker@sha256:" + "0" * 64


def test_policies_come_by_their_own_names() -> None:
    manifests = variant("everything")

    items = manifests.volume("policies")["configMap"]["items"]
    data = manifests.config_data("broker-policies")
    assert {one["path"]: data[one["key"]] for one in items} == _POLICIES
    assert manifests.settings["policies"] == "/etc/broker/policies"
    assert "policies" not in render(example()).settings


def test_several_brokers_are_spread_and_leave_one_at_a_time() -> None:
    manifests = variant("several")

    replicas = manifests.only("StatefulSet")["spec"]
    assert (replicas["replicas"], replicas["podManagementPolicy"]) == (3, "Parallel")
    assert manifests.only("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert manifests.only("Service", replicas["serviceName"])["spec"]["clusterIP"] == "None"
    spread = manifests.pod["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    assert manifests.settings["state"] == several()["settings"]["state"]
    ways_out = manifests.only("NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for rule in ways_out for port in rule["ports"]] == [
        *(53, 53, 8200, 6379, 26379, 443),
    ]


def test_what_the_operator_sets_stays_as_it_was_set(acme: Rendered) -> None:
    own: dict[str, Any] = example()["settings"]

    settings = acme.settings
    assert {name: settings[name] for name in ("issuer", "clients", "resources", "issuers")} == {
        name: own[name] for name in ("issuer", "clients", "resources", "issuers")
    }
    assert settings["http"] == own["http"]
    assert settings["keys"]["vault"]["ca_file"] == own["keys"]["vault"]["ca_file"]
    large = {"settings": {"audit": {"segment_size": 1_073_741_824}}}
    kept = render(changed(example(), large)).settings["audit"]
    assert kept == {"segment_size": 1_073_741_824}
