"""Nobody sees a page of the auditor's who has not logged in, and every attempt is on record."""

import getpass
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from broker.fetch import GuardedFetcher
from broker.issuers import IssuerKeyRing
from broker.web.peers import Peers
from broker.web.review.guard import session_of
from broker.web.review.links import Links, opening
from broker.web.review.login import ReviewAccess
from broker.web.review.openid import AuditorRules, OpenIdProvider, OpenIdTerms
from broker.web.review.place import Place, page_after_login
from broker.web.review.readings import Readings
from broker.web.review.sessions import Sessions, SessionTerms
from tests.fakes import RecordingAuditLog
from tests.issuers.scripted import Clock
from tests.web.review.provider import CLIENT, Provider, running

ORIGIN = "https://audit.example.com"
FORM = {"Origin": ORIGIN}
COOKIE = "__Host-broker-audit"


class Pages:
    """The pages of a broker, as browsers see them."""

    def __init__(self, directory: Path, provider: Provider, *, origin: str = ORIGIN) -> None:
        self.clock = Clock()
        self.audit = RecordingAuditLog()
        self.links = Links(directory / "links", command=opening(Path("/etc/a <b>.yaml")))
        self.provider = provider
        self.origin = origin
        place = Place(origin)
        sender = GuardedFetcher(allow_loopback=True)
        self.ring = IssuerKeyRing(sender, refreshers=0)
        rules = AuditorRules(claim="groups", values=frozenset({"auditors"}))
        self.access = ReviewAccess(
            place,
            self.links,
            self.audit,
            sessions=Sessions(SessionTerms(most=4), monotonic=self.clock),
            provider=OpenIdProvider(
                OpenIdTerms(provider.issuer, CLIENT, rules),
                redirect_uri=place.url("/login/return"),
                sender=sender,
                key_ring=self.ring,
                now=lambda: int(time.time()),
            ),
            monotonic=self.clock,
        )
        self.readings = Readings(self.audit, monotonic=self.clock)
        pages = [
            Route("/audit", self._show, methods=["GET"]),
            Route("/audit/read", self._read, methods=["GET"]),
            Route("/audit/form", self._show, methods=["POST"]),
            Route("/audit/static/review.css", _style, methods=["GET"]),
        ]
        guarded = self.access.guarded(pages, peers=Peers(["192.0.2.0/24"]))
        self.app = Starlette(routes=[Route("/livez", _style), guarded])

    def _show(self, request: Request) -> Response:
        return PlainTextResponse(f"{request.state.auditor} {request.state.form_token}")

    def _read(self, request: Request) -> Response:
        with self.readings.reading(request, "decision=deny", people=["ann"]) as entry:
            entry.note(found=3)
        return PlainTextResponse(session_of(request).auditor.name)

    def browser(self, origin: str = "", *, peer: str = "testclient") -> TestClient:
        return TestClient(
            self.app,
            base_url=origin or self.origin,
            follow_redirects=False,
            client=(peer, 50_000),
        )

    def by_link(self) -> TestClient:
        """A browser that logged in by a link."""
        browser = self.browser()
        answer = browser.post(
            "/audit/login/link",
            data={"secret": self.links.issue()},
            headers={"Origin": self.origin},
        )
        assert answer.status_code == 303, answer.text
        return browser

    def away(self, browser: TestClient, page: str = "/audit") -> str:
        """Send a browser to the provider; gives the state to come back with."""
        answer = browser.get("/audit/login/begin", params={"next": page})
        assert answer.status_code == 303
        return self.provider.send_away(answer.headers["location"])

    def said(self) -> list[tuple[Any, ...]]:
        """Each record's event, decision, reason and auditor."""
        names = ("event", "decision", "reason", "auditor")
        return [tuple(one.get(name) for name in names) for one in self.audit.records]


async def _style(_request: Request) -> Response:
    return PlainTextResponse("style")


@pytest.fixture(scope="module")
def served() -> Iterator[Provider]:
    with running(Provider()) as provider:
        yield provider


@pytest.fixture
def pages(tmp_path: Path, served: Provider) -> Iterator[Pages]:
    served.reset()
    made = Pages(tmp_path, served)
    yield made
    made.access.close()
    made.readings.close()
    made.ring.close()


ME = getpass.getuser()


@pytest.mark.requirement("CFG-03")
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/audit", "/audit/login"),
        ("/audit/read", "/audit/login?next=%2Faudit%2Fread"),
        ("/audit/?a=%20b", "/audit/login?next=%2Faudit%2F%3Fa%3D%2520b"),
        ("/audit/no-such-page", "/audit/login?next=%2Faudit%2Fno-such-page"),
        ("/audit/logins", "/audit/login?next=%2Faudit%2Flogins"),
        ("/audit/static", "/audit/login?next=%2Faudit%2Fstatic"),
        ("/audit//read", "/audit/login?next=%2Faudit%2F%2Fread"),
    ],
)
def test_whoever_is_not_logged_in_is_sent_to_the_login(
    pages: Pages, path: str, target: str
) -> None:
    answer = pages.browser().get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, target)
    assert pages.said() == []


@pytest.mark.parametrize("cookie", ["", "x", "x" * 43, '"quoted"', f"{COOKIE}=x", "a; b=c", "\x7f"])
def test_a_cookie_that_is_no_session_is_none(pages: Pages, cookie: str) -> None:
    answer = pages.browser().get("/audit", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert answer.status_code == 303


def test_a_form_without_a_session_is_refused(pages: Pages) -> None:
    for path in ("/audit/form", "/audit/logout"):
        assert pages.browser().post(path, headers=FORM).status_code == 401


def test_the_rest_of_the_port_is_as_it_was(pages: Pages) -> None:
    browser = pages.browser("http://other.example")
    assert browser.get("/livez").status_code == 200
    assert browser.get("/auditor").status_code == 404
    assert "content-security-policy" not in browser.get("/livez").headers


def test_a_link_opens_the_pages_once(pages: Pages) -> None:
    secret = pages.links.issue()
    first, second = pages.browser(), pages.browser()
    answer = first.post("/audit/login/link", data={"secret": secret}, headers=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    assert first.get("/audit").text.startswith(ME)
    answer = second.post("/audit/login/link", data={"secret": secret}, headers=FORM)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "used before" in answer.text
    assert second.get("/audit").status_code == 303
    assert pages.said() == [
        ("audit.login", "permit", None, ME),
        ("audit.login", "deny", "link_unknown", None),
    ]


def test_whoever_is_not_logged_in_is_told_the_command_that_makes_a_link(pages: Pages) -> None:
    """With the settings of the broker that runs, as a shell takes them, and as text."""
    secret = pages.links.issue()
    browser = pages.browser()
    browser.post("/audit/login/link", data={"secret": secret}, headers=FORM)

    used = pages.browser().post("/audit/login/link", data={"secret": secret}, headers=FORM)
    login = pages.browser().get("/audit/login")

    told = "broker audit open --config &#x27;/etc/a &lt;b&gt;.yaml&#x27;"
    for page in (used, login):
        assert f"<code>{told}</code>" in page.text
        assert "once, within two minutes" in page.text
    assert "The link was used before, or its time is over." in used.text


def test_to_look_at_a_link_does_not_spend_it(pages: Pages) -> None:
    secret = pages.links.issue()
    browser = pages.browser()
    for _ in range(3):
        assert browser.get(f"/audit/login/link/{secret}").status_code == 200
        assert browser.head(f"/audit/login/link/{secret}").status_code == 200
    assert pages.links.spend(secret)
    assert pages.said() == []


def test_the_page_of_a_link_is_a_form_that_needs_no_script(pages: Pages) -> None:
    secret = pages.links.issue()
    page = pages.browser().get(f"/audit/login/link/{secret}").text
    (action,) = re.findall(r'<form method="post" action="([^"]*)"', page)
    (told,) = re.findall(r'name="secret" value="([^"]*)"', page)
    assert pages.browser().post(action, data={"secret": told}, headers=FORM).status_code == 303


@pytest.mark.parametrize(
    "origin",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://audit.example.com"},
        {"Origin": "https://audit.example.com.evil.example"},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
    ],
)
def test_a_form_from_another_site_spends_no_link(pages: Pages, origin: Mapping[str, str]) -> None:
    secret = pages.links.issue()
    answer = pages.browser().post("/audit/login/link", data={"secret": secret}, headers=origin)
    assert answer.status_code == 403
    assert pages.links.spend(secret)


def test_a_form_whose_browser_tells_no_origin_is_from_here_if_it_says_so(pages: Pages) -> None:
    headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    answer = pages.browser().post(
        "/audit/login/link", data={"secret": pages.links.issue()}, headers=headers
    )
    assert answer.status_code == 303


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"secret=x"),
        ("application/json", b'{"secret":"x"}'),
        ("application/x-www-form-urlencoded", b"secret=x&secret=y"),
        ("application/x-www-form-urlencoded", b"secret=" + b"x" * 20_000),
        ("application/x-www-form-urlencoded", b"a=1&" * 100),
        ("application/x-www-form-urlencoded", b"secret=\xff"),
        ("application/x-www-form-urlencoded", b"secret=%ff"),
        ("", b""),
    ],
)
def test_what_is_no_form_logs_nobody_in(pages: Pages, kind: str, body: bytes) -> None:
    headers = {**FORM, "Content-Type": kind}
    answer = pages.browser().post("/audit/login/link", content=body, headers=headers)
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "audit.example.com:8443", "audit.example.com.", "", "127.0.0.1", "[::1]"],
)
def test_the_pages_have_one_name(pages: Pages, host: str) -> None:
    browser = pages.by_link()
    for path in ("/audit", "/audit/login", "/audit/static/review.css"):
        assert browser.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_not_served(pages: Pages, method: str) -> None:
    assert pages.by_link().request(method, "/audit", headers=FORM).status_code == 405


def test_every_answer_forbids_what_a_page_does_not_need(pages: Pages) -> None:
    browser = pages.by_link()
    for path in ("/audit", "/audit/login", "/audit/none", "/audit/static/review.css"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"


def test_a_session_cookie_is_for_this_host_and_no_script(pages: Pages) -> None:
    answer = pages.browser().post(
        "/audit/login/link", data={"secret": pages.links.issue()}, headers=FORM
    )
    pattern = rf"{COOKIE}=[\w-]{{43}}; Path=/; Secure; HttpOnly; SameSite=Strict"
    assert re.fullmatch(pattern, answer.headers["set-cookie"])


def test_without_https_a_cookie_is_named_after_the_port(tmp_path: Path, served: Provider) -> None:
    pages = Pages(tmp_path, served, origin="http://127.0.0.1:9443")
    answer = pages.browser().post(
        "/audit/login/link",
        data={"secret": pages.links.issue()},
        headers={"Origin": pages.origin},
    )
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(
        r"broker-audit-9443=[\w-]{43}; Path=/audit; HttpOnly; SameSite=Strict", cookie
    )


def test_an_auditor_comes_back_from_the_provider_to_the_page_asked_for(pages: Pages) -> None:
    browser = pages.browser()
    state = pages.away(browser, "/audit/read?a=b")
    answer = browser.get("/audit/login/return", params={"state": state, "code": "c"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit/read?a=b")
    assert "SameSite=Lax" in answer.headers["set-cookie"]
    assert browser.get("/audit").text.startswith("olga ")
    assert pages.said() == [("audit.login", "permit", None, "olga")]


def test_whoever_is_no_auditor_is_named_in_the_record_and_let_in_nowhere(pages: Pages) -> None:
    pages.provider.claims = {"sub": "ann", "groups": ["staff"]}
    browser = pages.browser()
    state = pages.away(browser)
    answer = browser.get("/audit/login/return", params={"state": state, "code": "c"})
    assert answer.status_code == 403
    assert "may not read the audit record" in answer.text
    assert browser.get("/audit").status_code == 303
    assert pages.said() == [("audit.login", "deny", "auditor_unknown", "ann")]


def test_an_answer_counts_once(pages: Pages) -> None:
    browser = pages.browser()
    answer = {"state": pages.away(browser), "code": "c"}
    assert browser.get("/audit/login/return", params=answer).status_code == 303
    assert browser.get("/audit/login/return", params=answer).status_code == 403
    assert pages.said()[1:] == [("audit.login", "deny", "login_unknown", None)]


def test_an_answer_counts_in_the_browser_that_was_sent_away(pages: Pages) -> None:
    attacker, victim = pages.browser(), pages.browser()
    pages.away(victim)
    answer = {"state": pages.away(attacker), "code": "c"}
    assert victim.get("/audit/login/return", params=answer).status_code == 403
    assert victim.get("/audit").status_code == 303
    assert pages.provider.forms == []
    assert attacker.get("/audit/login/return", params=answer).status_code == 303


def test_an_answer_that_comes_late_is_refused(pages: Pages) -> None:
    browser = pages.browser()
    answer = {"state": pages.away(browser), "code": "c"}
    pages.clock.at += 601
    assert browser.get("/audit/login/return", params=answer).status_code == 403
    assert pages.provider.forms == []


@pytest.mark.parametrize(
    "query",
    ["", "code=c", "state=&code=c", "state=x&state=y&code=c", "state=" + "x" * 9000, "error=x"],
)
def test_an_answer_that_nobody_asked_for_is_refused(pages: Pages, query: str) -> None:
    answer = pages.browser().get(f"/audit/login/return?{query}")
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert pages.said() == [("audit.login", "deny", "login_unknown", None)]


def test_a_provider_that_is_away_is_told_of(pages: Pages) -> None:
    pages.provider.metadata_status = 500
    answer = pages.browser().get("/audit/login/begin")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    "page",
    [
        "//evil.example",
        "https://evil.example",
        "/auditor",
        "/audit\\evil",
        "/audit/\r\nSet-Cookie: a=b",
        '/audit/"><script>',
        "/audit/" + "x" * 3000,
        "javascript:alert(1)",
        "/audit@evil.example",
        "",
    ],
)
def test_after_login_only_a_page_of_ours_is_shown(pages: Pages, page: str) -> None:
    assert page_after_login(page) == "/audit"
    text = pages.browser().get("/audit/login", params={"next": page}).text
    (target,) = re.findall(r'href="(/audit/login/begin[^"]*)"', text)
    assert parse_qs(urlsplit(target).query) == {"next": ["/audit"]}


def test_logout_ends_the_session_and_is_on_record(pages: Pages) -> None:
    browser = pages.by_link()
    form_token = browser.get("/audit").text.split()[1]
    answer = browser.post("/audit/logout", data={"form_token": form_token}, headers=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert browser.get("/audit").status_code == 303
    assert pages.said()[1:] == [("audit.logout", "permit", None, ME)]


@pytest.mark.parametrize("form", [{}, {"form_token": "x"}, {"form_token": ""}, {"other": "x"}])
def test_a_forged_logout_ends_nothing(pages: Pages, form: dict[str, str]) -> None:
    browser = pages.by_link()
    assert browser.post("/audit/logout", data=form, headers=FORM).status_code == 403
    assert browser.get("/audit").status_code == 200


def test_the_form_token_of_another_session_is_none(pages: Pages) -> None:
    one, other = pages.by_link(), pages.by_link()
    form_token = other.get("/audit").text.split()[1]
    answer = one.post("/audit/logout", data={"form_token": form_token}, headers=FORM)
    assert answer.status_code == 403
    assert one.get("/audit").status_code == 200


def test_a_login_that_cannot_be_recorded_does_not_count(pages: Pages) -> None:
    pages.audit.is_available = False
    browser = pages.browser()
    answer = browser.post("/audit/login/link", data={"secret": pages.links.issue()}, headers=FORM)
    assert (answer.status_code, "set-cookie" in answer.headers) == (503, False)
    assert len(pages.access.sessions) == 0


def test_a_logout_ends_the_session_though_it_cannot_be_recorded(pages: Pages) -> None:
    browser = pages.by_link()
    form_token = browser.get("/audit").text.split()[1]
    pages.audit.is_available = False
    answer = browser.post("/audit/logout", data={"form_token": form_token}, headers=FORM)
    assert answer.status_code == 503
    assert browser.get("/audit").status_code == 303


def test_a_new_login_ends_the_session_before_it(pages: Pages) -> None:
    browser = pages.by_link()
    before = dict(browser.cookies)
    browser.post("/audit/login/link", data={"secret": pages.links.issue()}, headers=FORM)
    assert dict(browser.cookies) != before
    assert len(pages.access.sessions) == 1


def test_sessions_end_by_themselves(pages: Pages) -> None:
    browser = pages.by_link()
    pages.clock.at += 1801
    assert browser.get("/audit").status_code == 303


def test_whoever_tries_on_and_on_is_turned_away_without_a_record(pages: Pages) -> None:
    browser = pages.browser()
    answers = [
        browser.post("/audit/login/link", data={"secret": "x"}, headers=FORM) for _ in range(40)
    ]
    assert [one.status_code for one in answers] == [403] * 31 + [429] * 9
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert len(pages.said()) == 31
    pages.clock.at += 60
    assert pages.by_link().get("/audit").status_code == 200


def test_what_is_read_is_on_record(pages: Pages) -> None:
    assert pages.by_link().get("/audit/read").text == ME
    record = pages.audit.records[-1]
    assert record["event"] == "audit.read"
    assert (record["auditor"], record["asked"], record["people_asked"], record["found"]) == (
        ME,
        "decision=deny",
        ["ann"],
        3,
    )


def test_what_cannot_be_recorded_is_not_shown(pages: Pages) -> None:
    browser = pages.by_link()
    pages.audit.is_available = False
    with pytest.raises(Exception, match="audit_unavailable"):
        browser.get("/audit/read")


def test_an_auditor_who_asks_without_end_is_slowed_down(pages: Pages) -> None:
    browser = pages.by_link()
    for _ in range(60):
        assert browser.get("/audit/read").status_code == 200
    with pytest.raises(Exception, match="client_limit"):
        browser.get("/audit/read")
    assert len(pages.said()) == 61
    assert pages.by_link().get("/audit/read").status_code == 200
