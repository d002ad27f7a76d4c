"""What the library raises, and what helps against it."""

import copy
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepUp:
    """The login that would be accepted (RFC 9470): context classes, greatest age in seconds."""

    acr_values: str = ""
    max_age: int | None = None


class BrokerError(Exception):
    """
    The broker gave no token.

    ``code`` is the OAuth error (RFC 6749 5.2), ``description`` a sentence that may be shown, and
    ``decision_id`` the name of the audit record, by which an operator finds out more. No error holds
    any part of a token or a secret.
    """

    is_retryable = False
    """Whether the same request may succeed later."""

    step_up: StepUp | None = None
    """The login that would help, where one would."""

    # ``args`` stay what the constructor was called with, by which errors are copied and pickled.
    def __init__(self, code: str, description: str = "", *, decision_id: str = "") -> None:
        self.code = code
        self.description = description
        self.decision_id = decision_id

    def __str__(self) -> str:
        sentence = f"{self.code}: {self.description}" if self.description else self.code
        return f"{sentence} (decision {self.decision_id})" if self.decision_id else sentence


class Refused(BrokerError):
    """
    The broker decided: not this. Asking again gives the same answer.

    ``target`` tells which of several targets it was, counted from 0, if it was one of them.
    """

    target: int | None = None


class StepUpRequired(Refused):
    """The user must log in again, more strongly or more recently; ``step_up`` says how."""

    step_up: StepUp

    def __init__(
        self,
        code: str,
        description: str = "",
        *,
        decision_id: str = "",
        step_up: StepUp = StepUp(),
    ) -> None:
        super().__init__(code, description, decision_id=decision_id)
        self.step_up = step_up


class Unavailable(BrokerError):
    """
    The broker could not decide in time; the request may be repeated.

    ``retry_after`` is in seconds.
    """

    is_retryable = True

    def __init__(
        self, description: str = "", *, retry_after: float = 1.0, decision_id: str = ""
    ) -> None:
        super().__init__("temporarily_unavailable", description, decision_id=decision_id)
        self.retry_after = retry_after


class BadAnswer(BrokerError):
    """What answered is not a broker, or not one that this library understands."""

    def __init__(self, description: str) -> None:
        super().__init__("bad_answer", description)


class CredentialUnusable(BrokerError):
    """A key or a file that authenticates the client cannot be used; nothing was sent."""

    def __init__(self, description: str) -> None:
        super().__init__("credential_unusable", description)


class WrongOrigin(BrokerError):
    """A request would have carried a token to somewhere else than the resource it is for."""

    def __init__(self, description: str) -> None:
        super().__init__("wrong_origin", description)


class NoSubjectToken(BrokerError):
    """There is no request in progress whose token could be exchanged."""

    def __init__(self) -> None:
        super().__init__("no_subject_token", "There is no request in progress with a token.")


def anew(failure: BaseException) -> BaseException:
    """
    The same failure for somebody else to raise.

    One that is raised over and over would collect the ways of all its raisers, and keep alive what is
    named there.
    """
    return copy.copy(failure) if isinstance(failure, BrokerError) else failure
