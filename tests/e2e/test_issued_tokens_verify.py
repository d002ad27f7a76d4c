"""Issued tokens, the published keys and the metadata, held against libraries that are not ours."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from google.protobuf.json_format import MessageToDict
from joserfc import jwt as jose
from joserfc.jwk import KeySet

from broker.v1 import discovery_service_pb2, discovery_service_pb2_grpc
from tests.e2e.conftest import Starting
from tests.e2e.running import RunningBroker
from tests.e2e.setting import API, SERVER, Setting, exchange, login, new_setting
from tests.e2e.wires import HttpWire, Wire, settled
from tests.world import Parameters

Claims = Mapping[str, Any]
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

by_algorithm = pytest.mark.parametrize(
    ("algorithm", "audience", "ask"), [("ES256", SERVER, login), ("RS256", API, exchange)]
)


@pytest.fixture
def discovery(
    broker: RunningBroker,
) -> Iterator[discovery_service_pb2_grpc.DiscoveryServiceStub]:
    with grpc.insecure_channel(f"127.0.0.1:{broker.setting.ports.grpc}") as channel:
        yield discovery_service_pb2_grpc.DiscoveryServiceStub(channel)


def key_set_over_grpc(stub: discovery_service_pb2_grpc.DiscoveryServiceStub) -> dict[str, Any]:
    response = stub.GetKeySet(discovery_service_pb2.GetKeySetRequest(), timeout=10)
    return {"keys": MessageToDict(response)["keys"]}


def verified_by_pyjwt(token: str, keys: dict[str, Any], *, issuer: str, audience: str) -> Claims:
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt"
    key = jwt.PyJWKSet.from_dict(keys)[header["kid"]]
    claims: Claims = jwt.decode(
        token,
        key,
        algorithms=[header["alg"]],
        audience=audience,
        issuer=issuer,
        options={"require": ["iss", "sub", "aud", "client_id", "iat", "exp", "jti"]},
    )
    return claims


def verified_by_joserfc(token: str, keys: dict[str, Any], *, issuer: str, audience: str) -> Claims:
    read = jose.decode(token, KeySet.import_key_set(keys), algorithms=["ES256", "RS256"])  # type: ignore[arg-type] # A key set is a plain dictionary here.
    wanted = jose.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience}
    )
    wanted.validate(read.claims)
    return read.claims


@pytest.mark.requirement("SGN-01")
@by_algorithm
@pytest.mark.requirement("AT-02")
def test_every_issued_token_verifies_with_the_keys_of_both_faces_in_two_other_libraries(
    broker: RunningBroker,
    face: Wire,
    discovery: discovery_service_pb2_grpc.DiscoveryServiceStub,
    algorithm: str,
    audience: str,
    ask: Callable[[Setting], Parameters],
) -> None:
    token = settled(face, lambda: ask(broker.setting)).token
    issuer = broker.setting.issuer

    assert jwt.get_unverified_header(token)["alg"] == algorithm
    read = [
        verify(token, keys, issuer=issuer, audience=audience)
        for keys in (broker.key_set(), key_set_over_grpc(discovery))
        for verify in (verified_by_pyjwt, verified_by_joserfc)
    ]
    assert all(claims == read[0] for claims in read)
    assert read[0]["sub"] == "ann"


@by_algorithm
def test_another_libraries_verdict_on_a_token_with_one_changed_letter_is_no(
    broker: RunningBroker,
    face: Wire,
    algorithm: str,
    audience: str,
    ask: Callable[[Setting], Parameters],
) -> None:
    token = settled(face, lambda: ask(broker.setting)).token
    head, payload, signature = token.split(".")
    changed = "A" if payload[20] != "A" else "B"
    forged = ".".join([head, payload[:20] + changed + payload[21:], signature])

    assert jwt.get_unverified_header(forged)["alg"] == algorithm
    with pytest.raises(jwt.InvalidSignatureError):
        verified_by_pyjwt(forged, broker.key_set(), issuer=broker.setting.issuer, audience=audience)


@pytest.mark.requirement("META-10")
def test_both_faces_publish_the_same_public_keys_and_no_private_member(
    broker: RunningBroker, discovery: discovery_service_pb2_grpc.DiscoveryServiceStub
) -> None:
    keys = broker.key_set()["keys"]

    assert key_set_over_grpc(discovery)["keys"] == keys
    assert {key["alg"] for key in keys} == {"ES256", "RS256"}
    assert len({key["kid"] for key in keys}) == len(keys)
    for key in keys:
        assert key["use"] == "sig"
        assert not PRIVATE_MEMBERS & key.keys()


@pytest.mark.requirement("META-02")
def test_the_metadata_is_the_same_at_all_well_known_places_and_over_grpc(
    broker: RunningBroker, discovery: discovery_service_pb2_grpc.DiscoveryServiceStub
) -> None:
    over_grpc = discovery.GetServerMetadata(
        discovery_service_pb2.GetServerMetadataRequest(), timeout=10
    )

    documents = [
        broker.document("/.well-known/oauth-authorization-server"),
        broker.document("/.well-known/openid-configuration"),
        json.loads(over_grpc.document_json),
    ]

    assert all(document == documents[0] for document in documents)
    assert documents[0]["issuer"] == broker.setting.issuer
    assert over_grpc.jwks_uri == documents[0]["jwks_uri"]


@pytest.mark.requirement("META-02")
def test_an_issuer_with_a_path_is_found_at_all_three_well_known_places_and_works(
    starting: Starting, tmp_path: Path
) -> None:
    broker = starting(new_setting(tmp_path, issuer_path="/t/acme"))

    documents = [
        broker.document("/.well-known/oauth-authorization-server/t/acme"),
        broker.document("/.well-known/openid-configuration/t/acme"),
        broker.document("/t/acme/.well-known/openid-configuration"),
    ]

    assert all(document == documents[0] for document in documents)
    assert documents[0]["issuer"] == broker.setting.issuer
    assert documents[0]["token_endpoint"] == broker.setting.issuer + "/token"
    assert documents[0]["jwks_uri"] == broker.setting.issuer + "/jwks"
    with HttpWire(broker.setting) as http:
        token = settled(http, lambda: exchange(broker.setting)).token
    issuer = broker.setting.issuer
    assert verified_by_pyjwt(token, broker.key_set(), issuer=issuer, audience=API)["iss"] == issuer
