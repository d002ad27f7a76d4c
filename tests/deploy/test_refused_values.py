"""Values that the chart refuses, by its schema or in a sentence of its own."""

import helm_python
import pytest

from docs.helm_values import values_schema
from tests.deploy.chart import Document, changed, example, render

_GRPC_TLS = "grpc.tlsSecret: gRPC needs a certificate"
REFUSED: dict[str, tuple[Document, str]] = {
    # What the schema knows.
    "a name that does not exist": ({"replica": 3}, "'replica'"),
    "a name within that does not exist": ({"http": {"prot": 8080}}, "'prot'"),
    "a setting that does not exist": ({"settings": {"isuer": "x"}}, "'isuer'"),
    "a setting within that does not exist": ({"settings": {"tokens": {"life": "5m"}}}, "'life'"),
    "a client without an id": ({"settings": {"clients": [{}]}}, "missing property 'id'"),
    "no issuer": ({"settings": {"issuer": None}}, "/settings/issuer"),
    "no Vault": ({"settings": {"keys": {"vault": None}}}, "/settings/keys"),
    "no broker": ({"replicas": 0}, "/replicas"),
    "a port of the privileged": ({"http": {"port": 443}}, "/http/port"),
    "whatever is newest": ({"image": {"tag": "latest"}}, "/image/tag"),
    "half a digest": ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    "an address of one machine": ({"listenAddress": "127.0.0.1"}, "/listenAddress"),
    "a budget that lets nobody leave": (
        {"podDisruptionBudget": {"maxUnavailable": 0}},
        "/podDisruptionBudget",
    ),
    "a policy outside its folder": ({"policies": {"../a.cedar": "x"}}, "'../a.cedar'"),
    "a file that is a Secret and a ConfigMap": (
        {"files": [{"name": "a", "secret": "a", "configMap": "a"}]},
        "/files/0",
    ),
    "a file that is neither": ({"files": [{"name": "a"}]}, "/files/0"),
    "a peer that is everybody": ({"networkPolicy": {"ingress": {"http": [{}]}}}, "/ingress/http/0"),
    "a way out to everywhere": (
        {"networkPolicy": {"egress": [{"to": [], "ports": [443]}]}},
        "/networkPolicy/egress/0/to",
    ),
    "a way out to every port": (
        {"networkPolicy": {"egress": [{"to": [{"podSelector": {}}], "ports": []}]}},
        "/networkPolicy/egress/0/ports",
    ),
    "a token that lasts for days": ({"vault": {"tokenSeconds": 864_000}}, "/vault/tokenSeconds"),
    "a drain without an end": ({"drainSeconds": 3600}, "/drainSeconds"),
    "a volume for several machines": (
        {"persistence": {"accessMode": "ReadWriteMany"}},
        "/persistence/accessMode",
    ),
    # What the chart decides itself.
    "another operators' port": ({"settings": {"listen": {"admin": "0.0.0.0:1"}}}, "'listen'"),
    "another data directory": ({"settings": {"data_dir": "/tmp"}}, "'data_dir'"),  # noqa: S108
    "records outside the volume": ({"settings": {"audit": {"directory": "/tmp"}}}, "'directory'"),  # noqa: S108
    "embedded keys": ({"settings": {"keys": {"store": "dev"}}}, "/settings/keys/store"),
    "another login": ({"settings": {"keys": {"vault": {"auth": {}}}}}, "'auth'"),
    "another login that rotates": ({"settings": {"keys": {"vault": {"rotator": {}}}}}, "'rotator'"),
    "TLS files by hand": (
        {"settings": {"grpc": {"tls": {"cert_file": "a", "key_file": "b"}}}},
        "'tls'",
    ),
    # What only the templates can tell.
    "keys that are rotated without a record": (
        {"settings": {"keys": {"vault": {"record": None}}}},
        "vault.rotatorRole: whoever rotates the keys keeps a record",
    ),
    "several brokers with a file each": ({"replicas": 2}, "cannot share state.store: sqlite"),
    "several brokers with a memory each": (
        {"replicas": 2, "settings": {"state": {"store": "memory"}}},
        "cannot share state.store: memory",
    ),
    "a memory that a restart empties": (
        {"settings": {"state": {"store": "memory"}}},
        "forgets what was spent",
    ),
    "HTTP in the clear": (
        {"settings": {"http": {"is_behind_proxy": False, "trusted_proxies": []}}},
        "http.tlsSecret: the HTTP face needs a certificate",
    ),
    "HTTP with TLS twice": ({"http": {"tlsSecret": "a"}}, "has no use behind a proxy"),
    "gRPC in the clear": ({"grpc": {"tlsSecret": ""}}, _GRPC_TLS),
    "streams in the clear": (
        {"grpc": {"enabled": False, "tlsSecret": ""}, "streams": {"enabled": True}},
        _GRPC_TLS,
    ),
    "no face": ({"http": {"enabled": False}, "grpc": {"enabled": False}}, "both faces are off"),
    "measures for everybody": (
        {"metrics": {"enabled": True, "clientCaSecret": ""}},
        "whoever reads them has to be known",
    ),
}


@pytest.mark.requirement("CFG-01")
@pytest.mark.parametrize("what", REFUSED)
def test_the_chart_refuses(what: str) -> None:
    change, told = REFUSED[what]

    with pytest.raises(helm_python.HelmError) as refused:
        render(changed(example(), change))

    assert told in str(refused.value)


def test_the_chart_refuses_to_guess() -> None:
    with pytest.raises(helm_python.HelmError, match="issuer"):
        render({})


def test_nothing_is_accepted_that_the_schema_does_not_list() -> None:
    """Every object is closed, or says what all of its members are, but for what others define."""
    open_objects = [
        path
        for path, one in _objects(values_schema(), "")
        if one.get("additionalProperties", True) is True
        and one.get("maxProperties") != 0
        and "patternProperties" not in one
    ]

    kubernetes = ("/podSelector", "/namespaceSelector", "/tolerations/items")
    key_sets = "/jwks/anyOf"
    assert [one for one in open_objects if not one.endswith((*kubernetes, key_sets))] == []


def _objects(schema: object, path: str) -> list[tuple[str, Document]]:
    found: list[tuple[str, Document]] = []
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "const" not in schema:
            found.append((path, schema))
        for name, inner in schema.items():
            found += _objects(inner, f"{path}/{name}")
    elif isinstance(schema, list):
        for inner in schema:
            found += _objects(inner, path)
    return found
