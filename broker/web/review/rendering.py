"""Templates into pages, with the headers that every one of them has."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.audit.telling.words import duration
from broker.web.review import rows
from broker.web.review.asking import LABELS, address

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""What every answer says, so that nothing foreign runs in a page, frames it, keeps it or hears of it."""

_ASSET_TYPES: Final = {
    "review.css": "text/css; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_JOINTS: Final = re.compile(r"(?<=[/.@:_-])(?=[^/.@:_-])")
_USUAL: Final = "https://"
_FOR_EVER: Final = "private, max-age=31536000, immutable"


class Hardened:
    """An application whose every answer has ``HEADERS``; only ``Cache-Control`` may be its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if name != "Cache-Control" or name not in headers:
                        headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers)


class Assets:
    """The style sheet, the script and the icon, in memory, each at an address that changes with it."""

    def __init__(self) -> None:
        folder = files("broker.web.review") / "static"
        self._found = {name: (folder / name).read_bytes() for name in _ASSET_TYPES}

    def address(self, name: str) -> str:
        """Where a page finds one of them."""
        digest = hashlib.sha256(self._found[name]).hexdigest()[:16]
        return f"{rows.BASE}/static/{name}?v={digest}"

    async def answer(self, request: Request) -> Response:
        """One of them, or that there is none of this name."""
        name = request.path_params["name"]
        if name not in self._found:
            return Response(status_code=404)
        media_type = _ASSET_TYPES[name]
        is_this_one = request.url.query == self.address(name).partition("?")[2]
        headers = {"Cache-Control": _FOR_EVER if is_this_one else "no-cache"}
        return Response(self._found[name], headers=headers, media_type=media_type)


def clock_time(seconds: float) -> str:
    """A moment of unix seconds for people, in UTC."""
    return _shown(seconds, "%Y-%m-%d %H:%M:%S")


def time_of_day(seconds: float) -> str:
    """The same without its day."""
    return _shown(seconds, "%H:%M:%S")


def iso(seconds: float) -> str:
    """The same for programs."""
    return _shown(seconds, "%Y-%m-%dT%H:%M:%SZ")


def _shown(seconds: float, form: str) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime(form)
    except (OverflowError, ValueError, OSError):
        return f"second {seconds:.0f}"


def unhidden(value: object) -> object:
    """
    A value as a page shows it: what would hide in text, or turn its order round, is a visible escape.

    A record that the broker wrote has nothing of the kind; one that somebody else wrote may.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in value
    )


def soft(text: str) -> Markup:
    """Text that may be broken where a name or an address has its joints."""
    return Markup("<wbr>").join(escape(part) for part in _JOINTS.split(str(unhidden(text))))


def short(text: str) -> Markup:
    """An address for a narrow place: nobody has to see ``https://``, and everybody would see ``http://``."""
    if not text.startswith(_USUAL):
        return soft(text)
    return Markup('<span class="unseen">https://</span>') + soft(text.removeprefix(_USUAL))


def counted(number: int, one: str, several: str = "") -> str:
    """So many of something: ``1 record``, ``1,200 records``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


class Rendering:
    """The templates of the auditor's pages. Whatever they are told is text, and never markup."""

    def __init__(self) -> None:
        self.assets = Assets()
        self._environment = Environment(
            loader=PackageLoader("broker.web.review"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=unhidden,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            clock_time=clock_time,
            time_of_day=time_of_day,
            iso=iso,
            duration=duration,
            soft=soft,
            short=short,
        )
        self._environment.globals.update(
            asset=self.assets.address,
            address=address,
            counted=counted,
            event_address=rows.event_address,
            lineage_address=rows.lineage_address,
            party_link=rows.link,
            row_of=rows.row,
            BASE=rows.BASE,
            DECISIONS=rows.DECISIONS,
            PARTY_NAMES=rows.PARTY_NAMES,
            LABELS=LABELS,
        )

    def text(self, template: str, told: Mapping[str, Any]) -> str:
        """A template filled in."""
        return self._environment.get_template(template).render(told)

    def page(
        self, request: Request, template: str, told: Mapping[str, Any], *, status: int = 200
    ) -> Response:
        """A whole page, with the name of whoever looks at it."""
        auditor = getattr(request.state, "auditor", "")
        form_token = getattr(request.state, "form_token", "")
        around = {"auditor": auditor, "form_token": form_token, "path": request.url.path}
        return HTMLResponse(self.text(template, {**around, **told}), status_code=status)

    def problem(
        self, request: Request, status: int, title: str, sentences: Sequence[str]
    ) -> Response:
        """A page that says what is wrong and what to do."""
        told = {"title": title, "sentences": sentences, "status": status}
        return self.page(request, "problem.html", told, status=status)
