"""The request in progress: what was verified of it, and its token for whatever calls on because of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from broker.client.current import reset_current, set_current
from broker.client.delegation import Delegation
from broker.client.failures import NoSubjectToken

_CURRENT: Final[ContextVar[Delegation | None]] = ContextVar("current_delegation", default=None)


@contextmanager
def request_of(verified: Delegation | None) -> Iterator[None]:
    """Within the block, a request in progress that was verified so; ``None`` for one without a token."""
    delegation_before = _CURRENT.set(verified)
    token_before = set_current(None if verified is None else verified.token)
    try:
        yield
    finally:
        reset_current(token_before)
        _CURRENT.reset(delegation_before)


def begin_request(verified: Delegation) -> None:
    """The same until the task or thread ends that serves the request, where there is no block around it."""
    _CURRENT.set(verified)
    set_current(verified.token)


def delegation() -> Delegation:
    """What was verified of the request in progress; raises ``NoSubjectToken``."""
    found = _CURRENT.get()
    if found is None:
        raise NoSubjectToken
    return found
