"""A server that keeps a client's key and signs with it."""

import time
from collections.abc import Mapping
from typing import Any

import httpx2

from broker.client._http import Body, settings
from broker.client.failures import Unavailable


class KeyServer:
    """One address of it; ``ca_file`` names the authorities to believe, if not the system's."""

    def __init__(self, url: str, *, ca_file: str | None = None) -> None:
        self._url = url
        self._settings = settings(url, ca_file)

    def post(
        self, content: Mapping[str, Any], *, headers: Mapping[str, str], within: float
    ) -> tuple[int, Mapping[str, Any] | None]:
        """
        The status and the JSON object of the answer to a JSON document.

        ``within`` is in seconds. Raises ``Unavailable`` when there is none in time.
        """
        body = Body(end=time.monotonic() + within)
        try:
            # A signature is wanted now and then, so no connection is kept that would have to be closed.
            with (
                httpx2.Client(**self._settings) as client,
                client.stream(
                    "POST", self._url, json=content, headers=headers, timeout=within
                ) as answer,
            ):
                for chunk in answer.iter_raw():
                    body.take(chunk)
        except httpx2.HTTPError as error:
            raise Unavailable(f"The key server does not answer: {type(error).__name__}.") from None
        return answer.status_code, body.members()
