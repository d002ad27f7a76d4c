"""Attacks on introspection (RFC 7662): who may ask about which token, and what is told."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from broker.interfaces import PolicyEngine
from broker.oauth import TYP_ACCESS_TOKEN
from tests.fakes import RecordingAuditLog
from tests.harness import Answer, Broker, GrpcFace, HttpFace, basic, decode_claims
from tests.inquiries import (
    about,
    asking,
    exchanged,
    first_token,
    revoke,
    signed_by_broker,
    told,
    untold,
)
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    IDP_A,
    ISS,
    MCP_CLAIM,
    NOW,
    RES_1,
    RES_2,
    WEB_SECRET,
    Cast,
    Parameters,
    assertion_request,
    by_assertion,
    good_access_token,
    good_assertion,
    good_id_jag,
    good_id_token,
)

IC = "invalid_client"
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


@pytest.mark.requirement("INTRO-03", "INTRO-04", "INTRO-05", "INTRO-06", "ITR-04")
def test_the_server_learns_what_its_token_says_and_no_more(stage: Stage) -> None:
    token = first_token(stage)
    claims = decode_claims(token)

    assert told(stage, token) == {
        "active": True,
        "iss": ISS,
        "sub": "u1",
        "aud": RES_1,
        "client_id": "agent-x",
        "scope": "a:read b:read",
        "iat": NOW,
        "exp": NOW + 300,
        "jti": claims["jti"],
        "token_type": "Bearer",
        "act": {"iss": ISS, "sub": "agent-x", "sub_profile": "ai_agent"},
        "auth_time": NOW - 60,
        "acr": "phr",
        "amr": ["hwk"],
        MCP_CLAIM: {"client": "agent-x", "resource": RES_1, "subject_issuer": IDP_A},
    }


@pytest.mark.requirement("INTRO-05", "ITR-04")
def test_the_chain_is_told_whole_and_where_the_token_came_from_is_kept(stage: Stage) -> None:
    second = stage.grant(exchanged(first_token(stage), "mcp1-srv")).token
    assert "lineage" in decode_claims(second)[MCP_CLAIM]

    document = told(stage, second)

    assert document["act"] == decode_claims(second)["act"]
    assert document["act"]["act"]["sub"] == "agent-x"
    assert set(document[MCP_CLAIM]) == {"client", "server", "resource", "subject_issuer"}


@pytest.mark.requirement("INTRO-03", "INTRO-06")
def test_a_bound_token_is_told_with_its_key_and_without_a_proof(stage: Stage) -> None:
    """The resource server sees the holder's proof; here nobody presents the token."""
    claims = decode_claims(first_token(stage)) | {"cnf": {"jkt": THUMBPRINT}}

    document = told(stage, signed_by_broker(stage, claims))

    assert document["token_type"] == "DPoP"
    assert document["cnf"] == {"jkt": THUMBPRINT}


@pytest.mark.requirement("INTRO-07")
@pytest.mark.parametrize("by", ["mcp1-srv", "agent-x", "gateway"])
def test_those_whom_a_token_concerns_may_ask(stage: Stage, by: str) -> None:
    """They are the owner of its resource, whoever it was issued to, and who is registered to ask."""
    assert told(stage, first_token(stage), by)["sub"] == "u1"


@pytest.mark.requirement("ITR-02", "INTRO-07")
@pytest.mark.parametrize("by", ["mcp2-srv", "agent-n", "operator", "auditor", "no-grants"])
def test_nobody_else_learns_that_a_token_counts(stage: Stage, by: str) -> None:
    token = first_token(stage)
    told(stage, token)

    untold(stage, token, by, reason="introspect_not_audience")

    told(stage, token)


@pytest.mark.requirement("ITR-02")
def test_a_server_learns_nothing_of_what_was_derived_from_its_token(stage: Stage) -> None:
    """The token for the API was issued to the server; the agent that it acts for is nobody there."""
    second = stage.grant(exchanged(first_token(stage), "mcp1-srv")).token
    told(stage, second, "mcp1-srv")

    for by in ("agent-x", "gateway"):
        untold(stage, second, by, reason="introspect_not_audience")


@pytest.mark.requirement("ITR-02")
def test_a_right_to_ask_is_for_the_resource_named(staging: Staging) -> None:
    elsewhere = replace(Cast().client("gateway"), introspects=frozenset({RES_2, RES_1 + "/", API}))
    stage = staging(Cast().with_client(elsewhere))

    untold(stage, first_token(stage), "gateway", reason="introspect_not_audience")


@pytest.mark.requirement("ITR-01", "INTRO-01", "GRP-04")
@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        ({}, "client_auth_missing"),
        ({"client_id": "mcp1-srv"}, "client_auth_missing"),
        ({"client_id": "web-s", "client_secret": "wrong"}, "bad_secret"),
        ({"client_id": "nobody", "client_secret": "wrong"}, "client_unknown"),
        (by_assertion("off-srv"), "client_disabled"),
        (by_assertion("mcp1-srv", aud="https://elsewhere.test"), "aud_not_sole_issuer"),
        (by_assertion("mcp1-srv") | {"client_id": "mcp2-srv"}, "client_id_mismatch"),
    ],
)
def test_a_stranger_is_told_nothing_at_all(
    stage: Stage, credential: dict[str, str], reason: str
) -> None:
    token = first_token(stage)
    told(stage, token)

    for asked in (token, "garbage"):
        asking(stage, "introspect").refuse({"token": asked, **credential}, error=IC, reason=reason)

    told(stage, token)


@pytest.mark.requirement("ITR-01")
def test_the_token_itself_is_no_credential(stage: Stage) -> None:
    token = first_token(stage)

    for scheme in ("Bearer", "DPoP"):
        asking(stage, "introspect").refuse(
            {"token": token}, f"{scheme} {token}", error=IC, reason="basic_malformed"
        )


def _of_another_key(stage: Stage) -> str:
    header, payload, _ = first_token(stage).split(".")
    return f"{header}.{payload}.{'A' * 86}"


def _expired(stage: Stage) -> str:
    claims = decode_claims(first_token(stage)) | {"iat": NOW - 600, "exp": NOW - 300}
    return signed_by_broker(stage, claims)


def _revoked(stage: Stage) -> str:
    token = first_token(stage)
    revoke(stage, token, "agent-x")
    return token


def _of_a_revoked_parent(stage: Stage) -> str:
    parent = first_token(stage)
    child = stage.grant(exchanged(parent, "mcp1-srv")).token
    revoke(stage, parent, "agent-x")
    return child


def _saying(**changes: Any) -> Callable[[Stage], str]:
    """A token of the broker's own that says something it would never sign."""

    def make(stage: Stage) -> str:
        claims = decode_claims(first_token(stage)) | changes
        return signed_by_broker(stage, claims)

    return make


def _issued_to_nobody(stage: Stage) -> str:
    claims = decode_claims(first_token(stage))
    del claims["client_id"]
    return signed_by_broker(stage, claims)


PROBES: Mapping[str, tuple[Callable[[Stage], str], str]] = {
    "garbage": (lambda _: "garbage", "malformed_token"),
    "one character": (lambda _: ".", "malformed_token"),
    "enormous": (lambda _: "e" * 20_000, "token_too_large"),
    "encrypted": (lambda _: "a.b.c.d.e", "jwe_refused"),
    "of another key": (_of_another_key, "sig_invalid"),
    "expired": (_expired, "token_expired"),
    "revoked": (_revoked, "revoked"),
    "of a revoked parent": (_of_a_revoked_parent, "ancestor_revoked"),
    "of another issuer": (lambda _: good_access_token(), "iss_unknown"),
    "of nobody": (lambda _: good_access_token(iss="https://nobody.test"), "iss_unknown"),
    "an id token": (lambda _: good_id_token(), "wrong_token_type"),
    "a foreign id-jag": (lambda _: good_id_jag(), "wrong_token_type"),
    "an own id-jag": (lambda stage: stage.grant(assertion_request()).token, "wrong_token_type"),
    "an assertion": (lambda _: good_assertion("mcp1-srv"), "wrong_token_type"),
    "for another server": (_saying(aud=RES_2, client_id="agent-n"), "introspect_not_audience"),
    "for no resource": (_saying(aud="https://gone.test"), "principal_disabled"),
    "without an id": (_saying(jti=None), "claim_malformed"),
    "issued to nobody": (_issued_to_nobody, "principal_disabled"),
    "of no client": (_saying(client_id="gone"), "principal_disabled"),
    "of an actor who is gone": (_saying(act={"iss": ISS, "sub": "gone"}), "principal_disabled"),
    "bound in an unknown way": (_saying(cnf={"x": 1}), "cnf_unsupported"),
    "too long-lived": (_saying(exp=NOW + 901), "lifetime_too_long"),
    "of a broken lineage": (_saying(**{MCP_CLAIM: {"lineage": "x"}}), "claim_malformed"),
}


@pytest.mark.requirement("ITR-03", "INTRO-02", "INTRO-09")
@pytest.mark.parametrize("probe", PROBES)
def test_no_probe_learns_why_a_token_is_not_active(stage: Stage, probe: str) -> None:
    make, reason = PROBES[probe]
    plain = untold(stage, "garbage", reason="malformed_token")

    answer = untold(stage, make(stage), reason=reason)

    assert _without_id(answer) == _without_id(plain)


def _without_id(answer: Answer) -> str:
    """All that reached the caller, but for the id that every answer has of its own."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "id", answer.everything)


@pytest.mark.requirement("INTRO-02", "CAU-15")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cast: replace(cast, disabled_subjects=frozenset({"u1"})), "principal_disabled"),
        (lambda cast: _off(cast, issuer=IDP_A), "issuer_disabled"),
        (lambda cast: _off(cast, client="agent-x"), "principal_disabled"),
        (lambda cast: _off(cast, resource=RES_1), "principal_disabled"),
        (lambda cast: _off(cast, resource=API), "principal_disabled"),
        (lambda cast: _without_client(cast, "agent-x"), "principal_disabled"),
    ],
)
def test_switching_a_party_off_shows_at_once(
    staging: Staging, change: Callable[[Cast], Cast], reason: str
) -> None:
    stage = staging(Cast())
    second = stage.grant(exchanged(first_token(stage), "mcp1-srv")).token
    told(stage, second)

    stage.broker.replace_cast(change(Cast()))
    untold(stage, second, reason=reason)

    stage.broker.replace_cast(Cast())
    told(stage, second)


def _off(cast: Cast, *, issuer: str = "", client: str = "", resource: str = "") -> Cast:
    if issuer:
        return cast.with_issuer(replace(cast.issuer(issuer), is_disabled=True))
    if client:
        return cast.with_client(replace(cast.client(client), is_disabled=True))
    return cast.with_resource(replace(cast.resource(resource), is_disabled=True))


def _without_client(cast: Cast, client_id: str) -> Cast:
    return replace(cast, clients=tuple(one for one in cast.clients if one.client_id != client_id))


@pytest.mark.requirement("INTRO-01")
@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "id_token", "nonsense", "ü"])
def test_a_hint_is_a_hint(stage: Stage, hint: str) -> None:
    parameters = about(first_token(stage), token_type_hint=hint)

    assert stage.face.introspect(parameters).fields["active"] is True


@pytest.mark.requirement("INTRO-01")
@pytest.mark.parametrize("token", [None, "", "  "])
def test_without_a_token_there_is_nothing_to_ask(stage: Stage, token: str | None) -> None:
    parameters = {name: value for name, value in about("x").items() if name != "token"}
    if token is not None:
        parameters["token"] = token

    asking(stage, "introspect").refuse(parameters, error="invalid_request", reason="param_missing")


@pytest.mark.requirement("CAU-07")
def test_an_assertion_that_asked_once_is_used_up_everywhere(stage: Stage) -> None:
    credential = by_assertion("mcp1-srv")
    token = first_token(stage)
    assert stage.face.introspect({"token": token, **credential}).fields["active"] is True

    asking(stage, "introspect").refuse({"token": token, **credential}, error=IC, reason="replay")
    asking(stage, "introspect").refuse({"token": "x", **credential}, error=IC, reason="replay")
    asking(stage, "revoke").refuse({"token": "x", **credential}, error=IC, reason="replay")
    stage.refuse(stage.good() | credential, error=IC, reason="replay")


@pytest.mark.requirement("CAU-07")
def test_an_assertion_that_got_a_token_asks_nothing_any_more(stage: Stage) -> None:
    used = stage.good()
    stage.grant(used)
    credential = {name: str(used[name]) for name in by_assertion("mcp1-srv")}

    asking(stage, "introspect").refuse({"token": "x", **credential}, error=IC, reason="replay")


@pytest.mark.requirement("RPL-03")
def test_who_cannot_know_whether_a_token_counts_does_not_say_that_it_does_not(
    stage: Stage,
) -> None:
    token = first_token(stage)
    stage.broker.state.close()

    asking(stage, "introspect").refuse(
        about(token), error="temporarily_unavailable", reason="revocation_unavailable"
    )


@pytest.mark.requirement("LOG-04", "R-30")
@pytest.mark.parametrize("face_of", [HttpFace, GrpcFace])
def test_nothing_is_told_that_cannot_be_recorded(
    quick_path: Any, policy: PolicyEngine, face_of: type[HttpFace] | type[GrpcFace]
) -> None:
    audit = RecordingAuditLog()
    broker = Broker(quick_path, cast=Cast(), policy=policy, audit=audit)
    face = face_of(broker)
    stage = Stage(broker, face)
    active = face.exchange(stage.good() | {"resource": API}).token
    audit.is_available = False

    for token in (active, "garbage"):
        answer = face.introspect(about(token))
        assert answer.error == "temporarily_unavailable"
        assert answer.fields.get("active") is None

    if isinstance(face, GrpcFace):
        face.close()
    broker.close()


@pytest.mark.requirement("ITR-05", "META-06")
def test_the_metadata_says_where_to_ask_and_all_ways_to_authenticate_there(stage: Stage) -> None:
    document = stage.face.metadata()
    assert document["introspection_endpoint"] == ISS + "/introspect"
    assert document["revocation_endpoint"] == ISS + "/revoke"
    ways: dict[str, tuple[Parameters, tuple[str, ...]]] = {
        "client_secret_basic": ({}, (basic("web-s", WEB_SECRET),)),
        "client_secret_post": ({"client_id": "web-s", "client_secret": WEB_SECRET}, ()),
        "private_key_jwt": ({**by_assertion("mcp1-srv")}, ()),
    }
    for endpoint, method in (("introspection", "introspect"), ("revocation", "revoke")):
        assert set(document[f"{endpoint}_endpoint_auth_methods_supported"]) == set(ways)
        for name, (parameters, authorization) in ways.items():
            fresh = by_assertion("mcp1-srv") if name == "private_key_jwt" else {}
            asked = {"token": "garbage", **parameters, **fresh}
            assert getattr(stage.face, method)(asked, *authorization).error == "", name


@pytest.mark.requirement("INTRO-09")
def test_a_type_that_the_token_only_claims_opens_nothing(stage: Stage) -> None:
    claims = decode_claims(first_token(stage))
    for typ in ("JWT", "oauth-id-jag+jwt", "client-authentication+jwt", "dpop+jwt"):
        token = signed_by_broker(stage, claims, typ=typ)
        untold(stage, token, reason="wrong_token_type")
    told(stage, signed_by_broker(stage, claims, typ=f"application/{TYP_ACCESS_TOKEN}"))
