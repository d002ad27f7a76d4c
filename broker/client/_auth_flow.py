"""The authentication flow of httpx and of httpx2, which are alike; either is mixed into this."""

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from broker.client._addresses import origin
from broker.client._bearing import AUTHORIZATION, Bearing, Wanted
from broker.client.broker import Broker
from broker.client.current import subject_token
from broker.client.failures import WrongOrigin
from broker.client.sync_broker import SyncBroker


class _AnyRequest(Protocol):
    @property
    def url(self) -> Any: ...

    @property
    def headers(self) -> Any: ...

    @property
    def stream(self) -> Any: ...


class _AnyResponse(Protocol):
    @property
    def request(self) -> Any: ...

    @property
    def headers(self) -> Any: ...

    @property
    def status_code(self) -> int: ...


_Request = TypeVar("_Request", bound=_AnyRequest)
_Response = TypeVar("_Response", bound=_AnyResponse)


class AuthFlow(Generic[_Request, _Response]):
    """
    Gives each request a token for its resource, and none to a request that goes elsewhere.

    With a ``Broker`` it is for an ``AsyncClient``, with a ``SyncBroker`` for a ``Client``. The token is
    made of what ``subject`` returns, the token of the request in progress; with ``own`` it is the
    client's. Whatever ``Authorization`` a request had is replaced. Sending raises ``BrokerError``
    when there is no token: then nothing was sent.
    """

    content_type: ClassVar[type]
    """What a body is that can be sent once more."""

    def __init__(
        self,
        broker: Broker | SyncBroker,
        resource: str,
        *,
        scopes: Sequence[str] = (),
        subject: Callable[[], str] = subject_token,
        own: bool = False,
    ) -> None:
        self._broker = broker
        self._wanted = Wanted(resource, scopes, subject=subject, own=own)

    def sync_auth_flow(self, request: _Request) -> Generator[_Request, _Response, None]:
        """What a ``Client`` runs for each request."""
        broker = self._broker
        if not isinstance(broker, SyncBroker):
            raise TypeError("A Client wants a SyncBroker; a Broker is for an AsyncClient.")
        bearing = self._begin(request)
        while True:
            request.headers[AUTHORIZATION] = bearing.token_blocking(broker)
            response = yield request
            if not self._may_try_again(bearing, request, response):
                return

    async def async_auth_flow(self, request: _Request) -> AsyncGenerator[_Request, _Response]:
        """What an ``AsyncClient`` runs for each request."""
        broker = self._broker
        if not isinstance(broker, Broker):
            raise TypeError("An AsyncClient wants a Broker; a SyncBroker is for a Client.")
        bearing = self._begin(request)
        while True:
            request.headers[AUTHORIZATION] = await bearing.token(broker)
            response = yield request
            if not self._may_try_again(bearing, request, response):
                return

    def _begin(self, request: _Request) -> Bearing:
        # These are the very parts that the request will be sent by.
        url = request.url
        if url.userinfo:
            raise WrongOrigin("A URL with a user in it is easily taken for another.")
        try:
            found = origin(url.scheme, url.raw_host.decode("ascii"), url.port)
        except ValueError:
            raise WrongOrigin("The request has no origin.") from None
        self._wanted.check_origin(found)
        self._wanted.check_host(request.headers.get("host"))
        return self._wanted.begin()

    def _may_try_again(self, bearing: Bearing, request: _Request, response: _Response) -> bool:
        # After a redirect to somewhere else, the answer is not the resource's, and moves nothing here.
        is_ours = bearing.is_borne_by(response.request.headers.get(AUTHORIZATION))
        if not is_ours or not isinstance(request.stream, self.content_type):
            return False
        return bearing.may_try_again(
            self._broker,
            status=response.status_code,
            challenges=response.headers.get_list("www-authenticate"),
        )
