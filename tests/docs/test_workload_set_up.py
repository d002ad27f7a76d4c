"""The workloads of the operators' page are set up as it says, and get what it says."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from broker.client_auth.workload import WorkloadVerifier
from broker.config import Settings, load_settings
from broker.fetch import GuardedFetcher
from broker.issuers import IssuerKeyRing
from broker.registry import FileRegistry
from tests.docs.markdown import ROOT, blocks
from tests.idp import signer

CLUSTER = signer("cluster", "RS256")
OWN = "https://broker.example"
VAULT = {
    "store": "vault-transit",
    "also": [],
    "vault": {
        "url": "https://vault.example",
        "keys": {"ES256": "broker"},
        "auth": {"method": "kubernetes", "role": "broker", "jwt_file": __file__},
    },
}


def shown(start: str) -> str:
    """The block of the page that begins with this line and speaks of workloads."""
    page = blocks(ROOT / "docs" / "operations.md")
    (block,) = (
        one.text
        for one in page
        if one.text.startswith(start) and ("workloads:" in one.text or "serviceAccount" in one.text)
    )
    return block


def settings(folder: Path) -> Settings:
    (folder / "cluster.jwks").write_text(json.dumps(CLUSTER.jwks))
    file = folder / "broker.yaml"
    file.write_text(f"issuer: {OWN}\nkeys: {json.dumps(VAULT)}\n{shown('clients:')}")
    return load_settings(file, {})


def pod_token(audience: str, lifetime: int) -> str:
    """What the cluster would project into the pod of the nightly report."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": "system:serviceaccount:reports:nightly",
        "aud": [audience],
        "iat": now,
        "exp": now + lifetime,
        "kubernetes.io": {"namespace": "reports", "serviceaccount": {"name": "nightly"}},
    }
    return CLUSTER.sign(claims, typ=None)


@pytest.mark.requirement("WIF-01", "WIF-02")
def test_a_pod_with_the_volume_is_the_client_of_the_rule(tmp_path: Path) -> None:
    loaded = settings(tmp_path)
    (volume,) = YAML(typ="safe", pure=True).load(shown("volumes:"))["volumes"]
    (source,) = volume["projected"]["sources"]
    projected = source["serviceAccountToken"]
    ring = IssuerKeyRing(GuardedFetcher())
    verifier = WorkloadVerifier(
        loaded.issuer,
        loaded.issuer + "/token",
        FileRegistry(loaded.clients, loaded.resources, loaded.issuers),
        ring,
        lambda: int(time.time()),
        loaded.tokens.leeway,
    )

    token = pod_token(projected["audience"], projected["expirationSeconds"])
    verified = verifier.verify(token)
    ring.close()

    assert verified.client.client_id == "nightly-report"
    assert verified.client.auth_methods == frozenset()
    assert verified.one_time_id is None


@pytest.mark.requirement("CA-14")
def test_the_trust_domain_of_the_page_has_its_bundle(tmp_path: Path) -> None:
    domain = settings(tmp_path).issuers[1]

    assert domain.keys.is_spiffe_bundle
    assert domain.keys.jwks_uri == "https://spire.acme.example/bundle"
    assert [rule.client_id for rule in domain.workloads] == ["mcp-tickets"]
