"""What the broker says when it gives nothing becomes an exception, for both faces alike."""

import re
from typing import Final

from broker.client.failures import (
    BadAnswer,
    BrokerError,
    Refused,
    StepUp,
    StepUpRequired,
    Unavailable,
)

_CODE: Final = re.compile(r"[a-z_]{1,64}")
_PASSING: Final = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_LONGEST: Final = 400


def refusal(
    code: str,
    description: str,
    *,
    decision_id: str = "",
    retry_after: float | None = None,
    step_up: StepUp | None = None,
) -> BrokerError:
    """The exception for an OAuth error; ``retry_after`` is in seconds, if the broker told any."""
    if not _CODE.fullmatch(code):
        return BadAnswer("The answer has an error code that is none.")
    description, decision_id = sentence(description), sentence(decision_id)
    if code in _PASSING:
        seconds = 1.0 if retry_after is None else retry_after
        return Unavailable(description, retry_after=seconds, decision_id=decision_id)
    if code == "insufficient_user_authentication":
        return StepUpRequired(
            code, description, decision_id=decision_id, step_up=step_up or StepUp()
        )
    return Refused(code, description, decision_id=decision_id)


def sentence(text: str) -> str:
    """Text from outside that may be logged: one line, and not too long."""
    return "".join(one if one.isprintable() else " " for one in text[:_LONGEST])


def whole_number(text: str | None) -> int | None:
    """A number in digits, if it is one and of a sensible length."""
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) <= 9
    return int(text) if is_number and text is not None else None
