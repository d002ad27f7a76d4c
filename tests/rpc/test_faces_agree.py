"""Equal requests make equal token requests, whichever face they come through."""

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidRequest
from broker.model import TokenRequest
from broker.oauth import (
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_JWT,
)
from broker.rpc.call import CallMetadata
from broker.rpc.token_service import read_exchange
from broker.rpc.token_types import token_type_number
from broker.v1.token_pb2 import ClientAuthentication
from broker.v1.token_service_pb2 import ExchangeTokenRequest
from broker.web.requests import read_token_request, take_body
from tests.web.face_fakes import wsgi_environ

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SIZES = st.sampled_from(["", "a", "a" * 4_096, "a" * 4_097])
TOKEN = TEXT | SIZES
TYPE = st.sampled_from(["", TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT, TOKEN_TYPE_ID_JAG])
SCOPE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" "), max_size=6)
AUTHORIZATION = st.lists(
    st.text("abcABC012+/= ", max_size=12).map(lambda text: f"Basic {text}".strip()), max_size=2
)
PARAMETERS = st.fixed_dictionaries(
    {
        "subject_token": TOKEN,
        "subject_token_type": TYPE,
        "actor_token": TOKEN,
        "actor_token_type": TYPE,
        "requested_token_type": TYPE,
        "client_id": TEXT | SIZES,
        "client_secret": TEXT,
        "client_assertion": TOKEN,
        "client_assertion_type": TEXT,
        "resource": st.lists(TEXT | SIZES, max_size=3),
        "audience": st.lists(TEXT, max_size=3),
        "scope": st.lists(SCOPE, max_size=4),
    }
)


def over_http(parameters: dict[str, Any], authorization: list[str]) -> TokenRequest:
    form = [("grant_type", GRANT_TOKEN_EXCHANGE)]
    for name, value in parameters.items():
        if name == "scope":
            form.append((name, " ".join(value)))
        elif isinstance(value, list):
            form.extend((name, one) for one in value)
        else:
            form.append((name, value))
    body = urlencode(form).encode()
    headers = {"HTTP_AUTHORIZATION": ",".join(authorization)} if authorization else {}
    environ = wsgi_environ("POST", "/token", body, headers)
    return read_token_request(environ, take_body(environ, 1 << 20))


def over_grpc(parameters: dict[str, Any], authorization: list[str]) -> TokenRequest:
    credential = {
        name: parameters[name]
        for name in ("client_id", "client_secret", "client_assertion", "client_assertion_type")
    }
    sent = ExchangeTokenRequest(
        subject_token=parameters["subject_token"],
        subject_token_type=token_type_number(parameters["subject_token_type"]),
        actor_token=parameters["actor_token"],
        actor_token_type=token_type_number(parameters["actor_token_type"]),
        resources=parameters["resource"],
        audiences=parameters["audience"],
        scopes=parameters["scope"],
        requested_token_type=token_type_number(parameters["requested_token_type"]),
        client_authentication=ClientAuthentication(**credential),
    )
    message = ExchangeTokenRequest.FromString(sent.SerializeToString())
    metadata = CallMetadata.read([("authorization", value) for value in authorization])
    return read_exchange(message, metadata)


def outcome(read: Any, *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except InvalidRequest as refused:
        # Which of several oversized parameters is named is nothing to rely on.
        return refused.reason


@pytest.mark.requirement("GRP-13")
@given(PARAMETERS, AUTHORIZATION)
def test_equal_requests_are_read_as_equal(
    parameters: dict[str, Any], authorization: list[str]
) -> None:
    assert outcome(over_http, parameters, authorization) == outcome(
        over_grpc, parameters, authorization
    )


@pytest.mark.requirement("GRP-13")
@pytest.mark.parametrize("token", ["a" * 32_768, "a" * 32_769])
@pytest.mark.parametrize("name", ["subject_token", "actor_token", "client_assertion"])
def test_both_faces_draw_the_same_line(name: str, token: str) -> None:
    parameters: dict[str, Any] = {
        "subject_token": "",
        "subject_token_type": "",
        "actor_token": "",
        "actor_token_type": "",
        "requested_token_type": "",
        "client_id": "",
        "client_secret": "",
        "client_assertion": "",
        "client_assertion_type": "",
        "resource": [],
        "audience": [],
        "scope": [],
        name: token,
    }
    assert outcome(over_http, parameters, []) == outcome(over_grpc, parameters, [])
