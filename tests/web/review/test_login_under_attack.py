"""What was tried against the login, and against the names of people in what is on record."""

import base64
import re
from html import unescape
from typing import Any

import pytest

from broker.audit.people.naming import rename_people
from broker.tokens.claims import read_act
from tests.web.review.test_login import FORM, ME, Pages, pages, served

__all__ = ["pages", "served"]


def test_what_others_behind_the_proxy_try_keeps_nobody_out(pages: Pages) -> None:
    for number in range(40):
        pages.browser().get(f"/audit/login/return?state=x{number}")
    answer = pages.browser().post(
        "/audit/login/link", data={"secret": pages.links.issue()}, headers=FORM
    )
    assert answer.status_code == 303


def test_logins_that_others_begin_push_none_out(pages: Pages) -> None:
    browser = pages.browser()
    answer = {"state": pages.away(browser), "code": "c"}
    for _ in range(300):
        assert pages.browser().get("/audit/login/begin").status_code == 303
    assert browser.get("/audit/login/return", params=answer).status_code == 303
    assert browser.get("/audit").text.startswith("olga ")


def test_a_login_under_way_tells_nothing_and_cannot_be_changed(pages: Pages) -> None:
    browser = pages.browser()
    state = pages.away(browser, "/audit/read")
    (name, sealed), *_ = browser.cookies.items()
    opened = base64.urlsafe_b64decode(sealed)
    assert state.encode() not in opened
    assert b"/audit/read" not in opened
    for place in (0, 13, len(opened) - 1):
        changed = bytearray(opened)
        changed[place] ^= 1
        stranger = pages.browser()
        cookie = f"{name}={base64.urlsafe_b64encode(changed).decode()}"
        answer = stranger.get(
            "/audit/login/return",
            params={"state": state, "code": "c"},
            headers={"Cookie": cookie},
        )
        assert answer.status_code == 403
    assert pages.provider.forms == []


@pytest.mark.parametrize("sealed", ["", "x", "é", "A" * 16, "A" * 40, "A" * 5_000, "%00"])
def test_what_is_no_login_under_way_is_none(pages: Pages, sealed: str) -> None:
    cookie = b"__Host-broker-audit-login=" + sealed.encode()
    answer = pages.browser().get(
        "/audit/login/return", params={"state": "x", "code": "c"}, headers={b"Cookie": cookie}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "what nobody knows yet"])
def test_what_another_site_has_an_auditor_ask_is_not_on_record(pages: Pages, site: str) -> None:
    browser = pages.by_link()
    before = len(pages.said())
    answer = browser.get('/audit/read?person="><b>ann', headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 200
    assert "<b>" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert len(pages.said()) == before
    (target,) = re.findall(r'class="button" href="([^"]*)"', answer.text)
    assert browser.get(unescape(target), headers={"Sec-Fetch-Site": "same-origin"}).text == ME
    assert pages.audit.records[-1]["event"] == "audit.read"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "same-origin"])
def test_the_first_page_is_shown_to_whoever_comes_from_the_provider(
    pages: Pages, site: str
) -> None:
    browser = pages.browser()
    headers = {"Sec-Fetch-Site": site}
    answer = {"state": pages.away(browser), "code": "c"}
    returned = browser.get("/audit/login/return", params=answer, headers=headers)
    assert returned.headers["location"] == "/audit"
    assert browser.get("/audit", headers=headers).text.startswith("olga ")


@pytest.mark.parametrize(
    ("nearest", "told", "peer"),
    [
        ("192.0.2.1", "198.51.100.7", "198.51.100.7"),
        ("192.0.2.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("203.0.113.5", "198.51.100.7", "203.0.113.5"),
    ],
)
def test_who_tries_is_told_by_proxies_that_are_trusted_and_no_others(
    pages: Pages, nearest: str, told: str, peer: str
) -> None:
    headers = {**FORM, "X-Forwarded-For": told, "X_Forwarded_For": "198.51.100.99"}
    browser = pages.browser(peer=nearest)
    browser.post("/audit/login/link", data={"secret": "x"}, headers=headers)
    assert pages.audit.records[-1]["peer"] == peer


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
