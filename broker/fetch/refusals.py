"""Why an outbound fetch was refused: the closed list."""

from enum import StrEnum


class FetchReason(StrEnum):
    """What was wrong with a fetch, as status pages, metrics and audit records spell it."""

    URL = "fetch_url"
    """The URL is not one that this broker fetches; nothing was resolved."""
    BLOCKED = "fetch_blocked"
    """The host is, or resolves to, an address that this broker never connects to."""
    REDIRECT = "fetch_redirect"
    """The server pointed elsewhere; that is never followed."""
    STATUS = "fetch_status"
    """The server answered with another status than 200."""
    TIMEOUT = "fetch_timeout"
    """The whole fetch, from the name to the last byte, took longer than its deadline."""
    TLS = "fetch_tls"
    """The server could not prove its name, or not by TLS 1.2 or newer."""
    TOO_LARGE = "fetch_too_large"
    """The answer is larger than was asked for."""
    MEDIA_TYPE = "fetch_media_type"
    """The answer is of another media type than was asked for, or is encoded."""
    FAILED = "fetch_failed"
    """The name does not resolve, nobody answers there, or the answer is not HTTP."""


class FetchRefused(Exception):
    """
    A fetch that gave nothing.

    ``detail`` is for logs and status pages; it holds nothing that the server sent.
    """

    def __init__(self, reason: FetchReason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.detail = detail
