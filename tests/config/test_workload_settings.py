"""Who vouches for workloads, which client each of them is, and what could never work."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from broker.config import Settings
from broker.model import Purpose, WorkloadRule
from broker.oauth import GRANT_JWT_BEARER
from tests.idp import signer

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]

OWN = "issuer: http://127.0.0.1:8080\n"
CLIENTS = """\
clients:
  - {id: worker, grants: [jwt_bearer]}
  - {id: svid-agent, grants: [client_credentials]}
  - {id: of-acme, grants: [jwt_bearer], tenant: acme}
  - {id: documented, auth: {method: private_key_jwt, document: true}, grants: [jwt_bearer]}
""".replace("id: documented", "id: https://c.example/app")
USED = """\
  - issuer: https://used.example
    purposes: [workload]
    algorithms: [ES256]
    workloads:
      - {client: worker, claims: {sub: a}}
      - {client: of-acme, claims: {sub: b}}
  - issuer: spiffe://used.example
    purposes: [workload]
    algorithms: [ES256]
    jwks_uri: https://bundles.example/used
    workloads: [{client: svid-agent, claims: {sub: "spiffe://used.example/a"}}]
"""
"""Rules that give every client without a credential its way in; they are entries 0 and 1."""


def an_issuer(name: str = "https://idp.example", /, **settings: object) -> str:
    """A file in which entry 2 of the issuers has these settings."""
    entry = {"issuer": name, "purposes": ["workload"], "algorithms": ["ES256"], **settings}
    return f"{OWN}{CLIENTS}issuers:\n{USED}  - {json.dumps(entry)}\n"


def rules(*found: Mapping[str, object]) -> dict[str, object]:
    return {"workloads": list(found)}


def refused(refuse: Refuse, text: str) -> list[str]:
    """The problems from their paths on, without the entry they are all in."""
    return [one.partition(": ")[2].replace("issuers.2.", "") for one in refuse(text)]


@pytest.mark.requirement("WIF-02")
def test_rules_say_which_workload_is_which_client(load: Load) -> None:
    settings = load(
        an_issuer(
            jwks={"keys": [signer("k").jwk]},
            single_use=True,
            workloads=[{"client": "worker", "claims": {"/kubernetes.io/namespace": "prod"}}],
        )
    )
    issuer = settings.issuers[2]

    assert issuer.purposes == {Purpose.WORKLOAD}
    assert issuer.workloads == (WorkloadRule("worker", {"/kubernetes.io/namespace": "prod"}),)
    assert issuer.is_single_use is True
    assert not issuer.keys.is_spiffe_bundle


@pytest.mark.requirement("WIF-04")
def test_a_client_that_rules_speak_for_needs_no_credential(load: Load) -> None:
    client = load(an_issuer()).clients[0]

    assert (client.client_id, client.auth_methods, client.secrets) == ("worker", frozenset(), ())
    assert client.keys is None
    assert client.grants == {GRANT_JWT_BEARER}


@pytest.mark.requirement("WIF-04", "CFG-01")
def test_a_client_without_any_way_in_is_refused(refuse: Refuse) -> None:
    text = f"{OWN}clients:\n  - id: lost\n  - {{id: other, auth: {{}}}}\n"

    assert refuse(text) == [
        "broker.yaml:3:5: clients.0: needs 'auth', since no issuer's workloads are this client",
        "broker.yaml:4:17: clients.1.auth: must have either 'method' or 'methods'",
    ]


def test_a_rule_is_not_missed_where_the_issuers_cannot_be_read(refuse: Refuse) -> None:
    text = f"{OWN}clients:\n  - id: worker\nissuers:\n  - {{issuer: 1}}\n"

    assert not any("clients.0" in one for one in refuse(text))


def test_a_rule_is_not_blamed_for_a_client_that_cannot_be_read(refuse: Refuse) -> None:
    rule = {"client": "worker", "claims": {"sub": "x"}}
    text = an_issuer(**rules(rule)).replace("grants: [jwt_bearer]}", "grants: [jwt]}", 1)

    (found,) = refuse(text)

    assert "clients.0.grants.0: must be " in found


@pytest.mark.requirement("WIF-02", "WIF-05", "CFG-01")
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            rules({"client": "workr", "claims": {"sub": "x"}}),
            "workloads.0.client: is not registered in clients — did you mean 'worker'?",
        ),
        (
            rules({"client": "svid-agent", "claims": {"sub": "x"}}),
            "workloads.0.client: has not the grant jwt_bearer, which is how a workload presents",
        ),
        (
            rules({"client": "https://c.example/app", "claims": {"sub": "x"}}),
            "workloads.0.client: is known by its metadata document, which no workload can stand in",
        ),
        (
            {**rules({"client": "worker", "claims": {"sub": "x"}}), "tenant": "acme"},
            "workloads.0.client: belongs to another tenant than this issuer",
        ),
        (
            {**rules({"client": "of-acme", "claims": {"sub": "x"}}), "tenant": "globex"},
            "workloads.0.client: belongs to another tenant than this issuer",
        ),
        (
            rules({"client": "worker", "claims": {"/a~": "x"}}),
            "workloads.0.claims./a~: is no JSON pointer: within a name '~' is written ~0",
        ),
        (
            rules({"client": "worker", "claims": {"/a/~2": "x"}}),
            "workloads.0.claims./a/~2: is no JSON pointer",
        ),
        (rules({"client": "worker", "claims": {"": "x"}}), "workloads.0.claims.: is no JSON"),
        (
            rules({"client": "worker", "claims": {}}),
            "workloads.0.claims: must have 1 to 16 entries: every workload would be this client",
        ),
        (
            rules({"client": "worker", "claims": {"sub": 12}}),
            "workloads.0.claims.sub: must be text; put it in quotes",
        ),
        (rules({"client": "worker", "claims": {"sub": ""}}), "workloads.0.claims.sub: "),
        (rules({"client": "worker"}), "workloads.0.claims: is required"),
        (rules({"client": "worker", "claim": {"sub": "x"}}), "workloads.0.claim"),
        (
            {**rules({"client": "worker", "claims": {"sub": "x"}}), "purposes": ["user"]},
            "workloads: has no effect: 'workload' is not among its purposes",
        ),
        (
            {"purposes": ["user"], "single_use": False},
            "single_use: has no effect: 'workload' or 'id_jag' is not among its purposes",
        ),
    ],
)
def test_a_rule_that_is_unsafe_or_never_fits_is_refused(
    refuse: Refuse, settings: dict[str, object], problem: str
) -> None:
    found = refused(refuse, an_issuer(**settings))

    assert found[0].startswith(problem)


def test_a_tenants_platform_may_speak_for_the_tenants_client(load: Load) -> None:
    text = an_issuer(tenant="acme", **rules({"client": "of-acme", "claims": {"sub": "x"}}))

    assert load(text).issuers[2].tenant == "acme"


# ---- SPIFFE trust domains


def bundle() -> dict[str, object]:
    svids = {name: value for name, value in signer("svid").jwk.items() if name != "alg"}
    return {
        "keys": [{**signer("x509").jwk, "use": "x509-svid"}, {**svids, "use": "jwt-svid"}],
        "spiffe_sequence": 1,
    }


@pytest.mark.requirement("CA-14")
def test_a_trust_domain_has_a_bundle(load: Load, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(json.dumps(bundle()))
    by_file = load(an_issuer("spiffe://example.org", jwks_file="bundle.json")).issuers[2]
    by_uri = load(an_issuer("spiffe://example.org", jwks_uri="https://b.example/x")).issuers[2]

    assert by_file.keys.jwks == bundle()
    assert by_uri.keys.jwks_uri == "https://b.example/x"
    for issuer in (by_file, by_uri):
        assert issuer.issuer == "spiffe://example.org"
        assert issuer.keys.is_spiffe_bundle


@pytest.mark.requirement("CA-14")
def test_a_jwt_svid_may_serve_any_grant(load: Load) -> None:
    """It authenticates the client; which grants that has is another matter."""
    rule = {"client": "svid-agent", "claims": {"sub": "spiffe://example.org/agent"}}

    load(an_issuer("spiffe://example.org", jwks_uri="https://b.example/x", **rules(rule)))


@pytest.mark.requirement("CA-14", "CFG-01")
@pytest.mark.parametrize(
    "name",
    [
        "spiffe://",
        "spiffe://example.org/",
        "spiffe://example.org/agent",
        "spiffe://Example.org",
        "spiffe://example.org:443",
        "spiffe://*.example.org",
        "spiffe://user@example.org",
    ],
)
def test_a_name_that_is_no_trust_domain_is_refused(refuse: Refuse, name: str) -> None:
    (found,) = refused(refuse, an_issuer(name, jwks_uri="https://b.example/x"))

    assert found.startswith("issuer: must be a trust domain alone, such as spiffe://example.org")


@pytest.mark.requirement("CA-14", "CFG-01")
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "issuer: needs the bundle of this trust domain: jwks_file, or jwks_uri"),
        ({"discovery": True}, "issuer: needs the bundle of this trust domain"),
        (
            {"jwks_uri": "https://b.example/x", "purposes": ["workload", "user"]},
            "purposes: must be workload alone: a SPIFFE trust domain vouches for nobody else",
        ),
        (
            {"jwks_uri": "https://b.example/x", "purposes": ["id_jag"]},
            "purposes: must be workload alone",
        ),
        (
            {
                "jwks_uri": "https://b.example/x",
                **rules({"client": "worker", "claims": {"sub": "spiffe://other.example/a"}}),
            },
            "workloads.0.claims.sub: is no SPIFFE ID of this trust domain, so it would never fit",
        ),
        (
            {
                "jwks_uri": "https://b.example/x",
                **rules({"client": "worker", "claims": {"sub": "spiffe://example.org/a/"}}),
            },
            "workloads.0.claims.sub: is no SPIFFE ID of this trust domain",
        ),
    ],
)
def test_a_trust_domain_that_could_not_be_believed_is_refused(
    refuse: Refuse, settings: dict[str, object], problem: str
) -> None:
    (found,) = refused(refuse, an_issuer("spiffe://example.org", **settings))

    assert found.startswith(problem)


@pytest.mark.requirement("CA-14", "KEY-05")
def test_a_bundle_with_an_unusable_key_is_refused(refuse: Refuse) -> None:
    keys = {"keys": [{"kty": "EC", "crv": "P-256", "x": "A", "y": "A", "use": "jwt-svid"}]}
    (found,) = refused(refuse, an_issuer("spiffe://example.org", jwks=keys))

    assert found.startswith("jwks: holds a key that is not usable")
