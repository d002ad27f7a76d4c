"""Where the auditor's pages are, so that whoever asks for them under another name is turned away."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

BASE: Final = "/audit"
"""What the path of every page begins with."""

_NEXT: Final = re.compile(r"/audit(?:[/?][\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7e]*)?")
_LONGEST_NEXT: Final = 2048


@dataclass(frozen=True, slots=True)
class Place:
    """
    The one origin at which browsers find the pages, such as ``https://audit.example.com``.

    ``Host`` must name it, since a page of somebody else can have its own name resolve to this machine
    (DNS rebinding) and would then be of one origin with these pages.
    """

    origin: str

    @property
    def authority(self) -> str:
        """What the ``Host`` header must be."""
        return urlsplit(self.origin).netloc

    @property
    def is_https(self) -> bool:
        """Whether the browser's way to the pages is encrypted."""
        return self.origin.startswith("https://")

    def url(self, path: str) -> str:
        """The address of a page whose path is below ``/audit``."""
        return f"{self.origin}{BASE}{path}"

    def cookie_name(self, kind: str) -> str:
        """
        The name of a cookie of ours.

        With https the prefix keeps neighbours of the host from setting it (RFC 6265bis 4.1.3.2).
        Without, it is on loopback, where all ports share their cookies, so it is named after the port.
        """
        if self.is_https:
            return f"__Host-broker-{kind}"
        return f"broker-{kind}-{urlsplit(self.origin).port or 80}"

    def cookie(
        self, kind: str, value: str, *, lifetime: int | None = None, same_site: str = "Lax"
    ) -> str:
        """
        A ``Set-Cookie`` header for a cookie of so many seconds, or until the browser is closed.

        One of 0 seconds takes it away.
        """
        # The prefix demands that the path is the root.
        secure = "Path=/; Secure" if self.is_https else f"Path={BASE}"
        age = "" if lifetime is None else f" Max-Age={lifetime};"
        return f"{self.cookie_name(kind)}={value}; {secure};{age} HttpOnly; SameSite={same_site}"


def page_after_login(unverified: str) -> str:
    """The page to show after login: the one asked for if it is one of ours, else the first one."""
    if len(unverified) <= _LONGEST_NEXT and _NEXT.fullmatch(unverified):
        return unverified
    return BASE
