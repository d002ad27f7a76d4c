"""What holds for every identity assertion, issued or redeemed, however requests are made up."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.interfaces import PolicyEngine
from tests.harness import Answer, Broker, HttpFace
from tests.world import (
    NOW,
    RES_1,
    RES_2,
    WIKI,
    Cast,
    assertion_request,
    client_parameters,
    good_id_jag,
    good_id_token,
    redeem_parameters,
)

MANY = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CLOSED_SCOPES = {"b:admin", "pages.write"}


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, policy: PolicyEngine) -> Iterator[HttpFace]:
    broker = Broker(tmp_path_factory.mktemp("broker"), cast=Cast(), policy=policy)
    yield HttpFace(broker)
    broker.close()


def some_of(*names: str) -> Any:
    """Some scopes as a parameter or a claim, or none of it at all."""
    chosen = st.lists(st.sampled_from(names), min_size=1, unique=True).map(" ".join)
    return st.none() | chosen


def granted(answer: Answer) -> set[str]:
    """The scopes granted, which the answer and the token agree about."""
    scopes = set(answer.claims["scope"].split())
    assert scopes == set(answer.fields["scope"].split())
    assert scopes.isdisjoint(CLOSED_SCOPES)
    return scopes


@pytest.mark.requirement("IDJAG-R-11", "IDJAG-R-12", "JAG-14", "TEX-12", "TX-21")
@MANY
@given(
    asserted=some_of("a:read", "b:read", "b:admin", "of:another") | st.just(""),
    asked=some_of("a:read", "b:read", "b:admin"),
    named=st.none()
    | st.sampled_from([RES_1, RES_2])
    | st.lists(st.sampled_from([RES_1, RES_2, WIKI]), min_size=1, max_size=3),
    resource=st.sampled_from([None, RES_1, RES_2, WIKI]),
    life=st.integers(-40, 320),
)
def test_a_redeemed_token_says_no_more_than_its_assertion(
    face: HttpFace,
    asserted: str | None,
    asked: str | None,
    named: Any,
    resource: str | None,
    life: int,
) -> None:
    token = good_id_jag(scope=asserted, resource=named, exp=NOW + life, iat=NOW - 50)
    answer = face.exchange(redeem_parameters(token, scope=asked, resource=resource))
    if not answer.is_granted:
        return
    scopes, claims = granted(answer), answer.claims
    assert asserted is None or scopes <= set(asserted.split())
    assert asked is None or scopes <= set(asked.split())
    assert 0 < claims["exp"] - NOW <= min(life, 300)
    assert claims["aud"] in ([named] if isinstance(named, str) else named or [resource])
    assert resource is None or claims["aud"] == resource
    assert claims["sub"] == "u1"
    assert "act" not in claims


@pytest.mark.requirement("IDJAG-I-30", "IDJAG-I-10", "TEX-12", "TX-21")
@MANY
@given(
    asked=some_of("pages.read", "pages.write", "a:read"),
    resource=st.sampled_from([None, WIKI, RES_1]),
    life=st.integers(-40, 900),
)
def test_an_assertion_says_no_more_than_was_asked_and_permitted(
    face: HttpFace, asked: str | None, resource: str | None, life: int
) -> None:
    identity = good_id_token(exp=NOW + life, iat=NOW - 50)
    answer = face.exchange(
        assertion_request(subject_token=identity, scope=asked, resource=resource)
    )
    if not answer.is_granted:
        return
    assert granted(answer) == {"pages.read"}
    assert asked is None or "pages.read" in asked.split()
    assert answer.claims["resource"] == WIKI
    assert resource in (None, WIKI)
    assert 0 < answer.claims["exp"] - NOW <= min(life, 300)


@pytest.mark.requirement("CC-09", "CC-13", "TX-21")
@MANY
@given(
    asked=some_of("a:read", "b:read", "b:admin", "no:such"),
    resource=st.sampled_from([RES_1, RES_2, WIKI]),
    client=st.sampled_from(["agent-x", "agent-n", "mcp1-srv"]),
)
def test_a_machine_token_says_no_more_than_was_asked_and_permitted(
    face: HttpFace, asked: str | None, resource: str, client: str
) -> None:
    answer = face.exchange(client_parameters(client, scope=asked, resource=resource))
    if not answer.is_granted:
        return
    assert client != "mcp1-srv"
    assert resource != WIKI
    assert asked is None or granted(answer) <= set(asked.split())
    assert answer.claims["sub"] == f"client:{client}"
    assert answer.claims["exp"] - NOW == 300
