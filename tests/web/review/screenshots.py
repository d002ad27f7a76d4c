"""The pictures of the auditor's pages for the documents: ``python -m tests.web.review.screenshots``."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.web.review.browsing import Watched, chromium, served
from tests.web.review.story import told_in

FOLDER: Final = Path(__file__).parents[3] / "docs" / "images"
LARGEST: Final = 150_000
"""No picture has more bytes."""

_DESKTOP: Final = {"width": 1280, "height": 720}
_PICTURES: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "audit-list": (
        "/audit",
        {"viewport": {"width": 1200, "height": 960}, "color_scheme": "light"},
    ),
    "audit-event": (
        "/audit/events/01a20386-0000-7404-b84a-255e3c9561b7",
        {"viewport": {"width": 1200, "height": 720}, "color_scheme": "light"},
    ),
    "audit-lineage-dark": (
        "/audit/lineage?token=tickets-0",
        {"viewport": _DESKTOP, "color_scheme": "dark"},
    ),
    "audit-phone": (
        "/audit/events/01a20386-0000-7d11-9a4e-0f5e7a90be22",
        {"viewport": {"width": 390, "height": 1040}, "color_scheme": "light"},
    ),
}


def take(folder: Path) -> None:
    """Every picture, into a folder."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        story = told_in(Path(place) / "audit")
        with served(story) as origin, chromium() as browser:
            for name, (address, look) in _PICTURES.items():
                watched = Watched(browser, origin, **look)
                watched.page.goto(address)
                path = folder / f"{name}.png"
                watched.page.screenshot(path=path)
                watched.close()
                if path.stat().st_size > LARGEST:
                    raise SystemExit(f"{path.name} is larger than {LARGEST} bytes")
        story.close()


if __name__ == "__main__":
    take(FOLDER)
