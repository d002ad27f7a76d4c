"""A request that bears a token: to its resource and nowhere else, with two second chances."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final

from broker.client._addresses import Origin, origin_of, private_origin
from broker.client._challenges import scopes_missing
from broker.client._proxies import check_direct
from broker.client.answers import Token
from broker.client.asks import names_of
from broker.client.broker import Broker
from broker.client.current import subject_token
from broker.client.failures import BadAnswer, WrongOrigin
from broker.client.sync_broker import SyncBroker
from broker.oauth import TOKEN_TYPE_BEARER

AUTHORIZATION: Final = "Authorization"

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    The token that requests to a resource bear.

    It is made of what ``subject`` returns when a request begins, or is the client's ``own``. Raises
    ``ValueError`` for a resource that no token may be sent to: it is https, or http on this machine.
    """

    resource: str
    scopes: Sequence[str] = ()
    _: KW_ONLY
    subject: Callable[[], str] = subject_token
    own: bool = False
    origin: Origin = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", private_origin(self.resource))
        object.__setattr__(self, "scopes", tuple(names_of(self.scopes)))

    def check(self, url: str) -> None:
        """Raise ``WrongOrigin`` unless a request to this URL goes to the resource."""
        try:
            found = origin_of(url)
        except ValueError:
            raise WrongOrigin(f"The request is not plainly one to {self.origin}.") from None
        self.check_origin(found)

    def check_origin(self, found: Origin) -> None:
        """Raise ``WrongOrigin`` unless this is the resource's origin."""
        if found != self.origin:
            raise WrongOrigin(f"The token is for {self.origin}, and the request goes to {found}.")
        check_direct(found)

    def check_host(self, header: str | None) -> None:
        """Raise ``WrongOrigin`` where the ``Host`` header asks the server for somebody else's site."""
        if header is not None:
            self.check(f"{self.origin.scheme}://{header}")

    def begin(self) -> "Bearing":
        """Begin a request; raises ``NoSubjectToken`` when there is nothing to make its token of."""
        return Bearing(self, None if self.own else self.subject())


class Bearing:
    """
    One request on its way, and what may still be tried when its resource does not accept the token.

    A token that is refused (401) is replaced once. Scopes that are missing (403) are asked for once,
    together with those there are (RFC 6750 3.1).
    """

    def __init__(self, wanted: Wanted, subject: str | None) -> None:
        self._resource = wanted.resource
        self._subject = subject
        self._scopes = wanted.scopes
        self._token: Token | None = None
        self._is_renewed = False
        self._is_stepped_up = False

    async def token(self, broker: Broker) -> str:
        """The ``Authorization`` value for the next attempt; raises ``BrokerError``."""
        if self._subject is None:
            token = await broker.own_token(resource=self._resource, scopes=self._scopes)
        else:
            token = await broker.token_for(
                self._subject, resource=self._resource, scopes=self._scopes
            )
        return self._bear(token)

    def token_blocking(self, broker: SyncBroker) -> str:
        """The same from code that blocks."""
        if self._subject is None:
            token = broker.own_token(resource=self._resource, scopes=self._scopes)
        else:
            token = broker.token_for(self._subject, resource=self._resource, scopes=self._scopes)
        return self._bear(token)

    def is_borne_by(self, authorization: str | None) -> bool:
        """Whether a request had the token of this attempt, which a redirect may have taken from it."""
        return self._token is not None and authorization == _value(self._token)

    def may_try_again(
        self, broker: Broker | SyncBroker, *, status: int, challenges: Sequence[str]
    ) -> bool:
        """
        Whether another attempt is worth it after this answer to one that bore the token.

        ``challenges`` are the answer's ``WWW-Authenticate`` headers.
        """
        token = self._token
        if token is not None and status == _UNAUTHORIZED and not self._is_renewed:
            self._is_renewed = True
            return broker.forget(token)
        if token is not None and status == _FORBIDDEN and not self._is_stepped_up:
            missing = scopes_missing(challenges) - token.scopes
            self._is_stepped_up = True
            self._scopes = tuple(sorted(missing | token.scopes | set(self._scopes)))
            return bool(missing)
        return False

    def _bear(self, token: Token) -> str:
        if token.token_type.lower() != TOKEN_TYPE_BEARER.lower():
            raise BadAnswer("The token that was issued is not one to be borne.")
        self._token = token
        return _value(token)


def _value(token: Token) -> str:
    return f"{TOKEN_TYPE_BEARER} {token.access_token}"
