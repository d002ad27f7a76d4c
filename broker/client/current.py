"""The token of the request in progress, for whatever calls on because of it."""

import sys
from contextvars import ContextVar, Token
from typing import Any, Final

from broker.client.failures import NoSubjectToken

current_subject_token: Final[ContextVar[str | None]] = ContextVar(
    "current_subject_token", default=None
)
"""Set by whoever verified a request's token; each request has a value of its own."""

# FastMCP is asked first, for it looks at the request of the message that is being answered; the SDK
# knows in what context the message came.
_FRAMEWORKS: Final = (
    "fastmcp.server.dependencies",
    "mcp.server.auth.middleware.auth_context",
)


def set_current(token: str | None) -> Token[str | None]:
    """
    Make this the token of the request in progress; ``reset_current`` ends that.

    A request without one has to say so too, or it might be taken for the one that it came out of.
    """
    return current_subject_token.set(token)


def reset_current(handle: Token[str | None]) -> None:
    """Make the token that was current before the current one again."""
    current_subject_token.reset(handle)


def subject_token() -> str:
    """
    The token of the request in progress; raises ``NoSubjectToken``.

    It is what was made current, or else what the MCP SDK (2.x) or FastMCP hold for the request, where
    these are in use. There is no other place it could come from.
    """
    token = current_subject_token.get() or _held_by_a_framework()
    if token is None:
        raise NoSubjectToken
    return token


def _held_by_a_framework() -> str | None:
    for name in _FRAMEWORKS:
        # Whoever serves by a framework has loaded it; whoever does not need not wait for it.
        find: Any = getattr(sys.modules.get(name), "get_access_token", None)
        held = None if find is None else find()
        if held is not None:
            token: str = held.token
            return token
    return None
