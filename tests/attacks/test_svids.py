"""JWT-SVIDs of SPIFFE trust domains, as client assertions and as grants of their own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from broker.model import KeySource, TrustedIssuer, WorkloadRule
from broker.oauth import (
    CLIENT_ASSERTION_JWT_BEARER,
    CLIENT_ASSERTION_JWT_SPIFFE,
    TOKEN_TYPE_ID_TOKEN,
    TYP_ACCESS_TOKEN,
    TYP_CLIENT_AUTHENTICATION,
    TYP_ID_JAG,
)
from tests.harness import basic
from tests.idp import Signer, signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    IDP_A,
    IDP_B,
    ISS,
    NOW,
    RES_1,
    TRUST_DOMAIN,
    WEB_SECRET,
    Cast,
    Parameters,
    by_assertion,
    by_svid,
    client_parameters,
    exchange_parameters,
    good_id_jag,
    good_id_token,
    good_svid_claims,
    good_workload_claims,
    good_workload_token,
    redeem_parameters,
    workload_parameters,
)

IC = "invalid_client"
IG = "invalid_grant"
SVID = signer("svid")
OTHER_DOMAIN = "spiffe://other.test"


def as_client(svid: str = "", /, **changes: Any) -> Parameters:
    """GOOD-CC of the trust domain's agent, with another JWT-SVID or another claim in it."""
    credential = {**by_svid(**changes), **({"client_assertion": svid} if svid else {})}
    return client_parameters(**credential)


def by_svid_alone(svid: str = "", /, **changes: Any) -> Parameters:
    """The same JWT-SVID as the only thing in the request."""
    return workload_parameters(svid or SVID.sign(good_svid_claims(**changes)))


def attack(stage: Stage, reason: str, svid: str = "", /, **changes: Any) -> None:
    """The JWT-SVID as a client assertion, between two that pass."""
    stage.grant(as_client())
    stage.refuse(as_client(svid, **changes), error=IC, reason=reason)
    stage.grant(as_client())


def with_domain(**changes: Any) -> Cast:
    """The cast with the trust domain's registration changed."""
    return Cast().with_issuer(replace(Cast().issuer(TRUST_DOMAIN), **changes))


def with_other_domain() -> Cast:
    """The cast with a second trust domain, one of whose workloads is another client."""
    bundle = {"keys": [{**signer("other-svid").jwk, "use": "jwt-svid"}]}
    other: TrustedIssuer = replace(
        Cast().issuer(TRUST_DOMAIN),
        issuer=OTHER_DOMAIN,
        keys=KeySource(jwks=bundle, is_spiffe_bundle=True),
        workloads=(WorkloadRule("agent-x", {"sub": f"{OTHER_DOMAIN}/agent"}),),
    )
    return Cast().with_issuer(other)


# ---- what a JWT-SVID is good for


@pytest.mark.requirement("CA-14")
def test_a_jwt_svid_authenticates_a_client_at_every_grant(stage: Stage) -> None:
    assert stage.grant(as_client()).claims["sub"] == "client:svid-agent"
    exchange = exchange_parameters(
        good_id_token(aud="svid-agent"),
        subject_token_type=TOKEN_TYPE_ID_TOKEN,
        resource=RES_1,
        scope="a:read",
    )
    exchanged = stage.grant(exchange | by_svid()).claims
    assert (exchanged["sub"], exchanged["act"]["sub"]) == ("u1", "svid-agent")
    redeemed = stage.grant(redeem_parameters(good_id_jag(client_id="svid-agent"), **by_svid()))
    assert (redeemed.claims["sub"], redeemed.claims["client_id"]) == ("u1", "svid-agent")


@pytest.mark.requirement("CA-14")
def test_a_jwt_svid_authenticates_a_client_at_the_other_endpoints(stage: Stage) -> None:
    own = stage.grant(as_client()).token

    assert stage.face.introspect({"token": own, **by_svid()}).fields["active"] is True
    assert stage.face.revoke({"token": own, **by_svid()}).error == ""
    assert stage.face.introspect({"token": own, **by_svid()}).fields["active"] is False
    for ask in (stage.face.introspect, stage.face.revoke):
        assert ask({"token": own, **by_svid(sub=f"{OTHER_DOMAIN}/agent")}).error == IC


@pytest.mark.requirement("CA-14", "WIF-01")
def test_a_jwt_svid_is_a_grant_of_its_own_too(stage: Stage) -> None:
    assert stage.grant(by_svid_alone()).claims["sub"] == "client:svid-agent"


@pytest.mark.requirement("CA-14")
def test_the_record_names_the_trust_domain(stage: Stage) -> None:
    stage.grant(as_client())
    record = stage.broker.records()[-1]

    assert (record["auth_method"], record["client_id"]) == ("workload_identity", "svid-agent")
    assert [(one["slot"], one["issuer"]) for one in record["inputs"]] == [
        ("client_assertion", TRUST_DOMAIN)
    ]


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize(
    "changes",
    [
        {"iat": None},
        {"jti": "one"},
        {"nbf": NOW},
        {"aud": ISS},
        {"aud": ISS + "/"},
        {"iss": TRUST_DOMAIN},
        {"iss": "https://oidc-discovery.td.test"},
    ],
    ids=str,
)
def test_little_is_asked_of_a_jwt_svid(stage: Stage, changes: dict[str, Any]) -> None:
    """``iss`` is no part of it: where a server puts one in, it says where others find its keys."""
    for _ in range(2):
        stage.grant(as_client(**changes))
        stage.grant(by_svid_alone(**changes))


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize("header", [{"typ": "JOSE"}, {"typ": None}, {"kid": None}], ids=str)
def test_the_header_of_a_jwt_svid_may_be_short(stage: Stage, header: Mapping[str, Any]) -> None:
    stage.grant(as_client(SVID.sign(good_svid_claims(), **header)))


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize("remaining", [1, 60])
def test_a_token_dies_with_the_jwt_svid_that_it_was_given_for(stage: Stage, remaining: int) -> None:
    for parameters in (as_client(exp=NOW + remaining), by_svid_alone(exp=NOW + remaining)):
        assert stage.grant(parameters).claims["exp"] == NOW + remaining


@pytest.mark.requirement("CA-14", "RPL-01")
def test_a_jwt_svid_is_used_once_where_its_domain_is_registered_so(staging: Staging) -> None:
    stage = staging(with_domain(is_single_use=True))
    once = as_client(jti="once")
    stage.grant(once)
    stage.refuse(once, error=IC, reason="replay")
    stage.refuse(by_svid_alone(jti="once"), error=IG, reason="replay")
    stage.refuse(as_client(), error=IC, reason="claim_malformed")
    credential = by_svid(jti="twice")
    assert stage.face.introspect({"token": "x", **credential}).fields == {"active": False}
    assert stage.face.introspect({"token": "x", **credential}).error == IC


# ---- whom it is for, and whose it is


@pytest.mark.requirement("CA-14", "CAU-04")
@pytest.mark.parametrize(
    "audience",
    [ISS + "/token", [ISS, "spiffe://td.test/reports"], [ISS, ISS], "https://evil.test", None, []],
    ids=str,
)
def test_a_jwt_svid_for_another_audience_is_refused(stage: Stage, audience: Any) -> None:
    attack(stage, "aud_not_sole_issuer", aud=audience)


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize(
    "sub",
    [
        None,
        "agent",
        TRUST_DOMAIN,
        TRUST_DOMAIN + "/",
        TRUST_DOMAIN + "/agent/",
        TRUST_DOMAIN + "//agent",
        TRUST_DOMAIN + "/x/../agent",
        "spiffe://TD.test/agent",
        "spiffe://td.test:443/agent",
        "spiffe://x@td.test/agent",
        "spiffe://td.test/agent?x",
        "https://td.test/agent",
        "system:serviceaccount:prod:worker",
        ["spiffe://td.test/agent"],
    ],
    ids=str,
)
def test_a_token_without_a_spiffe_id_is_no_jwt_svid(stage: Stage, sub: Any) -> None:
    attack(stage, "wrong_token_type", sub=sub)
    stage.refuse(by_svid_alone(sub=sub), error=IG, reason="iss_unknown")


@pytest.mark.requirement("CA-14")
@pytest.mark.parametrize("path", ["/agent2", "/agent/x", "/Agent", "/other"])
def test_another_workload_of_the_domain_is_another_workload(stage: Stage, path: str) -> None:
    attack(stage, "workload_unknown", sub=TRUST_DOMAIN + path)


@pytest.mark.requirement("CA-14", "KEY-15")
@pytest.mark.parametrize(
    "domain",
    ["spiffe://evil.test", "spiffe://td.test.evil.test", "spiffe://evil-td.test", "spiffe://td"],
)
def test_a_trust_domain_that_is_not_registered_is_refused(stage: Stage, domain: str) -> None:
    attack(stage, "iss_unknown", sub=f"{domain}/agent")
    attack(stage, "iss_unknown", sub=f"{domain}/agent", iss=TRUST_DOMAIN)
    stage.refuse(by_svid_alone(sub=f"{domain}/agent"), error=IG, reason="iss_unknown")


@pytest.mark.requirement("CA-14", "KEY-12")
def test_a_trust_domain_speaks_for_no_workload_of_another(staging: Staging) -> None:
    stage = staging(with_other_domain())
    stolen = good_svid_claims(sub=f"{OTHER_DOMAIN}/agent")
    attack(stage, "unknown_key", SVID.sign(stolen))
    same_kid = Signer("other-svid", "ES256", SVID.private_key)
    attack(stage, "sig_invalid", same_kid.sign(stolen))
    own = signer("other-svid").sign(stolen)
    assert stage.grant(as_client(own)).claims["sub"] == "client:agent-x"


@pytest.mark.requirement("CA-14", "KEY-12")
def test_a_jwt_svid_in_the_name_of_another_issuer_is_refused(staging: Staging) -> None:
    stage = staging(with_other_domain())
    for issuer in (OTHER_DOMAIN, IDP_A, IDP_B, ISS):
        attack(stage, "claim_inconsistent", iss=issuer)
        stage.refuse(by_svid_alone(iss=issuer), error=IG, reason="claim_inconsistent")
    for odd in (1, "", [TRUST_DOMAIN], "https://\u200b"):
        attack(stage, "claim_malformed", iss=odd)


@pytest.mark.requirement("CA-14", "KEY-12")
def test_what_a_trust_domain_says_of_others_is_refused(stage: Stage) -> None:
    """The issuer that is named is registered; whoever the token is about is not in its domain."""
    for sub in ("u1", TRUST_DOMAIN, f"{OTHER_DOMAIN}/agent"):
        claims = good_workload_claims(iss=TRUST_DOMAIN, sub=sub)
        stage.refuse(by_svid_alone(SVID.sign(claims)), error=IG, reason="claim_inconsistent")


@pytest.mark.requirement("CA-14", "KEY-12")
def test_a_cluster_speaks_for_no_workload_of_a_trust_domain(stage: Stage) -> None:
    cluster = signer("b1", "RS256")
    svid = good_workload_claims(sub=f"{TRUST_DOMAIN}/agent")
    stage.refuse(by_svid_alone(cluster.sign(svid)), error=IG, reason="alg_not_allowed")
    attack(stage, "alg_not_allowed", cluster.sign(svid))
    attack(stage, "wrong_token_type", good_workload_token())


@pytest.mark.requirement("CA-14")
def test_a_cluster_may_name_its_workloads_as_it_likes(staging: Staging) -> None:
    """An issuer with an address of its own may call them by SPIFFE IDs of a domain that is not here."""
    rule = WorkloadRule("worker", {"sub": "spiffe://cluster.test/worker"})
    stage = staging(Cast().with_issuer(replace(Cast().issuer(IDP_B), workloads=(rule,))))
    token = good_workload_token(sub="spiffe://cluster.test/worker")
    stage.grant(workload_parameters(token))
    stage.refuse(as_client(token), error=IC, reason="iss_unknown")


# ---- keys


@pytest.mark.requirement("CA-14", "KEY-04")
def test_the_keys_of_certificates_sign_no_jwt_svid(stage: Stage) -> None:
    attack(stage, "key_not_for_sig", signer("x509").sign(good_svid_claims()))


@pytest.mark.requirement("CA-14", "KEY-04")
def test_the_keys_of_a_bundle_are_for_trust_domains_alone(staging: Staging) -> None:
    bundle = replace(Cast().issuer(TRUST_DOMAIN).keys, is_spiffe_bundle=False)
    stage = staging(with_domain(keys=bundle))
    stage.refuse(as_client(), error=IC, reason="key_not_for_sig")


@pytest.mark.requirement("CA-14", "JWS-03")
def test_a_jwt_svid_by_an_algorithm_outside_the_pin_is_refused(stage: Stage) -> None:
    other = Signer("svid", "ES384", signer("svid-384", "ES384").private_key)
    attack(stage, "alg_not_allowed", other.sign(good_svid_claims()))


# ---- switches


@pytest.mark.requirement("CA-14", "KEY-14", "CAU-15")
def test_switching_off_ends_what_worked_a_moment_ago(stage: Stage) -> None:
    agent = replace(Cast().client("svid-agent"), is_disabled=True)
    for cast, reason in [
        (with_domain(is_disabled=True), "issuer_disabled"),
        (with_domain(purposes=frozenset()), "issuer_not_for_purpose"),
        (with_domain(workloads=()), "workload_unknown"),
        (Cast().with_client(agent), "client_disabled"),
    ]:
        stage.broker.replace_cast(Cast())
        stage.grant(as_client())
        stage.broker.replace_cast(cast)
        stage.refuse(as_client(), error=IC, reason=reason)
        stage.refuse(by_svid_alone(), error=IG, reason=reason)
        assert stage.face.introspect({"token": "x", **by_svid()}).error == IC


# ---- one credential, of one type


@pytest.mark.requirement("CAU-02", "CAU-03", "CA-01")
def test_a_jwt_svid_is_the_only_credential(stage: Stage) -> None:
    stage.refuse(
        as_client(),
        basic("web-s", WEB_SECRET),
        error="invalid_request",
        reason="multiple_client_auth",
    )
    secret: Parameters = {"client_id": "web-s", "client_secret": WEB_SECRET}
    stage.refuse(as_client() | secret, error="invalid_request", reason="multiple_client_auth")
    stage.refuse(as_client() | {"client_id": "agent-x"}, error=IC, reason="client_id_mismatch")
    stage.grant(as_client() | {"client_id": "svid-agent"})


@pytest.mark.requirement("JAG-09", "IDJAG-R-31")
def test_a_jwt_svid_beside_a_clients_credential_is_no_grant(stage: Stage) -> None:
    svid = SVID.sign(good_svid_claims())
    for credential in (by_svid(), by_assertion("agent-x")):
        parameters = redeem_parameters(svid, **credential)
        stage.attack(parameters, error=IG, reason="wrong_token_type")


@pytest.mark.requirement("CAU-06", "JWS-18")
@pytest.mark.parametrize(
    "assertion_type",
    [
        CLIENT_ASSERTION_JWT_SPIFFE + "x",
        CLIENT_ASSERTION_JWT_SPIFFE.upper(),
        "jwt-spiffe",
        "spiffe_jwt",
        "urn:ietf:params:oauth:client-assertion-type:x509-spiffe",
    ],
)
def test_another_type_of_assertion_is_refused(stage: Stage, assertion_type: str) -> None:
    parameters = as_client() | {"client_assertion_type": assertion_type}
    stage.refuse(parameters, error=IC, reason="assertion_type")


@pytest.mark.requirement("CAU-06", "JWS-18")
def test_neither_assertion_passes_for_the_other(stage: Stage) -> None:
    swapped = as_client() | {"client_assertion_type": CLIENT_ASSERTION_JWT_BEARER}
    stage.refuse(swapped, error=IC, reason="claim_inconsistent")
    swapped = client_parameters() | {"client_assertion_type": CLIENT_ASSERTION_JWT_SPIFFE}
    stage.refuse(swapped, error=IC, reason="wrong_token_type")
    alone = as_client()
    del alone["client_assertion"]
    stage.refuse(alone, error=IC, reason="assertion_type")


@pytest.mark.requirement("JWS-18")
@pytest.mark.parametrize(
    "typ", [TYP_ACCESS_TOKEN, TYP_ID_JAG, TYP_CLIENT_AUTHENTICATION, "wit+jwt", "wpt+jwt"]
)
def test_a_token_of_another_kind_is_no_jwt_svid(stage: Stage, typ: str) -> None:
    attack(stage, "wrong_token_type", SVID.sign(good_svid_claims(), typ=typ))


@pytest.mark.requirement("JWS-18", "CA-14")
@pytest.mark.parametrize("claim", ["scope", "scp", "client_id", "act", "events"])
def test_a_token_that_says_too_much_is_no_jwt_svid(stage: Stage, claim: str) -> None:
    attack(stage, "wrong_token_type", **{claim: "x"})


@pytest.mark.requirement("CA-14")
def test_a_bound_jwt_svid_is_refused(stage: Stage) -> None:
    attack(stage, "cnf_unsupported", cnf={"jkt": "A" * 43})


@pytest.mark.requirement("CAU-13", "CA-14")
def test_a_stranger_learns_nothing_about_trust_domains(staging: Staging) -> None:
    """Registered, unknown, switched off: all the same until a key of the domain has signed."""
    stage = staging(with_other_domain())
    forged = Signer("svid", "ES256", signer("attacker").private_key)
    answers = [
        stage.refuse(as_client(forged.sign(good_svid_claims())), error=IC, reason="sig_invalid"),
        stage.refuse(as_client(sub="spiffe://evil.test/agent"), error=IC, reason="iss_unknown"),
        stage.refuse(
            as_client(forged.sign(good_svid_claims(iss=OTHER_DOMAIN))),
            error=IC,
            reason="sig_invalid",
        ),
    ]
    stage.broker.replace_cast(with_domain(is_disabled=True))
    answers.append(stage.refuse(as_client(), error=IC, reason="issuer_disabled"))

    assert len({(one.status, one.description, str(one.fields)) for one in answers}) == 1
