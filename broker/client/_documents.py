"""The guarded fetch of a small JSON document: from one place, for a bounded time, and nothing else."""

import time
from typing import Any, Final

import httpx2

from broker.client._addresses import Origin, private_origin
from broker.client._trust import authorities
from broker.strict_json import StrictJsonError, loads_strict

_LARGEST: Final = 256 * 1024
_TYPES: Final = frozenset({"application/json", "application/jwk-set+json"})
_HEADERS: Final = {"Accept": ", ".join(sorted(_TYPES)), "Accept-Encoding": "identity"}


class NotFetched(Exception):
    """A document was not to be had; the sentence holds nothing that its server sent."""


def check_place(url: str) -> Origin:
    """The origin of https, or of a server on this machine; ``ValueError`` for anything but host and path."""
    if "?" in url or "#" in url:
        raise ValueError("The URL is more than a host and a path.")
    return private_origin(url)


class Documents:
    """
    Fetches JSON documents. No proxy, credential, cookie or other ambient setting takes part.

    Nothing is followed: an answer that is not 200, or is too large, encoded or no strict JSON, is a failure.
    """

    def __init__(self, *, ca_file: str | None = None) -> None:
        # No connection outlives its answer: the next document is minutes away.
        self._client = httpx2.Client(
            verify=authorities(ca_file),
            trust_env=False,
            follow_redirects=False,
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def fetch(self, url: str, *, within: float) -> tuple[Any, str]:
        """
        The document and its ``Cache-Control``, within so many seconds.

        Raises ``NotFetched`` and nothing else.
        """
        end = time.monotonic() + within
        try:
            check_place(url)
            _check_time(end)
            with self._client.stream("GET", url, headers=_HEADERS, timeout=within) as answer:
                _check_head(answer)
                body = _body(answer, end)
                return loads_strict(body), answer.headers.get("Cache-Control", "")
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            is_ours = isinstance(error, ValueError) and not isinstance(error, StrictJsonError)
            said = str(error) if is_ours else type(error).__name__
            raise NotFetched(said) from None


def _check_head(answer: httpx2.Response) -> None:
    if answer.status_code != httpx2.codes.OK:
        raise ValueError(f"The answer has status {answer.status_code}.")
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in _TYPES or "Content-Encoding" in answer.headers:
        raise ValueError("The answer is not plain JSON.")


def _body(answer: httpx2.Response, end: float) -> bytes:
    """The body as it came, piece by piece, so that neither size nor time gets out of hand."""
    body = bytearray()
    for piece in answer.iter_raw():
        body += piece
        if len(body) > _LARGEST:
            raise ValueError("The answer is too large.")
        _check_time(end)
    return bytes(body)


def _check_time(end: float) -> None:
    if time.monotonic() >= end:
        raise ValueError("It takes too long.")
