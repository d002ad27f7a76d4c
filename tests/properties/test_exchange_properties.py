"""What holds for every exchange, however requests are made up."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import OAuthError, Reason, TokenRejected
from broker.interfaces import PolicyEngine
from broker.jws import read_token
from broker.model import ClientCredential, IssuedToken, TokenRequest
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, TYP_ACCESS_TOKEN
from tests.harness import Broker, Face, GrpcFace, HttpFace
from tests.idp import encode, signer
from tests.world import (
    API,
    CLOSED,
    IDP_A,
    ISS,
    NOW,
    RES_1,
    RES_2,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    good_access_token,
    good_access_token_claims,
    good_id_token,
)

MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, policy: PolicyEngine) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), cast=Cast(), policy=policy)
    yield made
    made.close()


@pytest.fixture(scope="module")
def faces(broker: Broker) -> Iterator[tuple[Face, Face]]:
    grpc = GrpcFace(broker)
    yield HttpFace(broker), grpc
    grpc.close()


SCOPE_NAMES = ["a:read", "b:read", "b:write", "b:admin", "no:such"]
scopes = st.none() | st.lists(st.sampled_from(SCOPE_NAMES), min_size=1, unique=True).map(" ".join)
hops = st.lists(
    st.tuples(st.sampled_from(["agent-x", "mcp1-srv", "mcp2-srv"]), scopes), min_size=1, max_size=6
)


@pytest.mark.requirement("TEX-13", "TX-21", "TX-24", "std:ACT-06", "IDJAG-R-11")
@MANY
@given(
    lifetime=st.integers(1, 900),
    carried=st.lists(st.sampled_from(SCOPE_NAMES[:4]), unique=True).map(" ".join),
    hops=hops,
    resources=st.lists(st.sampled_from([RES_1, RES_2, API, CLOSED]), min_size=6, max_size=6),
)
def test_no_chain_of_exchanges_gains_anything(
    broker: Broker, lifetime: int, carried: str, hops: Any, resources: list[str]
) -> None:
    """Scopes come from those carried, lives never lengthen, chains grow at their head alone."""
    face = HttpFace(broker)
    token = good_access_token(exp=NOW + lifetime, scope=carried or None)
    before = {"exp": NOW + lifetime, "act": None, "sub": "u1"}
    derivable = {"a:read": "a:read", "b:read": "b:read", "b:admin": "b:admin", "b:write": "b:read"}
    for (client, scope), resource in zip(hops, resources, strict=False):
        parameters = exchange_parameters(token, resource=resource, scope=scope)
        answer = face.exchange(parameters | by_assertion(client))
        if not answer.is_granted:
            continue
        claims = answer.claims
        assert claims["exp"] <= before["exp"]
        assert claims["sub"] == before["sub"]
        assert claims["aud"] == resource
        granted = set(claims["scope"].split())
        assert all(derivable[one] in carried.split() or one in carried.split() for one in granted)
        act = claims["act"]
        assert before["act"] in (act, act.get("act"))
        token, carried, before = answer.token, claims["scope"], {**before, **claims}


texts = st.text(max_size=30) | st.sampled_from(
    [API, RES_1, CLOSED, "", "x", TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_TOKEN, "b:read"]
)
printable = texts.filter(
    # What no gRPC string can carry, and what HTTP counts as omitted, has no equal on the other side.
    lambda text: "\x00" not in text and not any("\ud800" <= one <= "\udfff" for one in text)
)


@pytest.mark.requirement("GRP-13", "OPS-04", "POL-06")
@MANY
@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "subject_token": printable,
            "actor_token": printable,
            "resource": printable,
            "audience": printable,
            "scope": st.lists(printable.filter(lambda one: one and " " not in one), min_size=1).map(
                " ".join
            ),
            "client_id": printable,
            "client_assertion": printable,
            "client_assertion_type": printable,
        },
    )
)
def test_both_faces_give_the_same_verdict(
    broker: Broker, faces: tuple[Face, Face], changes: dict[str, str]
) -> None:
    answers, reasons = [], []
    for face in faces:
        parameters: Parameters = {
            **exchange_parameters(good_access_token()),
            **by_assertion("mcp1-srv"),
            **changes,
        }
        before = len(broker.records())
        answers.append(face.exchange(parameters))
        records = broker.records()[before:]
        assert len(records) == 1
        reasons.append((records[0]["decision"], records[0].get("reason")))
    http, grpc = answers
    assert (http.error, http.description) == (grpc.error, grpc.description), reasons
    assert reasons[0] == reasons[1]
    # What is made up may by chance be a part of our own fixed words.
    said_besides = http.everything.replace(http.description, "").replace(http.error, "")
    for text in changes.values():
        if len(text) > 8 and not text.startswith(("http", "urn:")):
            assert text not in said_besides


@pytest.mark.requirement("CA-13", "HTP-11")
def test_every_sentence_is_fit_for_an_error_description() -> None:
    """RFC 6749 5.2 allows neither quotes nor backslashes nor anything beyond ASCII."""
    for reason in Reason:
        assert re.fullmatch(r"[\x20-\x21\x23-\x5B\x5D-\x7E]+", reason.sentence), reason
        assert reason.sentence.endswith(".")


def test_every_error_class_has_its_own_answer() -> None:
    def classes(one: type[OAuthError]) -> Iterator[type[OAuthError]]:
        yield one
        for below in one.__subclasses__():
            yield from classes(below)

    for one in classes(OAuthError):
        assert re.fullmatch(r"[a-z_]+", one.error)
        assert 400 <= one.http_status < 600
        assert re.fullmatch(r"[A-Z_]+", one.grpc_status)


@pytest.mark.requirement("LOG-01", "OPS-03")
def test_no_noun_shows_a_token_or_a_secret() -> None:
    secret = "canary-" + "x" * 20
    credential = ClientCredential((secret,), "c", secret, secret, "t")
    request = TokenRequest(
        "g",
        credential,
        subject_token=secret,
        actor_token=secret,
        assertion=secret,
        proofs=(secret,),
    )
    issued = IssuedToken(secret, "t", "Bearer", 1, (), "r", {"sub": secret})
    for noun in (credential, request, issued):
        assert secret not in repr(noun)


claims_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.requirement("JWT-08", "JWT-10")
@MANY
@given(claims=st.dictionaries(st.text(max_size=8), claims_json, max_size=6))
def test_whatever_we_read_another_library_reads_the_same(claims: dict[str, Any]) -> None:
    token = signer("a1").sign(claims, typ="JWT")
    read = read_token(token)
    options: Any = {"verify_exp": False, "verify_aud": False, "verify_iat": False}
    options |= dict.fromkeys(("verify_nbf", "verify_sub", "verify_jti", "verify_iss"), False)
    decoded = jwt.decode(token, json_key(), algorithms=["ES256"], options=options)
    assert read.unverified_claims == decoded
    assert read.header.unverified_kid == "a1"


def json_key() -> Any:
    return signer("a1").private_key.public_key()


@pytest.mark.requirement("JWT-08", "CLM-01", "CLM-10")
@MANY
@given(header=st.binary(max_size=60), payload=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(header: bytes, payload: bytes) -> None:
    token = b".".join([encode(header), encode(payload), encode(b"x" * 64)]).decode()
    try:
        read = read_token(token)
    except TokenRejected:
        return
    assert isinstance(read.unverified_claims, dict)
    json.dumps(read.unverified_claims, allow_nan=False).encode()


@pytest.mark.requirement("IDJAG-I-09", "JWS-18")
def test_an_issued_token_is_accepted_in_its_own_slot_alone(faces: tuple[Face, Face]) -> None:
    """What the broker mints is an access token and cannot be taken for anything else."""
    issued = faces[0].exchange(
        exchange_parameters(
            good_id_token(), subject_token_type=TOKEN_TYPE_ID_TOKEN, resource=RES_1, scope=None
        )
        | by_assertion("agent-x")
    )
    header = json.loads(jwt.utils.base64url_decode(issued.token.split(".")[0]))
    assert header["typ"] == TYP_ACCESS_TOKEN
    assert issued.claims["iss"] == ISS
    as_assertion = exchange_parameters(good_access_token()) | by_assertion("mcp1-srv")
    as_assertion["client_assertion"] = issued.token
    as_identity = exchange_parameters(issued.token, subject_token_type=TOKEN_TYPE_ID_TOKEN)
    for face in faces:
        assert face.exchange(as_assertion).error == "invalid_client"
        assert face.exchange(as_identity | by_assertion("mcp1-srv")).error == "invalid_request"
    assert good_access_token_claims()["iss"] == IDP_A
