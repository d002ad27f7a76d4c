"""What a verified token says, typed: the person, through which client and server, and who acts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.client.refusals import InsufficientLogin, InsufficientScope


@dataclass(frozen=True, slots=True)
class Person:
    """A person, whom ``issuer`` vouched for; ``sub`` is unique together with the broker's issuer."""

    sub: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who acts for the subject (RFC 8693 4.1)."""

    sub: str
    issuer: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """How and when the person logged in, as far as is known; ``auth_time`` is in unix seconds."""

    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None


@dataclass(frozen=True, slots=True)
class Delegation:
    """
    What a verified token says.

    ``subject`` is who it is about; ``person`` is ``None`` when that is a client of its own. ``client_id``
    obtained the token. ``actors`` are all who act, the newest first; of these only the first may decide
    whether something is allowed, the others are history (RFC 8693 4.1). ``mcp_client`` and
    ``mcp_server`` are stated by the broker at the top level and may decide. ``expires_at`` is in unix
    seconds. ``key`` is the thumbprint of the key that the token is bound to, and that was proved. ``token``
    itself is for the broker alone: no other server may ever get it.
    """

    subject: str
    person: Person | None
    mcp_client: str | None
    mcp_server: str | None
    resource: str
    client_id: str
    actors: tuple[Actor, ...]
    scopes: frozenset[str]
    expires_at: int
    login: Login
    token_id: str
    tenant: str | None
    key: str | None
    token: str = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)

    def require_scopes(self, *scopes: str) -> None:
        """Raise ``InsufficientScope`` unless the token has all of these, which are all that is needed."""
        missing = frozenset(scopes) - self.scopes
        if missing:
            raise InsufficientScope(self.resource, needed=scopes, missing=missing)

    def require_login(
        self,
        *,
        acr_values: Sequence[str] = (),
        max_age: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Raise ``InsufficientLogin`` unless the person logged in so: by one of the classes, and so recently.

        ``max_age`` is in seconds. A token that tells nothing of the login fails, and so does a client's own.
        """
        is_login = self.person is not None
        is_strong = not acr_values or self.login.acr in acr_values
        is_fresh = max_age is None or (
            self.login.auth_time is not None and clock() - self.login.auth_time <= max_age
        )
        if not (is_login and is_strong and is_fresh):
            raise InsufficientLogin(self.resource, acr_values=acr_values, max_age=max_age)
