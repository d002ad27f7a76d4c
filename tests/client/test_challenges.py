"""What a resource tells of itself, and what it answers to those it does not serve."""

from typing import Any

import pytest

from broker.client.delegation import Login
from broker.client.refusals import (
    InsufficientLogin,
    InsufficientScope,
    InvalidProof,
    InvalidToken,
    NoToken,
    NotServed,
    Unverifiable,
)
from broker.client.resource import (
    ResourceMetadata,
    challenge,
    metadata_path,
    metadata_url,
    origin_of,
)
from broker.client.verify import TokenVerifier
from broker.errors import Reason
from tests.client.receiving import NOW, a_delegation

API = "https://api.crm.example/v2"
METADATA = "https://api.crm.example/.well-known/oauth-protected-resource/v2"


@pytest.mark.requirement("MCPRS-03")
@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (API, METADATA),
        ("https://api.crm.example", "https://api.crm.example/.well-known/oauth-protected-resource"),
        (
            "https://api.crm.example/",
            "https://api.crm.example/.well-known/oauth-protected-resource",
        ),
        (
            "https://api.crm.example/v2/",
            "https://api.crm.example/.well-known/oauth-protected-resource/v2/",
        ),
        (
            "https://api.crm.example/v2?tenant=a",
            "https://api.crm.example/.well-known/oauth-protected-resource/v2?tenant=a",
        ),
        (
            "http://[::1]:8080/mcp",
            "http://[::1]:8080/.well-known/oauth-protected-resource/mcp",
        ),
    ],
)
def test_the_metadata_stands_between_host_and_path(resource: str, expected: str) -> None:
    assert metadata_url(resource) == expected
    assert metadata_url(resource) == origin_of(resource) + metadata_path(resource)


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "crm",
        "urn:example:crm",
        "ftp://api.crm.example",
        "https://",
        "https://ann@api.crm.example/v2",
        "https://api.crm.example/v2#top",
        'https://api.crm.example/"',
        "https://api.crm.example/v2\r\nX: y",
        "https://api.crm.example\\evil",
    ],
)
def test_what_is_no_plain_url_has_no_metadata(resource: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        metadata_url(resource)


@pytest.mark.requirement("MCPRS-03")
def test_the_metadata_tell_where_tokens_come_from() -> None:
    verifier = TokenVerifier("https://broker.example/acme", API, required_scopes=("crm:read",))

    document = verifier.metadata(scopes=("crm:write",), name="CRM").document()

    assert document == {
        "resource": API,
        "authorization_servers": ["https://broker.example/acme"],
        "scopes_supported": ["crm:read", "crm:write"],
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"],
        "resource_name": "CRM",
    }


def test_metadata_leave_out_what_there_is_nothing_to_say_about() -> None:
    document = ResourceMetadata(API, ["https://broker.example"]).document()

    assert set(document) == {"resource", "authorization_servers", "bearer_methods_supported"}


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "a\r\nSet-Cookie: x", "é", "\x00"])
def test_no_challenge_can_be_broken_out_of(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be quoted"):
        challenge("Bearer", scope=value)


def test_a_challenge_leaves_out_what_has_no_value() -> None:
    assert challenge("Bearer", error=None, scope="") == "Bearer"


@pytest.mark.requirement("STEP-01", "STEP-05", "STEP-08", "MCPRS-04")
@pytest.mark.parametrize(
    ("refused", "status", "expected"),
    [
        (
            NoToken(API, ["crm:write", "crm:read"]),
            401,
            f'Bearer scope="crm:read crm:write", resource_metadata="{METADATA}"',
        ),
        (
            InvalidToken(Reason.TOKEN_EXPIRED, API, scopes=["crm:read"]),
            401,
            (
                'Bearer error="invalid_token", error_description="The token has expired.", '
                f'scope="crm:read", resource_metadata="{METADATA}"'
            ),
        ),
        (
            InvalidToken(Reason.POP_REQUIRED, API),
            401,
            (
                'DPoP error="invalid_token", '
                'error_description="The token is bound to a key; proof of that key is required.", '
                f'algs="ES256 RS256 PS256 EdDSA Ed25519", resource_metadata="{METADATA}"'
            ),
        ),
        (
            InvalidProof(Reason.POP_HTU, API),
            401,
            (
                'DPoP error="invalid_dpop_proof", '
                'error_description="The DPoP proof is for another address.", '
                f'algs="ES256 RS256 PS256 EdDSA Ed25519", resource_metadata="{METADATA}"'
            ),
        ),
        (
            InsufficientScope(API, needed=["crm:read", "crm:write"], missing=["crm:write"]),
            403,
            (
                'Bearer error="insufficient_scope", '
                'error_description="The token does not have the scopes that this needs.", '
                f'scope="crm:read crm:write", resource_metadata="{METADATA}"'
            ),
        ),
        (
            InsufficientLogin(API, acr_values=["phr", "phrh"], max_age=300),
            401,
            (
                'Bearer error="insufficient_user_authentication", '
                'error_description="A stronger or fresher login of the user is required.", '
                f'acr_values="phr phrh", max_age="300", resource_metadata="{METADATA}"'
            ),
        ),
        (Unverifiable("The keys cannot be had.", retry_after=7), 503, ""),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_refusal_has_its_answer_ready(refused: NotServed, status: int, expected: str) -> None:
    assert refused.status == status
    assert refused.www_authenticate == expected


@pytest.mark.parametrize("reason", list(Reason), ids=lambda one: one.code)
def test_every_reason_can_stand_in_a_challenge(reason: Reason) -> None:
    assert reason.sentence in InvalidToken(reason, API).www_authenticate


def test_the_scopes_of_an_operation_may_be_asked_for_later() -> None:
    a_delegation().require_scopes("crm:read")
    a_delegation().require_scopes()
    with pytest.raises(InsufficientScope) as refused:
        a_delegation().require_scopes("crm:read", "crm:write")

    assert refused.value.needed == {"crm:read", "crm:write"}
    assert refused.value.missing == {"crm:write"}


@pytest.mark.requirement("STEP-01", "STEP-02")
@pytest.mark.parametrize(
    ("acr_values", "max_age"), [((), None), (("phr",), None), (("x", "phr"), 600), ((), 600)]
)
def test_a_login_that_is_strong_and_fresh_is_enough(
    acr_values: tuple[str, ...], max_age: int | None
) -> None:
    a_delegation().require_login(acr_values=acr_values, max_age=max_age, clock=lambda: NOW)


@pytest.mark.requirement("STEP-01", "STEP-02")
@pytest.mark.parametrize(
    ("changes", "acr_values", "max_age"),
    [
        ({}, ("phrh",), None),
        ({}, (), 599),
        ({}, ("phrh",), 599),
        ({}, ("phr",), 0),
        ({"login": Login()}, ("phr",), None),
        ({"login": Login()}, (), 600),
        ({"person": None}, (), None),
    ],
)
def test_a_login_that_is_weak_old_or_unknown_is_not_enough(
    changes: dict[str, Any], acr_values: tuple[str, ...], max_age: int | None
) -> None:
    one = a_delegation(**changes)

    with pytest.raises(InsufficientLogin) as refused:
        one.require_login(acr_values=acr_values, max_age=max_age, clock=lambda: NOW)

    assert (refused.value.acr_values, refused.value.max_age) == (acr_values, max_age)


def test_a_delegation_shows_neither_its_token_nor_its_claims() -> None:
    assert "secret" not in repr(a_delegation(claims={"note": "secret"}, token="secret"))
