"""Tokens of the broker for requests of the requests library."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urljoin

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from urllib3.util import parse_url

from broker.client._addresses import origin
from broker.client._bearing import AUTHORIZATION, Bearing, Wanted
from broker.client.current import subject_token
from broker.client.failures import WrongOrigin
from broker.client.sync_broker import SyncBroker

__all__ = ["BrokerAuth"]


class BrokerAuth(AuthBase):
    """
    The ``auth`` of a session, or of one request.

    Each request gets a token for its resource, and none goes elsewhere. The token is made of what
    ``subject`` returns, the token of the request in progress; with ``own`` it is the client's. Sending
    raises ``BrokerError`` when there is no token: then nothing was sent.
    """

    def __init__(
        self,
        broker: SyncBroker,
        resource: str,
        *,
        scopes: Sequence[str] = (),
        subject: Callable[[], str] = subject_token,
        own: bool = False,
    ) -> None:
        self._broker = broker
        self._wanted = Wanted(resource, scopes, subject=subject, own=own)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Give a request its token; raises ``BrokerError``."""
        self._check(request.url or "")
        self._wanted.check_host(_header(request, "Host"))
        bearing = self._wanted.begin()
        request.headers[AUTHORIZATION] = bearing.token_blocking(self._broker)
        request.register_hook("response", partial(self._answered, bearing))
        return request

    def _check(self, url: str) -> None:
        """Raise ``WrongOrigin`` unless both of those who read URLs here read the resource's origin."""
        self._wanted.check(url)
        parts = parse_url(url)
        self._wanted.check_origin(
            origin(parts.scheme or "", (parts.host or "").strip("[]"), parts.port)
        )

    def _answered(self, bearing: Bearing, response: Response, **options: Any) -> Response:
        while self._may_try_again(bearing, response):
            # What it says is not wanted any more, and may be long.
            response.close()
            request = response.request
            request.headers[AUTHORIZATION] = bearing.token_blocking(self._broker)
            again: Response = response.connection.send(request, **options)
            again.history.append(response)
            again.request = request
            response = again
        self._keep_from_others(response)
        return response

    def _may_try_again(self, bearing: Bearing, response: Response) -> bool:
        request = response.request
        is_ours = bearing.is_borne_by(_header(request, AUTHORIZATION))
        if not is_ours or not isinstance(request.body, str | bytes | None):
            return False
        return bearing.may_try_again(
            self._broker,
            status=response.status_code,
            challenges=[response.headers.get("www-authenticate", "")],
        )

    def _keep_from_others(self, response: Response) -> None:
        """Take the token from a request whose answer leads elsewhere, before that is followed."""
        if not response.is_redirect:
            return
        try:
            self._check(urljoin(response.url, response.headers["location"]))
        except (WrongOrigin, ValueError):
            response.request.headers.pop(AUTHORIZATION, None)


def _header(request: PreparedRequest, name: str) -> str | None:
    value = request.headers.get(name)
    return value if isinstance(value, str) else None
