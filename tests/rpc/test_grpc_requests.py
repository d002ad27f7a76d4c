import pytest

from broker.errors import InvalidRequest, Reason
from broker.model import ClientCredential, TokenRequest
from broker.oauth import (
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    TOKEN_TYPE_REFRESH_TOKEN,
    TOKEN_TYPE_SAML1,
    TOKEN_TYPE_SAML2,
)
from broker.rpc.call import CallMetadata, peer_address
from broker.rpc.server import _proof_origin
from broker.rpc.token_service import read_exchange
from broker.rpc.token_types import token_type_number, token_type_uri
from broker.v1 import token_pb2
from broker.v1.token_pb2 import ClientAuthentication
from broker.v1.token_service_pb2 import ExchangeTokenRequest

NOTHING = CallMetadata()


def test_a_message_becomes_a_token_request() -> None:
    message = ExchangeTokenRequest(
        subject_token="s.s.s",
        subject_token_type=token_pb2.TOKEN_TYPE_ACCESS_TOKEN,
        actor_token="a.a.a",
        actor_token_type=token_pb2.TOKEN_TYPE_JWT,
        resources=["https://one.test", "https://two.test"],
        audiences=["crm"],
        scopes=["b:read", "b:write"],
        requested_token_type=token_pb2.TOKEN_TYPE_ID_JAG,
        client_authentication=ClientAuthentication(
            client_id="c",
            client_secret="s",
            client_assertion="c.c.c",
            client_assertion_type="urn:j",
        ),
    )
    metadata = CallMetadata.read([("authorization", "Basic dTpw"), ("user-agent", "x")])
    assert read_exchange(message, metadata) == TokenRequest(
        grant_type=GRANT_TOKEN_EXCHANGE,
        credential=ClientCredential(
            unverified_authorization=("Basic dTpw",),
            client_id="c",
            client_secret="s",
            client_assertion="c.c.c",
            client_assertion_type="urn:j",
        ),
        subject_token="s.s.s",
        subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        actor_token="a.a.a",
        actor_token_type=TOKEN_TYPE_JWT,
        resources=("https://one.test", "https://two.test"),
        audiences=("crm",),
        scopes=("b:read", "b:write"),
        requested_token_type=TOKEN_TYPE_ID_JAG,
        present=frozenset(
            {
                "grant_type",
                "subject_token",
                "subject_token_type",
                "actor_token",
                "actor_token_type",
                "resource",
                "audience",
                "scope",
                "requested_token_type",
                "client_id",
                "client_secret",
                "client_assertion",
                "client_assertion_type",
            }
        ),
    )


@pytest.mark.requirement("TEX-02")
@pytest.mark.parametrize(
    "message",
    [
        ExchangeTokenRequest(),
        ExchangeTokenRequest(client_authentication=ClientAuthentication()),
        ExchangeTokenRequest(resources=["", ""], audiences=[""], scopes=[""]),
        ExchangeTokenRequest.FromString(b"\xf8\x07\x01"),
    ],
)
def test_what_is_empty_counts_as_omitted(message: ExchangeTokenRequest) -> None:
    assert read_exchange(message, NOTHING) == TokenRequest(
        grant_type=GRANT_TOKEN_EXCHANGE,
        credential=ClientCredential(),
        present=frozenset({"grant_type"}),
    )


@pytest.mark.parametrize("scopes", [["a", ""], ["", ""], ["a b"], ["a", "a"]])
def test_odd_scopes_are_the_cores_to_refuse(scopes: list[str]) -> None:
    message = ExchangeTokenRequest(scopes=scopes)
    assert read_exchange(message, NOTHING).scopes == tuple(scopes)


@pytest.mark.parametrize(
    ("number", "uri"),
    [
        (token_pb2.TOKEN_TYPE_UNSPECIFIED, None),
        (token_pb2.TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ACCESS_TOKEN),
        (token_pb2.TOKEN_TYPE_REFRESH_TOKEN, TOKEN_TYPE_REFRESH_TOKEN),
        (token_pb2.TOKEN_TYPE_ID_TOKEN, TOKEN_TYPE_ID_TOKEN),
        (token_pb2.TOKEN_TYPE_SAML1, TOKEN_TYPE_SAML1),
        (token_pb2.TOKEN_TYPE_SAML2, TOKEN_TYPE_SAML2),
        (token_pb2.TOKEN_TYPE_JWT, TOKEN_TYPE_JWT),
        (token_pb2.TOKEN_TYPE_ID_JAG, TOKEN_TYPE_ID_JAG),
    ],
)
def test_every_enumerated_type_has_its_uri(
    number: token_pb2.TokenType.ValueType, uri: str | None
) -> None:
    assert token_type_uri(number) == uri
    assert token_type_number(uri or "") == number


def test_no_enumerated_type_was_forgotten() -> None:
    uris = {token_type_uri(number) for number in token_pb2.TokenType.values()}
    assert len(uris) == len(token_pb2.TokenType.values())
    assert not any("unknown" in uri for uri in uris if uri)


@pytest.mark.requirement("GRP-10")
@pytest.mark.parametrize("number", [8, 99, -1, 2**31 - 1])
def test_an_unknown_type_is_one_that_nobody_supports(number: int) -> None:
    message = ExchangeTokenRequest.FromString(
        ExchangeTokenRequest(subject_token_type=number).SerializeToString()  # type: ignore[arg-type] # As an attacker would.
    )
    request = read_exchange(message, NOTHING)
    assert request.subject_token_type == f"urn:broker:unknown-token-type:{number}"
    assert "subject_token_type" in request.present


@pytest.mark.requirement("GRP-02")
def test_every_authorization_value_reaches_the_core() -> None:
    metadata = CallMetadata.read([("authorization", "Basic a"), ("authorization", "Basic b")])
    credential = read_exchange(ExchangeTokenRequest(), metadata).credential
    assert credential.unverified_authorization == ("Basic a", "Basic b")


@pytest.mark.requirement("GRP-02", "DPOP-01", "DPOP-11")
def test_every_proof_reaches_the_core_with_the_address_it_must_be_for() -> None:
    sent: list[tuple[str, str | bytes]] = [
        ("dpop", "a.b.c"),
        ("dpop", ""),
        ("dpop-bin", b"x"),
    ]
    metadata = CallMetadata.read(sent, proof_target="https://sts.test:*/s/M")
    request = read_exchange(ExchangeTokenRequest(), metadata)
    assert request.proofs == ("a.b.c", "")
    assert request.proof_target == "https://sts.test:*/s/M"


@pytest.mark.requirement("DPOP-11")
@pytest.mark.parametrize(
    ("issuer", "origin"),
    [
        ("https://sts.test", "https://sts.test:*"),
        ("https://STS.test:8443/tenant", "https://sts.test:*"),
        ("http://127.0.0.1:8080", "https://127.0.0.1:*"),
        ("https://[::1]:8443", "https://[::1]:*"),
    ],
)
def test_the_address_of_a_call_lies_at_the_issuers_host(issuer: str, origin: str) -> None:
    assert _proof_origin(issuer) == origin


def test_a_client_assertion_may_come_as_metadata() -> None:
    metadata = CallMetadata.read(
        [("client-assertion", "c.c.c"), ("client-assertion-type", "urn:j")]
    )
    request = read_exchange(ExchangeTokenRequest(), metadata)
    assert request.credential.client_assertion == "c.c.c"
    assert request.credential.client_assertion_type == "urn:j"
    assert {"client_assertion", "client_assertion_type"} <= request.present


@pytest.mark.requirement("CAU-02")
@pytest.mark.parametrize(
    ("in_message", "in_metadata"),
    [
        (
            ClientAuthentication(client_assertion="c.c.c"),
            [("client-assertion", "d.d.d")],
        ),
        (
            ClientAuthentication(client_assertion="c.c.c"),
            [("client-assertion", "c.c.c")],
        ),
        (
            ClientAuthentication(client_assertion_type="urn:j"),
            [("client-assertion-type", "urn:j")],
        ),
        (None, [("client-assertion", "c.c.c"), ("client-assertion", "c.c.c")]),
    ],
)
def test_two_assertions_are_two_credentials(
    in_message: ClientAuthentication | None, in_metadata: list[tuple[str, str | bytes]]
) -> None:
    message = ExchangeTokenRequest(client_authentication=in_message)
    with pytest.raises(InvalidRequest) as refused:
        read_exchange(message, CallMetadata.read(in_metadata))
    assert refused.value.reason is Reason.MULTIPLE_CLIENT_AUTH


@pytest.mark.requirement("GRP-03")
def test_metadata_that_claims_to_know_the_caller_is_ignored() -> None:
    metadata = CallMetadata.read(
        [
            ("x-forwarded-user", "root"),
            ("x-client-id", "agent-x"),
            ("x-spiffe-id", "spiffe://x"),
            ("x-forwarded-for", "127.0.0.1"),
            ("client-id", "agent-x"),
            ("client-secret", "s"),
            ("authorization-bin", b"Basic dTpw"),
            ("grpc-authorization", "x"),
        ]
    )
    assert metadata == NOTHING


@pytest.mark.parametrize(
    ("name", "message", "longest"),
    [
        ("subject_token", ExchangeTokenRequest(subject_token="a" * 32_769), 32_768),
        ("actor_token", ExchangeTokenRequest(actor_token="a" * 32_769), 32_768),
        *(
            (name, ExchangeTokenRequest(client_authentication={name: "a" * (size + 1)}), size)  # type: ignore[arg-type] # A mapping is a message too.
            for name, size in (
                ("client_id", 4_096),
                ("client_secret", 32_768),
                ("client_assertion", 32_768),
                ("client_assertion_type", 4_096),
            )
        ),
    ],
)
def test_a_field_is_bounded_as_the_parameter_is(
    name: str, message: ExchangeTokenRequest, longest: int
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_exchange(message, NOTHING)
    assert refused.value.reason is Reason.PARAM_TOO_LARGE
    assert refused.value.parameter == name
    assert longest in {4_096, 32_768}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:50051", "192.0.2.7"),
        ("ipv6:%5B2001:db8::1%5D:50051", "2001:db8::1"),
        ("ipv6:[::1]:50051", "::1"),
        ("unix:/run/broker.sock", ""),
        ("", ""),
    ],
)
def test_the_peer_is_named_by_its_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address


def test_no_credential_is_in_a_repr() -> None:
    metadata = CallMetadata.read(
        [("authorization", "Basic canary"), ("client-assertion", "canary")]
    )
    assert "canary" not in repr(metadata)
