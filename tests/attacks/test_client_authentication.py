"""Group 1E of the attack catalogue: client authentication."""

import base64
import hashlib
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import pytest

from broker.model import Client, SecretHash
from broker.oauth import (
    AUTH_PRIVATE_KEY_JWT,
    AUTH_SECRET_BASIC,
    AUTH_SECRET_POST,
    CLIENT_ASSERTION_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
)
from tests.harness import HttpFace, basic
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    ISS,
    NOW,
    SERVERS,
    WEB_SECRET,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    good_access_token,
    good_assertion,
    good_assertion_claims,
    jwt_client,
)

WEB_RESOURCE = "https://web.test/mcp"


def anonymous(**changes: Any) -> Parameters:
    return exchange_parameters(good_access_token(), **changes)


def web(**changes: Any) -> Parameters:
    return exchange_parameters(good_access_token(aud=WEB_RESOURCE), **changes)


@pytest.mark.requirement("CAU-01", "TX-18")
def test_a_request_without_credentials_is_refused(stage: Stage) -> None:
    stage.attack(anonymous(), error="invalid_client", reason="client_auth_missing")
    stage.attack(
        anonymous(client_id="mcp1-srv"), error="invalid_client", reason="client_auth_missing"
    )


@pytest.mark.requirement("CAU-02", "CA-01")
def test_two_methods_at_once_are_refused(stage: Stage) -> None:
    header = basic("web-s", WEB_SECRET)
    posted = {"client_id": "web-s", "client_secret": WEB_SECRET}
    for parameters, authorization in [
        (web() | posted, (header,)),
        (web() | by_assertion("mcp1-srv"), (header,)),
        (web() | posted | by_assertion("mcp1-srv"), ()),
    ]:
        stage.attack(
            parameters, *authorization, error="invalid_request", reason="multiple_client_auth"
        )


@pytest.mark.requirement("CA-01")
def test_an_equal_client_id_beside_a_credential_is_no_second_method(stage: Stage) -> None:
    stage.grant(web(client_id="web-s"), basic("web-s", WEB_SECRET))
    stage.grant(stage.good(client_id="mcp1-srv"))


@pytest.mark.requirement("CAU-03", "CA-01")
def test_a_client_id_that_names_somebody_else_is_refused(stage: Stage) -> None:
    stage.attack(
        stage.good(client_id="agent-n"), error="invalid_client", reason="client_id_mismatch"
    )
    stage.attack(
        web(client_id="agent-n"),
        basic("web-s", WEB_SECRET),
        error="invalid_client",
        reason="client_id_mismatch",
    )


@pytest.mark.requirement("CAU-04", "CA-07", "CA-09")
@pytest.mark.parametrize(
    "audience",
    [
        ISS + "/token",
        [ISS, "https://evil.test"],
        [ISS, ISS],
        ISS + "/introspect",
        "https://other-as.test",
        ISS + "//",
        ISS.upper(),
        ISS + ":443",
    ],
    ids=str,
)
def test_an_assertion_for_another_audience_is_refused(stage: Stage, audience: Any) -> None:
    parameters = stage.good() | by_assertion("mcp1-srv", aud=audience)
    stage.attack(parameters, error="invalid_client", reason="aud_not_sole_issuer")


@pytest.mark.requirement("CA-07", "CA-09")
@pytest.mark.parametrize("audience", [ISS, [ISS], ISS + "/"], ids=str)
def test_the_issuer_alone_is_the_audience_of_an_assertion(stage: Stage, audience: Any) -> None:
    """The slash is what official SDKs make of an issuer without a path."""
    stage.grant(stage.good() | by_assertion("mcp1-srv", aud=audience))


@pytest.mark.requirement("CA-09")
def test_the_token_endpoint_is_an_audience_only_where_registered(staging: Staging) -> None:
    stage = staging(
        Cast().with_client(replace(Cast().client("mcp1-srv"), has_token_endpoint_audience=True))
    )
    stage.grant(stage.good() | by_assertion("mcp1-srv", aud=ISS + "/token"))


@pytest.mark.requirement("CAU-05", "CA-06")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "agent-x"}, "claim_inconsistent"),
        ({"iss": ISS}, "claim_inconsistent"),
        ({"iss": None}, "claim_inconsistent"),
        ({"sub": None}, "claim_malformed"),
        ({"sub": 1, "iss": 1}, "claim_malformed"),
        ({"iss": ISS, "sub": ISS}, "client_unknown"),
        ({"exp": None}, "claim_malformed"),
        ({"jti": None}, "claim_malformed"),
        ({"aud": None}, "aud_not_sole_issuer"),
    ],
    ids=str,
)
def test_an_assertion_names_its_client_twice(
    stage: Stage, changes: dict[str, Any], reason: str
) -> None:
    parameters = stage.good() | by_assertion("mcp1-srv", **changes)
    stage.attack(parameters, error="invalid_client", reason=reason)


@pytest.mark.requirement("CAU-06")
@pytest.mark.parametrize(
    "assertion_type",
    [
        None,
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        "urn:x:unknown",
        CLIENT_ASSERTION_JWT_BEARER.upper(),
    ],
)
def test_another_assertion_type_is_refused(stage: Stage, assertion_type: str | None) -> None:
    parameters = stage.good()
    del parameters["client_assertion_type"]
    if assertion_type is not None:
        parameters["client_assertion_type"] = assertion_type
    stage.attack(parameters, error="invalid_client", reason="assertion_type")


@pytest.mark.requirement("CAU-06")
def test_an_assertion_type_without_an_assertion_is_refused(stage: Stage) -> None:
    parameters = anonymous(client_assertion_type=CLIENT_ASSERTION_JWT_BEARER)
    stage.attack(parameters, error="invalid_client", reason="assertion_type")


@pytest.mark.requirement("CAU-07", "CA-10", "RPL-01")
def test_an_assertion_works_once(stage: Stage) -> None:
    parameters = stage.good()
    stage.grant(parameters)
    stage.attack(parameters, error="invalid_client", reason="replay")


@pytest.mark.requirement("CAU-07")
def test_a_refused_request_spends_nothing(stage: Stage) -> None:
    credential = by_assertion("mcp1-srv")
    refused = anonymous(resource="https://nope.test") | credential
    stage.refuse(refused, error="invalid_target", reason="target_unknown")
    stage.grant(anonymous() | credential)


@pytest.mark.requirement("CAU-08")
def test_an_assertion_signed_by_another_client_is_refused(stage: Stage) -> None:
    claims = good_assertion_claims("mcp1-srv")
    for signed_by, kid, reason in [
        ("agent-n", "mcp1-srv", "sig_invalid"),
        ("agent-n", "agent-n", "unknown_key"),
    ]:
        assertion = signer(signed_by).sign(claims, kid=kid)
        parameters = stage.good() | {"client_assertion": assertion}
        stage.attack(parameters, error="invalid_client", reason=reason)


@pytest.mark.requirement("CAU-09", "CA-17", "CA-12")
def test_a_client_cannot_step_down_to_a_weaker_method(staging: Staging) -> None:
    secret = SecretHash("sha256:" + hashlib.sha256(b"right").hexdigest())
    client = replace(Cast().client("mcp1-srv"), secrets=(secret,))
    stage = staging(Cast().with_client(client))
    stage.attack(
        anonymous(),
        basic("mcp1-srv", "right"),
        error="invalid_client",
        reason="auth_method_refused",
    )
    stage.attack(
        anonymous(client_id="mcp1-srv", client_secret="right"),
        error="invalid_client",
        reason="auth_method_refused",
    )


@pytest.mark.requirement("CAU-09")
def test_a_secret_client_cannot_sign_assertions(stage: Stage) -> None:
    assertion = signer("web-s").sign(good_assertion_claims("web-s"))
    parameters = web() | by_assertion("mcp1-srv") | {"client_assertion": assertion}
    stage.attack(parameters, error="invalid_client", reason="auth_method_refused")


@pytest.mark.requirement("CAU-10")
@pytest.mark.parametrize(
    "query",
    [
        "client_secret=x",
        "client_assertion=x",
        "access_token=x",
        "subject_token=x",
        "CLIENT_SECRET=x&client_secret=y",
    ],
)
def test_credentials_in_the_query_are_refused(stage: Stage, query: str) -> None:
    """There is no query on the gRPC face."""
    if not isinstance(stage.face, HttpFace):
        return
    before = len(stage.broker.records())
    answer = stage.face.post(b"grant_type=x", QUERY_STRING=query)
    records = stage.broker.records()[before:]
    assert (answer.status, answer.error) == ("400", "invalid_request")
    assert [one["reason"] for one in records] == ["credential_in_query"]


@pytest.mark.requirement("CAU-11")
def test_stored_secrets_are_hashes_and_stay_out_of_sight(stage: Stage) -> None:
    client = stage.broker.cast.client("web-s")
    assert WEB_SECRET not in repr(client)
    assert client.secrets[0].encoded not in repr(client)
    stage.grant(web(), basic("web-s", WEB_SECRET))
    recorded = b"".join(path.read_bytes() for path in stage.broker.audit_directory.iterdir())
    assert WEB_SECRET.encode() not in recorded


@pytest.mark.requirement("CAU-12")
@pytest.mark.parametrize(
    "secret",
    ["wrong", "\0", "ä" * 40, WEB_SECRET + "x", WEB_SECRET[:-1], WEB_SECRET.lower(), "x" * 4000],
    ids=lambda secret: ascii(secret)[:10],
)
def test_a_wrong_secret_is_refused(stage: Stage, secret: str) -> None:
    stage.attack(web(), basic("web-s", secret), error="invalid_client", reason="bad_secret")
    stage.attack(
        web(client_id="web-s", client_secret=secret), error="invalid_client", reason="bad_secret"
    )


@pytest.mark.requirement("CAU-13", "HTP-12")
def test_unknown_wrong_and_disabled_clients_get_the_same_bytes(staging: Staging) -> None:
    off = Client(
        "web-off",
        frozenset({AUTH_SECRET_BASIC}),
        frozenset({GRANT_TOKEN_EXCHANGE}),
        secrets=Cast().client("web-s").secrets,
        is_disabled=True,
    )
    stage = staging(Cast().with_client(off))
    answers = [
        stage.refuse(web(), basic(client, secret), error="invalid_client", reason=reason)
        for client, secret, reason in [
            ("nobody", WEB_SECRET, "client_unknown"),
            ("web-s", "wrong", "bad_secret"),
            ("web-off", WEB_SECRET, "client_disabled"),
            ("mcp1-srv", WEB_SECRET, "auth_method_refused"),
        ]
    ]
    assert len({str(answer.fields) for answer in answers}) == 1
    assert len({answer.description for answer in answers}) == 1


@pytest.mark.requirement("CAU-14", "HTP-05", "GRP-02")
@pytest.mark.parametrize(
    "authorization",
    [
        ("Basic !!!",),
        ("Basic " + base64.b64encode(b"no-colon").decode(),),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(),),
        ("Basic",),
        ("Bearer abc",),
        ("Basic " + "A" * 9000,),
        (basic("web-s", WEB_SECRET), basic("web-s", WEB_SECRET)),
        ("Basic " + base64.b64encode(b":" * 40).decode(),),
    ],
    ids=range(8),
)
def test_a_malformed_basic_credential_is_refused(
    stage: Stage, authorization: tuple[str, ...]
) -> None:
    stage.attack(web(), *authorization, error="invalid_client", reason="basic_malformed")


@pytest.mark.requirement("CAU-15")
def test_a_disabled_client_is_refused(staging: Staging) -> None:
    stage = staging(Cast())
    parameters = exchange_parameters(good_access_token()) | by_assertion("off-srv")
    stage.attack(parameters, error="invalid_client", reason="client_disabled")


@pytest.mark.requirement("CAU-15")
def test_a_secret_past_its_time_is_refused(staging: Staging) -> None:
    client = Cast().client("web-s")
    old = tuple(replace(secret, not_after=NOW) for secret in client.secrets)
    stage = staging(Cast().with_client(replace(client, secrets=old)))
    stage.attack(web(), basic("web-s", WEB_SECRET), error="invalid_client", reason="bad_secret")


@pytest.mark.requirement("CA-18")
def test_two_secrets_may_overlap_for_rotation(staging: Staging) -> None:
    client = Cast().client("web-s")
    new = SecretHash("sha256:" + hashlib.sha256(b"new-secret").hexdigest())
    stage = staging(Cast().with_client(replace(client, secrets=(*client.secrets, new))))
    stage.grant(web(), basic("web-s", WEB_SECRET))
    stage.grant(web(), basic("web-s", "new-secret"))


@pytest.mark.requirement("CAU-17", "GRP-03", "MTLS-03")
def test_identity_headers_from_anybody_are_ignored(stage: Stage) -> None:
    """A header is not a credential, whoever sends it."""
    if isinstance(stage.face, HttpFace):
        answer = stage.face.post(
            b"grant_type=x",
            HTTP_X_SSL_CLIENT_CERT="cert",
            HTTP_X_FORWARDED_CLIENT_CERT="cert",
            HTTP_X_CLIENT_ID="mcp1-srv",
        )
        assert (answer.status, answer.error) == ("401", "invalid_client")
    stage.attack(anonymous(), error="invalid_client", reason="client_auth_missing")


@pytest.mark.requirement("CA-02")
def test_a_failed_header_credential_gets_a_challenge(stage: Stage) -> None:
    answer = stage.refuse(
        web(), basic("web-s", "wrong"), error="invalid_client", reason="bad_secret"
    )
    if isinstance(stage.face, HttpFace):
        assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.requirement("CA-03")
def test_a_grant_must_be_registered_for_the_client(stage: Stage) -> None:
    parameters = anonymous() | by_assertion("no-grants")
    stage.attack(parameters, error="unauthorized_client", reason="grant_not_allowed")


@pytest.mark.requirement("CA-04")
@pytest.mark.parametrize("is_encoded", [True, False])
@pytest.mark.parametrize("secret", ["50%25+more:colons%", "a+b", "p%61ss", WEB_SECRET])
def test_basic_credentials_work_encoded_and_raw(
    staging: Staging, secret: str, *, is_encoded: bool
) -> None:
    """One official SDK percent-encodes, the other does not; an id may be a URL with colons."""
    client_id = "https://c.test:8443/app.json"
    client = Client(
        client_id,
        frozenset({AUTH_SECRET_BASIC}),
        frozenset({GRANT_TOKEN_EXCHANGE}),
        secrets=(SecretHash("sha256:" + hashlib.sha256(secret.encode()).hexdigest()),),
        groups=SERVERS,
    )
    resource = replace(Cast().resource(WEB_RESOURCE), owner=client_id)
    stage = staging(Cast().with_client(client).with_resource(resource))
    parts = (quote_plus(client_id), quote_plus(secret)) if is_encoded else (client_id, secret)
    stage.grant(web(), basic(*parts))


@pytest.mark.requirement("CA-05")
def test_all_three_methods_work(stage: Stage) -> None:
    assert stage.broker.cast.client("web-s").auth_methods == {AUTH_SECRET_BASIC, AUTH_SECRET_POST}
    assert AUTH_PRIVATE_KEY_JWT in jwt_client("x").auth_methods
    stage.grant(web(), basic("web-s", WEB_SECRET))
    stage.grant(web(client_id="web-s", client_secret=WEB_SECRET))
    stage.grant(stage.good())


@pytest.mark.requirement("CA-11")
def test_an_algorithm_that_is_not_registered_is_refused(stage: Stage) -> None:
    assertion = signer("mcp1-384", "ES384").sign(good_assertion_claims("mcp1-srv"), kid="mcp1-srv")
    parameters = stage.good() | {"client_assertion": assertion}
    stage.attack(parameters, error="invalid_client", reason="alg_not_allowed")


@pytest.mark.requirement("CA-13")
def test_an_answer_never_repeats_the_credential(stage: Stage) -> None:
    assertion = good_assertion("mcp1-srv", aud="https://evil.test")
    answer = stage.refuse(
        stage.good() | {"client_assertion": assertion},
        error="invalid_client",
        reason="aud_not_sole_issuer",
    )
    assert assertion[:20] not in answer.everything
    assert "evil.test" not in answer.everything


@pytest.mark.requirement("CLM-11")
@pytest.mark.parametrize(
    "client_id",
    ["mcp1-srv".replace("c", "\u0441"), "MCP1-SRV", "mcp1-srv\u200b", "\uff4dcp1-srv"],
    ids=ascii,
)
def test_a_look_alike_client_id_is_unknown(stage: Stage, client_id: str) -> None:
    parameters = anonymous(client_id=client_id, client_secret="x")
    stage.attack(parameters, error="invalid_client", reason="client_unknown")
