"""The token of the request in progress, for whatever calls on because of it."""

from contextvars import ContextVar, Token
from typing import Final

from broker.client.failures import NoSubjectToken

current_subject_token: Final[ContextVar[str | None]] = ContextVar(
    "current_subject_token", default=None
)
"""Set by whoever verified a request's token; each request has a value of its own."""


def set_current(token: str) -> Token[str | None]:
    """Make this the token of the request in progress; ``reset_current`` ends that."""
    return current_subject_token.set(token)


def reset_current(handle: Token[str | None]) -> None:
    """Make the token that was current before the current one again."""
    current_subject_token.reset(handle)


def subject_token() -> str:
    """The token of the request in progress; raises ``NoSubjectToken``."""
    token = current_subject_token.get()
    if token is None:
        raise NoSubjectToken
    return token
