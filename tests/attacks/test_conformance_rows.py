"""Requirements that belong to no attack and to no grant alone: metadata, keys, and what every token has."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from jwt.types import Options

from broker.interfaces import PolicyEngine
from broker.keys.dev import DevKeyStore
from broker.model import KeySource
from broker.oauth import (
    CLIENT_PARAMETERS,
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    SIGNING_ALGORITHMS,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TYP_ACCESS_TOKEN,
    TYP_ID_JAG,
    VERIFICATION_ALGORITHMS,
)
from tests.harness import Broker, HttpFace, call_wsgi, decode_header, decode_object
from tests.idp import signer
from tests.stage import Stage
from tests.stagehands import Staging
from tests.world import (
    API,
    IDP_A,
    IDP_B,
    ISS,
    MCP_CLAIM,
    RAS,
    RES_1,
    WIKI,
    Cast,
    Parameters,
    assertion_request,
    client_parameters,
    good_assertion_claims,
    redeem_parameters,
)

ENDPOINTS = ("token", "introspection", "revocation")
REGISTERED = {
    *("iss", "sub", "aud", "client_id", "iat", "exp", "jti", "scope"),
    *("act", "auth_time", "acr", "amr", "cnf", "txn"),
}
"""The claims of access tokens here that are registered with IANA."""
NO_CLOCK: Options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
"""The broker of these tests lives at a moment of its own."""


def good_requests(stage: Stage) -> Mapping[str, Parameters]:
    """A good request for an access token by each grant."""
    return {
        GRANT_TOKEN_EXCHANGE: stage.good(),
        GRANT_CLIENT_CREDENTIALS: client_parameters(),
        GRANT_JWT_BEARER: redeem_parameters(),
    }


def published(stage: Stage, path: str) -> dict[str, Any]:
    """A public document, as everybody gets it over HTTP."""
    app = HttpFace(stage.broker).app
    status, headers, body = call_wsgi(app, {"REQUEST_METHOD": "GET", "PATH_INFO": path})
    assert (status, headers["content-type"]) == ("200", "application/json")
    return decode_object(body)


# ---- metadata


@pytest.mark.requirement("META-01", "META-07")
def test_every_endpoint_is_below_the_issuer_that_tokens_name(stage: Stage) -> None:
    document = stage.face.metadata()
    assert document["issuer"] == ISS
    addresses = [
        value for name, value in document.items() if name.endswith(("_endpoint", "jwks_uri"))
    ]
    assert len(addresses) == len(ENDPOINTS) + 2
    for address in addresses:
        assert address.startswith(ISS + "/")
    for parameters in (*good_requests(stage).values(), assertion_request()):
        assert stage.grant(parameters).claims["iss"] == document["issuer"]


@pytest.mark.requirement("META-03", "META-04")
def test_no_list_in_the_metadata_is_empty_but_the_one_that_must_be_there(stage: Stage) -> None:
    """RFC 8414 2 requires ``response_types_supported``; there is nothing to put into it."""
    document = stage.face.metadata()
    assert [name for name, value in document.items() if not value] == ["response_types_supported"]
    assert document["response_types_supported"] == []
    assert None not in document.values()


@pytest.mark.requirement("META-05", "META-08", "IDJAG-R-21", "RES-04")
def test_the_grants_that_are_listed_work_and_no_other_does(stage: Stage) -> None:
    requests = good_requests(stage)
    listed = stage.face.metadata()["grant_types_supported"]
    assert sorted(listed) == sorted(requests)
    for parameters in requests.values():
        resource = parameters.get("resource", RES_1)
        assert stage.grant(parameters | {"resource": resource}).claims["aud"] == resource
    if stage.face.name == "http":
        for other in ("authorization_code", "refresh_token", "implicit", "password"):
            stage.refuse(
                client_parameters(grant_type=other),
                error="unsupported_grant_type",
                reason="grant_unsupported",
            )


@pytest.mark.requirement("META-06", "CA-11", "CC-03")
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_methods_and_algorithms_are_listed_for_every_endpoint(stage: Stage, endpoint: str) -> None:
    document = stage.face.metadata()
    assert set(document[f"{endpoint}_endpoint_auth_methods_supported"]) == {
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt",
    }
    algorithms = document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
    assert sorted(algorithms) == sorted(VERIFICATION_ALGORITHMS)
    assert not [one for one in algorithms if one == "none" or one.startswith("HS")]


@pytest.mark.requirement("META-08", "META-13", "CA-11")
@pytest.mark.parametrize("algorithm", VERIFICATION_ALGORITHMS)
def test_every_algorithm_that_is_listed_authenticates_a_client(
    staging: Staging, algorithm: str
) -> None:
    key = signer(f"listed-{algorithm}", "EdDSA" if algorithm == "Ed25519" else algorithm)
    jwks = {"keys": [{**key.jwk, "alg": algorithm}]}
    agent = replace(
        Cast().client("agent-x"), keys=KeySource(jwks=jwks), algorithms=frozenset({algorithm})
    )
    stage = staging(Cast().with_client(agent))
    assertion = key.sign(good_assertion_claims("agent-x"), alg=algorithm)
    stage.grant(client_parameters(client_assertion=assertion))


@pytest.mark.requirement("META-08", "META-14", "META-17", "MTLS-02", "RAR-01")
@pytest.mark.parametrize(
    "feature",
    [
        "authorization_details_types_supported",
        "authorization_response_iss_parameter_supported",
        "client_id_metadata_document_supported",
        "code_challenge_methods_supported",
        "introspection_signing_alg_values_supported",
        "mtls_endpoint_aliases",
        "protected_resources",
        "registration_endpoint",
        "signed_metadata",
        "tls_client_certificate_bound_access_tokens",
    ],
)
def test_what_is_not_offered_is_not_in_the_metadata(stage: Stage, feature: str) -> None:
    assert feature not in stage.face.metadata()


@pytest.mark.requirement("META-15", "TX-14")
def test_nobody_is_offered_a_refresh_token(stage: Stage) -> None:
    for name in ("refresh_token", "offline_access"):
        assert name not in str(stage.face.metadata())
    offline = client_parameters(scope="a:read offline_access")
    stage.refuse(offline, error="invalid_scope", reason="scope_unknown")


@pytest.mark.requirement("META-16", "IDJAG-R-21")
def test_public_documents_name_nobody(stage: Stage) -> None:
    text = str(stage.face.metadata()) + str(published(stage, "/jwks"))
    cast = stage.broker.cast
    names = {
        *(one.client_id for one in cast.clients),
        *(one.issuer for one in cast.issuers),
        *(one.resource for one in cast.resources),
        *(f"'{one.tenant}'" for one in cast.issuers if one.tenant),
        *(RAS, WIKI, IDP_A, IDP_B),
    }
    assert not [name for name in names if name in text]


# ---- keys


@pytest.mark.requirement("META-09", "META-10", "AT-01", "AT-02", "IDJAG-I-11")
@pytest.mark.parametrize("algorithm", SIGNING_ALGORITHMS)
def test_whoever_starts_from_the_issuer_finds_the_key_of_every_token(
    quick_path: Path, policy: PolicyEngine, algorithm: str
) -> None:
    api = replace(Cast().resource(API), signing_algorithm=algorithm)
    store = DevKeyStore(quick_path / "own", algorithms=SIGNING_ALGORITHMS)
    broker = Broker(quick_path, cast=Cast().with_resource(api), policy=policy, key_store=store)
    stage = Stage(broker, HttpFace(broker))
    with closing(broker):
        document = published(stage, "/.well-known/oauth-authorization-server")
        keys = published(stage, urlsplit(document["jwks_uri"]).path)["keys"]
        by_kid = {key["kid"]: key for key in keys}
        for parameters, expected in ((stage.good(), algorithm), (assertion_request(), "ES256")):
            token = stage.grant(parameters).token
            key = by_kid[decode_header(token)["kid"]]
            assert key["alg"] == decode_header(token)["alg"] == expected
            found = jwt.PyJWK.from_dict(key)
            assert jwt.decode(token, found, [expected], options=NO_CLOCK)["iss"] == ISS


# ---- what every token has


@pytest.mark.requirement("AT-03", "AT-07", "AT-10", "JWT-06")
def test_every_access_token_has_the_claims_of_the_profile_and_no_odd_ones(stage: Stage) -> None:
    for parameters in good_requests(stage).values():
        answer = stage.grant(parameters)
        assert decode_header(answer.token)["typ"] == TYP_ACCESS_TOKEN
        claims = answer.claims
        required = {"iss", "sub", "aud", "client_id", "iat", "exp", "jti"}
        assert required <= claims.keys() <= REGISTERED | {MCP_CLAIM}
        assert all(isinstance(claims[name], str) for name in ("sub", "aud", "client_id", "scope"))
    assert urlsplit(MCP_CLAIM).scheme == "https"


@pytest.mark.requirement("TX-13", "TX-12", "JWT-06", "IDJAG-I-18")
def test_what_was_issued_is_told_by_its_types(stage: Stage) -> None:
    for parameters in good_requests(stage).values():
        fields = stage.grant(parameters).fields
        assert fields["issued_token_type"] == TOKEN_TYPE_ACCESS_TOKEN
        assert fields["token_type"] == "Bearer"
    answer = stage.grant(assertion_request())
    assert answer.fields["issued_token_type"] == TOKEN_TYPE_ID_JAG
    assert answer.fields["token_type"] == "N_A"
    assert decode_header(answer.token)["typ"] == TYP_ID_JAG


@pytest.mark.requirement("CA-16", "TX-18", "CC-01", "IDJAG-I-29", "IDJAG-R-01")
@pytest.mark.parametrize("client_id", ["agent-x", "web-s"])
def test_to_say_who_one_is_proves_nothing(stage: Stage, client_id: str) -> None:
    for parameters in (*good_requests(stage).values(), assertion_request()):
        bare = {
            name: value
            for name, value in parameters.items()
            if name == "grant_type" or name not in CLIENT_PARAMETERS
        }
        named = bare | {"client_id": client_id}
        stage.attack(named, error="invalid_client", reason="client_auth_missing")
