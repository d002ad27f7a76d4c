"""What was tried against the login, and against the names of people in what is on record."""

from typing import Any

from broker.audit.people.naming import rename_people
from broker.tokens.claims import read_act
from tests.web.review.test_login import FORM, Pages, pages, served

__all__ = ["pages", "served"]


def test_what_others_behind_the_proxy_try_keeps_nobody_out(pages: Pages) -> None:
    for number in range(40):
        pages.browser().get(f"/audit/login/return?state=x{number}")
    answer = pages.browser().post(
        "/audit/login/link", data={"secret": pages.links.issue()}, headers=FORM
    )
    assert answer.status_code == 303


def test_no_shape_of_a_foreign_actor_tells_a_name() -> None:
    act = {
        "iss": "https://idp.example",
        "sub": "alice",
        "client_id": {"name": "Alice"},
        "sub_profile": ["Alice"],
    }
    facts: dict[str, Any] = {"actors": [read_act({"act": act})]}
    rename_people(facts, str.lower, issuer="https://broker.example")
    assert "Alice" not in str(facts)
