"""Keys found through an issuer's metadata (OpenID Connect Discovery 4, RFC 8414 3)."""

from typing import Any

import pytest

from broker.errors import Reason, TemporarilyUnavailable
from broker.fetch import FetchReason
from broker.model import KeySource
from tests.idp import signer
from tests.issuers.scripted import World

ISSUER = "https://idp-a.test"
OPENID = f"{ISSUER}/.well-known/openid-configuration"
OAUTH = f"{ISSUER}/.well-known/oauth-authorization-server"
JWKS = f"{ISSUER}/jwks"
A1 = signer("a1")


def metadata(issuer: str = ISSUER, jwks_uri: Any = JWKS) -> dict[str, Any]:
    return {"issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": f"{issuer}/token"}


def finds_key(world: World, issuer: str = ISSUER) -> bool:
    return world.ring.key(KeySource(discovery=issuer), "a1", "ES256").kid == "a1"


def fault_of(world: World, issuer: str = ISSUER) -> str:
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        finds_key(world, issuer)
    assert unavailable.value.reason is Reason.KEY_SOURCE_UNAVAILABLE
    assert world.ring.status()[issuer].age is None
    return unavailable.value.detail


@pytest.fixture
def world() -> World:
    world = World()
    world.fetcher.publish_keys(A1.jwk, at=JWKS)
    return world


# ---- where the metadata stands


def test_the_metadata_of_openid_connect_leads_to_the_keys(world: World) -> None:
    world.fetcher.publish(metadata(), at=OPENID)

    assert finds_key(world)
    assert world.fetcher.fetched == [OPENID, JWKS]
    assert world.ring.status()[ISSUER].keys == 1


@pytest.mark.parametrize("elsewhere", [FetchReason.STATUS, FetchReason.MEDIA_TYPE])
def test_where_there_is_none_that_of_rfc_8414_does(world: World, elsewhere: FetchReason) -> None:
    world.fetcher.fail(elsewhere, at=OPENID)
    world.fetcher.publish(metadata(), at=OAUTH)

    assert finds_key(world)
    assert world.fetcher.fetched == [OPENID, OAUTH, JWKS]


@pytest.mark.parametrize("issuer", ["https://idp-a.test/realms/x", "https://idp-a.test/realms/x/"])
def test_the_path_of_an_issuer_goes_where_each_specification_puts_it(issuer: str) -> None:
    world = World()

    assert fault_of(world, issuer) == "fetch_status"
    assert world.fetcher.fetched == [
        "https://idp-a.test/realms/x/.well-known/openid-configuration",
        "https://idp-a.test/.well-known/oauth-authorization-server/realms/x",
    ]


@pytest.mark.requirement("KEY-11")
@pytest.mark.parametrize(
    "fault",
    [
        FetchReason.REDIRECT,
        FetchReason.TLS,
        FetchReason.TIMEOUT,
        FetchReason.BLOCKED,
        FetchReason.TOO_LARGE,
        FetchReason.FAILED,
    ],
)
def test_any_other_failure_is_not_tried_again_elsewhere(world: World, fault: FetchReason) -> None:
    world.fetcher.fail(fault, at=OPENID)
    world.fetcher.publish(metadata(), at=OAUTH)

    assert fault_of(world) == fault
    assert world.fetcher.fetched == [OPENID]


# ---- whose metadata it is


@pytest.mark.requirement("KEY-09")
@pytest.mark.parametrize(
    "named",
    [
        "https://idp-b.test",
        "https://idp-a.test/",
        "https://IDP-A.test",
        "http://idp-a.test",
        "https://idp-a.test:443",
        "https://idp-a.test/realms/x",
        "https://idp-a.test?x",
        "",
        None,
        ["https://idp-a.test"],
    ],
)
def test_metadata_of_another_issuer_is_refused_and_nothing_of_it_is_kept(
    world: World, named: Any
) -> None:
    world.fetcher.publish(metadata(named), at=OPENID)

    assert fault_of(world) == "issuer_mismatch"
    assert world.fetcher.fetched == [OPENID]
    world.fetcher.publish(metadata(), at=OPENID)
    world.clock.at += 30
    assert finds_key(world)


@pytest.mark.requirement("KEY-09")
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<!DOCTYPE html>",
        b"[]",
        b'"text"',
        b"null",
        b'{"issuer":"https://idp-a.test","issuer":"https://idp-b.test"}',
        b'{"issuer":"https://idp-a.test","x":' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"issuer":"https://idp-a.test","x":NaN}',
        b'\xef\xbb\xbf{"issuer":"https://idp-a.test"}',
        b'{"issuer":"https://idp-a.test\xff"}',
    ],
)
def test_metadata_that_is_not_a_strict_json_object_is_refused(
    world: World, document: bytes
) -> None:
    world.fetcher.publish(document, at=OPENID)

    assert fault_of(world) == "discovery_invalid"
    assert world.fetcher.fetched == [OPENID]


# ---- where the keys may be


@pytest.mark.requirement("KEY-10")
@pytest.mark.requirement("NET-10")
@pytest.mark.parametrize(
    "jwks_uri",
    [
        "https://evil.test/jwks",
        "https://idp-a.test.evil.test/jwks",
        "https://sub.idp-a.test/jwks",
        "https://idp-a.test:8443/jwks",
        "https://idp-a.test@evil.test/jwks",
        "https://idp-a.test\\@evil.test/jwks",
        "http://idp-a.test/jwks",
        "https://169.254.169.254/latest",
        "https://2130706433/jwks",
        "https://localhost/jwks",
        "file:///etc/passwd",
        "/jwks",
        "jwks",
        "",
        None,
        1,
        ["https://idp-a.test/jwks"],
    ],
)
def test_a_jwks_uri_away_from_the_issuer_is_refused_unfetched(world: World, jwks_uri: Any) -> None:
    world.fetcher.publish(metadata(jwks_uri=jwks_uri), at=OPENID)

    assert fault_of(world) == "jwks_uri_refused"
    assert world.fetcher.fetched == [OPENID]


@pytest.mark.requirement("NET-10")
def test_of_the_metadata_only_the_jwks_uri_is_ever_fetched(world: World) -> None:
    bait = dict.fromkeys(
        ("logo_uri", "policy_uri", "tos_uri", "op_policy_uri", "sector_identifier_uri"),
        "https://169.254.169.254/",
    )
    world.fetcher.publish({**metadata(), **bait, "request_uris": ["https://evil.test/"]}, at=OPENID)

    assert finds_key(world)
    assert world.fetcher.fetched == [OPENID, JWKS]


@pytest.mark.requirement("KEY-10")
@pytest.mark.parametrize("jwks_uri", ["https://keys.test/v1", "https://keys.test:8443/v1"])
def test_keys_may_be_at_a_host_that_the_operator_declared(jwks_uri: str) -> None:
    world = World()
    issuer = "https://split.test"
    world.fetcher.publish(
        metadata(issuer, jwks_uri), at=f"{issuer}/.well-known/openid-configuration"
    )
    world.fetcher.publish_keys(A1.jwk, at=jwks_uri)

    assert finds_key(world, issuer)


@pytest.mark.requirement("KEY-10")
@pytest.mark.parametrize(
    "jwks_uri", ["http://keys.test/v1", "https://keys.test:9443/v1", "https://evil.test/v1"]
)
def test_a_declared_host_opens_no_other_door(jwks_uri: str) -> None:
    world = World()
    issuer = "https://split.test"
    world.fetcher.publish(
        metadata(issuer, jwks_uri), at=f"{issuer}/.well-known/openid-configuration"
    )

    assert fault_of(world, issuer) == "jwks_uri_refused"


def test_a_host_declared_for_one_issuer_is_none_of_another(world: World) -> None:
    world.fetcher.publish(metadata(jwks_uri="https://keys.test/v1"), at=OPENID)

    assert fault_of(world) == "jwks_uri_refused"


@pytest.mark.parametrize(
    ("issuer", "fault"),
    [
        ("https://idp-a.test?tenant=1", "fetch_url"),
        ("https://idp-a.test#x", "fetch_url"),
        ("https://user@idp-a.test", "fetch_url"),
        ("https://0x7f.1", "fetch_blocked"),
        ("idp-a.test", "fetch_url"),
    ],
)
def test_an_issuer_that_is_no_plain_url_is_never_looked_for(issuer: str, fault: str) -> None:
    world = World()

    assert fault_of(world, issuer) == fault
    assert world.fetcher.fetched == []


# ---- how long it is remembered


def test_the_address_found_is_used_again_for_an_hour(world: World) -> None:
    world.fetcher.publish(metadata(), at=OPENID)
    for _ in range(60):
        assert finds_key(world)
        world.clock.at += 60

    assert world.fetcher.fetched.count(OPENID) == 1
    assert finds_key(world)
    assert world.fetcher.fetched.count(OPENID) == 2


def test_an_address_that_fails_is_looked_up_again(world: World) -> None:
    world.fetcher.publish(metadata(), at=OPENID)
    assert finds_key(world)
    world.fetcher.fail(FetchReason.STATUS, at=JWKS)
    world.fetcher.publish(metadata(jwks_uri=f"{ISSUER}/moved"), at=OPENID)
    world.fetcher.publish_keys(A1.jwk, signer("a2").jwk, at=f"{ISSUER}/moved")
    world.clock.at += 48
    world.ring.refresh_due()
    assert world.ring.status()[ISSUER].last_error == "fetch_status"

    world.clock.at += 30
    world.ring.refresh_due()

    assert world.ring.status()[ISSUER].keys == 2


@pytest.mark.requirement("KEY-10")
def test_keys_that_move_away_from_the_issuer_leave_the_last_good_set_in_use(world: World) -> None:
    world.fetcher.publish(metadata(), at=OPENID)
    assert finds_key(world)
    world.fetcher.fail(FetchReason.STATUS, at=JWKS)
    world.fetcher.publish(metadata(jwks_uri="https://evil.test/jwks"), at=OPENID)

    for _ in range(3):
        world.clock.at += 60
        world.ring.refresh_due()

    assert world.ring.status()[ISSUER].last_error == "jwks_uri_refused"
    assert finds_key(world)
    assert "https://evil.test/jwks" not in world.fetcher.fetched
