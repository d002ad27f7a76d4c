"""The auditor's pages in a real browser, with and without a script, by mouse and by keyboard."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect
from starlette.routing import BaseRoute

from broker.audit.log import FileAuditLog
from broker.audit.query import Query
from broker.web.review.guard import session_of
from broker.web.review.links import Links
from broker.web.review.login import ReviewAccess
from broker.web.review.place import Place
from broker.web.review.readings import Readings
from broker.web.review.routes import review_routes
from tests.web.review.browsing import Watched, chromium, served, served_routes
from tests.web.review.conftest import desk_of
from tests.web.review.story import NOW, Story, deep, delegation, hostile, told_in

EXCHANGED = "/audit/events/01a20386-0000-7404-b84a-255e3c9561b7"
DENIED = "/audit/events/01a20386-0000-7d11-9a4e-0f5e7a90be22"
ATTACK = "/audit/events/01a20390-0001-7e00-8e00-1c0ffee00003"
# Few records are on each: the time that it takes to look a page over grows with every one of them.
PLACES = (
    EXCHANGED,
    "/audit?min_depth=3&decision=permit&since=24h",
    "/audit/lineage?token=tickets-0",
    "/audit/clients?name=mcp-crm",
    DENIED,
    "/audit/events/01a20392-0001-7f00-8f00-1c0ffee00005",
    ATTACK,
    "/audit/tail?min_depth=3",
    "/audit/events/nothing",
)
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}
DARK = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}
LIGHT = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def origin(story: Story) -> Iterator[str]:
    with served(story) as origin:
        yield origin


@pytest.fixture
def watched(browser: Browser, origin: str) -> Iterator[Watched]:
    """A page of a desktop."""
    watched = Watched(browser, origin, **LIGHT)
    yield watched
    watched.close()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


def rows(page: Page) -> list[str]:
    """The addresses of the records in the list, in order."""
    found: list[str] = page.locator("#records td.when a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    return found


def test_the_script_changes_only_how_fast_an_answer_comes(
    browser: Browser, origin: str, page: Page
) -> None:
    page.goto("/audit")
    page.evaluate("window.isTheSame = true")
    page.get_by_label("Decision").select_option("deny")
    page.get_by_label("Client").fill("mcp-tickets")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/audit?decision=deny&client=mcp-tickets")
    expect(page.get_by_role("status")).to_have_text("38 records shown.")

    assert page.evaluate("window.isTheSame")
    assert page.locator("#records .pill.deny").count() == len(rows(page))

    plain = Watched(browser, origin, java_script_enabled=False)
    plain.page.goto("/audit")
    plain.page.get_by_label("Decision").select_option("deny")
    plain.page.get_by_label("Client").fill("mcp-tickets")
    plain.page.get_by_role("button", name="Show").click()
    plain.page.wait_for_url(page.url)

    assert rows(plain.page) == rows(page)
    plain.close()


def held_back(page: Page, address: str) -> list[Route]:
    """The requests for an address from now on, none of which is answered by itself."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(address, hold)
    return held


@contextmanager
def denials_on_their_way(page: Page) -> Iterator[None]:
    """The list, of which the denials were asked for; they come at the end of the block."""
    page.goto("/audit")
    held = held_back(page, "**/audit?decision=deny")
    with page.expect_request("**/audit?decision=deny"):
        page.get_by_label("Decision").select_option("deny")
    yield
    (answer,) = held
    answer.continue_()
    page.wait_for_url("**/audit?decision=deny")


def test_what_is_written_while_an_answer_is_on_its_way_is_kept(page: Page) -> None:
    with denials_on_their_way(page):
        page.get_by_text("More filters").click()
        page.get_by_label("Reason").press_sequentially("scope_outside")

    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("_of_policy")
    expect(page.get_by_label("Reason")).to_have_value("scope_outside_of_policy")
    expect(page.get_by_label("Decision")).to_have_value("deny")
    page.get_by_label("Reason").press("Enter")
    page.wait_for_url("**/audit?decision=deny&reason=scope_outside_of_policy")


def test_what_was_written_meanwhile_is_asked_for_when_it_is_left(page: Page) -> None:
    with denials_on_their_way(page):
        page.get_by_label("Client").press_sequentially("mcp-tickets")
    page.keyboard.press("Tab")

    page.wait_for_url("**/audit?decision=deny&client=mcp-tickets")


def test_what_is_open_named_and_focused_while_an_answer_is_on_its_way_stays_so(page: Page) -> None:
    with denials_on_their_way(page):
        page.get_by_placeholder("Name this view").fill("refusals")
        page.get_by_text("More filters").click()
        page.get_by_label("Policy").focus()

    expect(page.get_by_label("Policy")).to_be_focused()
    expect(page.get_by_placeholder("Name this view")).to_have_value("refusals")
    expect(page.get_by_label("Decision")).to_have_value("deny")


def test_an_answer_takes_nobody_away_from_looking_up_an_id(page: Page) -> None:
    with denials_on_their_way(page):
        page.get_by_label("Look up an id").press_sequentially("tick")
    page.keyboard.type("ets-0")

    expect(page.get_by_label("Look up an id")).to_have_value("tickets-0")


def test_who_goes_back_and_forth_again_stays_at_the_page_of_the_address(page: Page) -> None:
    page.goto("/audit")
    page.get_by_role("link", name="Machine tokens").click()
    page.wait_for_url("**/audit?grant=client_credentials")
    shown = rows(page)
    held = held_back(page, "**/audit")
    with page.expect_request("**/audit"):
        page.evaluate("history.back()")
    page.evaluate("history.forward()")
    page.wait_for_url("**/audit?grant=client_credentials")
    (answer,) = held
    answer.continue_()
    expect(page.locator("#main")).not_to_have_class("busy")

    assert rows(page) == shown
    assert page.url.endswith("/audit?grant=client_credentials")


def test_the_browser_goes_back_through_filters(page: Page) -> None:
    page.goto("/audit")
    first = rows(page)
    page.get_by_role("link", name="Machine tokens").click()
    page.wait_for_url("**/audit?grant=client_credentials")
    expect(page.locator("#records .what").first).to_have_text("Machine token")
    page.go_back()

    expect(page.locator("#records td.when a").first).to_have_attribute("href", first[0])


def test_a_bar_of_the_chart_leads_to_its_records(page: Page) -> None:
    page.goto("/audit?decision=deny")
    page.locator(".bars a").nth(3).click()
    page.wait_for_url("**/audit?since=*&until=*&decision=deny")

    shown = page.locator(".key.deny")
    expect(shown).to_have_text(f"Denied {len(rows(page))}")


def test_from_the_list_to_an_event_and_on_to_what_came_of_its_token(page: Page) -> None:
    page.goto("/audit?token=tickets-0&decision=permit")
    page.locator("#records td.when a").last.click()

    expect(page.locator("ol.chain > li")).to_have_count(3)
    page.get_by_role("link", name="Everything that came of this token").click()
    expect(page.locator(".tree .node")).to_have_count(5)
    page.locator(".tree ul ul .node-head a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Token exchange")


def test_without_a_script_everything_is_within_reach(browser: Browser, origin: str) -> None:
    plain = Watched(browser, origin, java_script_enabled=False)
    page = plain.page
    page.goto("/audit?decision=permit")
    page.get_by_role("link", name="Older records").click()
    expect(page.get_by_role("heading", name="Older records")).to_be_visible()
    page.get_by_text("The chart as a table").click()
    page.locator(".as-table tbody a").last.click()
    expect(page.locator("#records")).to_be_visible()
    page.goto("/audit/tail")
    expect(page.get_by_text("Without JavaScript this page does not move")).to_be_visible()
    page.get_by_role("link", name="Refresh").click()
    expect(page.locator("#live tbody tr")).to_have_count(50)
    expect(page.locator("#own-views")).to_have_count(0)
    plain.close()


def test_a_view_of_ones_own_is_kept_in_the_browser_alone(page: Page) -> None:
    page.goto("/audit?decision=deny&since=24h")
    page.get_by_placeholder("Name this view").fill("<b>mine</b>")
    page.get_by_role("button", name="Save").click()
    page.goto("/audit")
    page.get_by_role("link", name="<b>mine</b>").click()
    page.wait_for_url("**/audit?decision=deny&since=24h")
    page.get_by_role("button", name="Forget the view <b>mine</b>").click()

    expect(page.get_by_role("link", name="<b>mine</b>")).to_have_count(0)


def test_new_records_appear_as_they_come(page: Page, story: Story) -> None:
    page.goto("/audit/tail")
    expect(page.locator("#live-state")).to_have_text("Following.")
    came = delegation(900, at=NOW - 1, person="new@acme.example")
    story.tell(*came, hostile("01a20390-0002-7e00-8e00-1c0ffee00003", at=NOW - 1))

    # The newest three stand first, the hostile one as text.
    expect(page.locator("#live tbody tr.new")).to_have_count(4)
    expect(page.locator("#live tbody tr.new").first).to_contain_text("<script>")
    expect(page.locator("#live-state")).to_have_text("Following; 4 new.")


def test_nobody_needs_a_mouse(page: Page) -> None:
    page.goto("/audit")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    focused = page.locator(":focus")
    expect(focused).to_have_text("All records")
    assert focused.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.get_by_label("Person").focus()
    page.keyboard.type("alice@acme.example")
    page.keyboard.press("Enter")
    page.wait_for_url("**/audit?person=alice%40acme.example")
    expect(page.get_by_label("Person")).to_be_focused()


@pytest.mark.requirement("LOG-01")
def test_a_token_that_is_pasted_for_an_id_does_not_leave_the_browser(page: Page) -> None:
    page.goto(EXCHANGED)
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.url))
    page.get_by_placeholder("Record id, jti or txn").fill("eyJhbGciOiJFUzI1NiJ9.e30.c2ln")
    page.get_by_role("button", name="Look up").click()
    page.wait_for_function("document.querySelector('#lookup:user-invalid')")

    # The browser asks for the icon of the page when it likes, which may be as late as then.
    assert [url for url in sent if "/audit/static/icon.svg?v=" not in url] == []


@pytest.mark.requirement("LOG-02")
@pytest.mark.parametrize("place", [ATTACK, "/audit"])
def test_nothing_of_a_record_runs(page: Page, place: str) -> None:
    page.goto(place)

    expect(page.locator("script")).to_have_count(1)
    expect(page.get_by_text("<script>alert('x')</script>").first).to_be_visible()


@pytest.mark.requirement("LOG-05")
def test_a_log_that_was_tampered_with_is_flagged(browser: Browser, tmp_path: Path) -> None:
    story = told_in(tmp_path / "audit")
    (segment,) = (tmp_path / "audit").glob("http-0.*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(b'"mail.send"', b'"mail.read"'))
    with served(story) as origin:
        watched = Watched(browser, origin, **LIGHT)
        watched.page.goto("/audit?resource=https%3A%2F%2Fapi.mail.example%2Fv1")
        expect(watched.page.get_by_text("Changed since they were written")).to_be_visible()
        watched.page.goto("/audit")
        expect(watched.page.get_by_role("heading", name="Log broken")).to_be_visible()
        expect(watched.page.locator(".standing")).to_contain_text(segment.name)
        watched.close()
    story.close()


@pytest.mark.parametrize("look", [LIGHT, DARK, PHONE], ids=["light", "dark", "phone"])
def test_everybody_can_read_every_page(
    browser: Browser, origin: str, look: dict[str, object]
) -> None:
    watched = Watched(browser, origin, **look)
    axe = Axe()
    # What does not change with colours or size is looked at once.
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if look is not LIGHT:
        options["runOnly"] = ["color-contrast", "target-size"]
    for place in PLACES if look is LIGHT else PLACES[:4]:
        watched.page.goto(place)
        found = axe.run(watched.page, options=options)
        assert found.violations_count == 0, f"{place}: {found.generate_report()}"
        width = watched.page.evaluate("document.documentElement.scrollWidth")
        assert width <= look["viewport"]["width"], place  # type: ignore[index] # It has one.
    watched.close()


def test_the_longest_chain_is_drawn_from_above(page: Page) -> None:
    page.goto(f"/audit/events/{deep(at=NOW).event_id}")

    expect(page.locator("ol.chain.down > li")).to_have_count(6)


@dataclass
class Guarded:
    """A record of one delegation, with the login before its pages and what is read on record."""

    story: Story
    links: Links
    audit: FileAuditLog
    readings: Readings

    @classmethod
    def made_in(cls, directory: Path) -> "Guarded":
        story = Story(directory / "audit")
        story.tell(*delegation(0, at=NOW - 200, person="alice@acme.example"))
        links = Links(directory / "links")
        links.prepare()
        audit = FileAuditLog(story.directory, writer="control", now=lambda: NOW, write_timeout=30.0)
        return cls(story, links, audit, Readings(audit))

    def routes_at(self, origin: str) -> list[BaseRoute]:
        access = ReviewAccess(Place(origin), self.links, self.audit)
        desk = desk_of(
            self.story,
            witness=self.readings.reading,
            may_still_look=lambda request: access.sessions.is_live(session_of(request)),
        )
        return [access.guarded(review_routes(desk))]

    def read(self) -> list[tuple[object, ...]]:
        """What is on record of what was read, the newest first; nothing is written any more."""
        self.readings.close()
        self.audit.close()
        self.story.reader.catch_up()
        found = self.story.reader.find(Query(events=("audit.read",))).found
        self.story.close()
        return [(one.record.asked, one.record.people_asked, one.record.found) for one in found]


def test_an_auditor_comes_by_a_link_and_what_is_read_is_on_record(
    browser: Browser, tmp_path: Path
) -> None:
    guarded = Guarded.made_in(tmp_path)

    with served_routes(guarded.routes_at) as origin:
        watched = Watched(browser, origin, **LIGHT)
        page = watched.page
        page.goto(EXCHANGED)
        expect(page.get_by_text("Log in to read the audit record").last).to_be_visible()
        violations = Axe().run(page).violations_count
        page.goto(f"/audit/login/link/{guarded.links.issue()}")
        assert violations + Axe().run(page).violations_count == 0
        page.get_by_role("button", name="Read the audit record").click()
        expect(page.get_by_role("heading", name="Records", exact=True)).to_be_visible()
        page.goto("/audit?person=alice%40acme.example")
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("#records")).to_have_count(0)
        page.goto(EXCHANGED)
        expect(page.get_by_text("Log in to read the audit record").last).to_be_visible()
        watched.close()

    assert guarded.read() == [
        ("records", ["alice@acme.example"], 3),
        ("records", None, 4),
    ]
