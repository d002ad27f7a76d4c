"""Two brokers that share nothing: one asserts its users, the other trusts it by its published keys."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
import urllib3

from broker.oauth import GRANT_JWT_BEARER, TYP_ID_JAG
from tests.e2e.asserting import (
    DESK_AT_WIKI,
    PAGES,
    WIKI,
    ask_for_assertion,
    redeem,
    server_entry,
    wiki_setting,
)
from tests.e2e.running import RunningBroker
from tests.e2e.setting import DESK, IDP, Setting, assertion, by_assertion, idp_key, new_setting
from tests.e2e.wires import settled, wire
from tests.harness import Answer, decode_claims, decode_header
from tests.world import Parameters

FACES = ("http", "grpc")


@dataclass
class Pair:
    """The broker at home, which asserts, and the wiki's, which redeems."""

    home: RunningBroker
    wiki: RunningBroker

    def assert_user(self, face: str, **identity: Any) -> Answer:
        """What the broker at home answers to its agent."""
        with wire(face, self.home.setting) as connected:
            return settled(
                connected,
                lambda: ask_for_assertion(self.home.setting, self.wiki.setting, **identity),
            )

    def redeem(self, face: str, token: str) -> Answer:
        """What the wiki's broker answers to the agent."""
        with wire(face, self.wiki.setting) as connected:
            return settled(connected, lambda: redeem(self.wiki.setting, token))


def two_settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, Setting]:
    """
    Both know each other's issuer and nothing else, least of all a key.

    The issuer of the users has several tenants, and so has in turn the broker that asserts them.
    """
    wiki = wiki_setting(tmp_path_factory.mktemp("wiki"), {})
    home = new_setting(
        tmp_path_factory.mktemp("home"),
        issuers=[
            {
                "issuer": IDP,
                "purposes": ["user"],
                "algorithms": ["ES256"],
                "jwks": idp_key().jwks,
                "multi_tenant": True,
            }
        ],
        authorization_servers=[server_entry(wiki)],
    )
    home.document["clients"][0]["grants"] = ["token_exchange", "jwt_bearer"]
    trusted = {
        "issuer": home.issuer,
        "purposes": ["id_jag"],
        "algorithms": ["ES256"],
        "discovery": True,
        "multi_tenant": True,
        "subject_prefix": "home|",
    }
    return home, wiki.with_document(issuers=[trusted])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both brokers, ready; the second looks for the keys of the first as soon as it starts."""
    with ExitStack() as closing:
        running = []
        for setting in two_settings(tmp_path_factory):
            running.append(RunningBroker(setting))
            closing.callback(running[-1].close)
            running[-1].wait_until_ready()
        yield Pair(*running)


def key_ids(setting: Setting) -> set[str]:
    """The ids of the keys that a broker publishes."""
    found = urllib3.PoolManager(retries=False, timeout=5).request("GET", setting.origin + "/jwks")
    return {key["kid"] for key in found.json()["keys"]}


@pytest.mark.requirement("IDJAG-I-01", "IDJAG-R-01", "IDJAG-R-03", "IDJAG-I-11", "IDJAG-I-24")
@pytest.mark.parametrize(("asserting", "redeeming"), [FACES, FACES[::-1]])
def test_an_assertion_of_one_broker_becomes_a_token_of_the_other(
    pair: Pair, asserting: str, redeeming: str
) -> None:
    home, wiki = pair.home.setting, pair.wiki.setting
    asserted = pair.assert_user(asserting, tenant="acme")
    header = decode_header(asserted.token)
    assert header["typ"] == TYP_ID_JAG
    assert header["kid"] in key_ids(home) - key_ids(wiki)

    answer = pair.redeem(redeeming, asserted.token)

    assert answer.is_granted, answer.everything
    keys = jwt.PyJWKClient(wiki.origin + "/jwks").get_signing_key_from_jwt(answer.token)
    claims = jwt.decode(
        answer.token, keys.key, algorithms=["ES256"], audience=WIKI, issuer=wiki.issuer
    )
    assert claims["client_id"] == DESK_AT_WIKI
    assert claims["scope"] == PAGES
    assert claims["sub"] == "home|acme/acme/ann"
    assert claims["auth_time"] == decode_claims(asserted.token)["auth_time"]
    assert claims["exp"] <= decode_claims(asserted.token)["exp"]


@pytest.mark.requirement("IDJAG-I-16", "IDJAG-R-20", "TX-23")
def test_two_people_of_one_name_in_two_tenants_stay_two_people_all_the_way(pair: Pair) -> None:
    subjects = set()
    for tenant in ("acme", "globex"):
        asserted = pair.assert_user("http", tenant=tenant)
        assert decode_claims(asserted.token)["tenant"] == tenant
        subjects.add(decode_claims(pair.redeem("grpc", asserted.token).token)["sub"])
    assert len(subjects) == 2
    assert pair.assert_user("grpc").error == "invalid_request"


@pytest.mark.requirement("IDJAG-R-07", "JAG-13")
@pytest.mark.parametrize("face", FACES)
def test_an_assertion_is_redeemed_once_wherever_it_was_made(pair: Pair, face: str) -> None:
    token = pair.assert_user(face, tenant="acme").token
    assert pair.redeem(face, token).is_granted
    for again in FACES:
        assert pair.redeem(again, token).error == "invalid_grant"


@pytest.mark.requirement("JAG-12", "IDJAG-I-24", "IDJAG-R-23")
@pytest.mark.parametrize("face", FACES)
def test_the_broker_that_made_an_assertion_does_not_redeem_it(pair: Pair, face: str) -> None:
    home = pair.home.setting
    token = pair.assert_user(face, tenant="acme").token

    def at_home() -> Parameters:
        own = by_assertion(assertion(home, DESK))
        return {"grant_type": GRANT_JWT_BEARER, "assertion": token, **own}

    with wire(face, home) as connected:
        assert settled(connected, at_home).error == "invalid_grant"
    assert pair.home.records()[-1]["reason"] == "self_issued_jag"
    assert pair.redeem(face, token).is_granted


@pytest.mark.requirement("JAG-11", "IDJAG-R-05", "AT-16")
def test_an_access_token_of_one_broker_is_no_assertion_for_the_other(pair: Pair) -> None:
    asserted = pair.assert_user("http", tenant="acme")
    token = pair.redeem("http", asserted.token).token
    assert pair.redeem("http", token).error == "invalid_grant"
    assert pair.wiki.records()[-1]["reason"] == "wrong_token_type"
