"""The auditor's pages in a real browser: a server for them, and Debian's Chromium."""

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from broker.web.review.routes import review_routes
from tests.e2e.patience import until
from tests.web.review.conftest import desk_of
from tests.web.review.story import Story

CHROMIUM: Final = shutil.which("chromium")
PATIENCE: Final = 30_000
"""How long a page may take to show something, in milliseconds."""

# A browser of tests has nothing to ask of the net, and root has no sandbox.
_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
)


@contextlib.contextmanager
def served(story: Story) -> Iterator[str]:
    """The pages of a story on a port of this machine; gives their origin."""
    with served_routes(lambda _: review_routes(desk_of(story))) as origin:
        yield origin


@contextlib.contextmanager
def served_routes(routes_at: Callable[[str], Sequence[BaseRoute]]) -> Iterator[str]:
    """The routes of an origin, on a port of this machine; gives that origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            Starlette(routes=routes_at(origin)),
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started, seconds=30, what="the server listens")
            yield origin
        finally:
            server.should_exit = True
            thread.join()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; without one the test is skipped, where that may be."""
    if CHROMIUM is None:
        reason = "Debian's Chromium is not installed: make browser, as root"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


class Watched:
    """A page that remembers what went wrong in it."""

    def __init__(self, browser: Browser, origin: str, **options: object) -> None:
        self.context = browser.new_context(base_url=origin, **options)  # type: ignore[arg-type] # Playwright's own.
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self.wrongs: list[str] = []
        self.page.on("console", lambda one: self._hear(one.type, one.text))
        self.page.on("pageerror", lambda one: self.wrongs.append(str(one)))
        self.page.on("dialog", lambda one: self.wrongs.append(f"a dialog: {one.message}"))

    def _hear(self, kind: str, text: str) -> None:
        # That a page of this status is shown is what some of the tests ask for.
        if kind in {"error", "warning"} and "status of 404" not in text:
            self.wrongs.append(text)

    def close(self) -> None:
        """Leave the page, in which nothing must have gone wrong."""
        self.context.close()
        assert self.wrongs == []
