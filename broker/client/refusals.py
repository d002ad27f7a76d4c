"""Why a request is not served, each with the answer that tells its client what to do."""

from collections.abc import Iterable
from typing import ClassVar, Final

from broker.client.resource import challenge, metadata_url
from broker.errors import Reason
from broker.oauth import PROOF_ALGORITHMS, TOKEN_TYPE_BEARER, TOKEN_TYPE_DPOP

_ABOUT_PROOFS: Final = frozenset({Reason.POP_REQUIRED, Reason.POP_MISMATCH})


class NotServed(Exception):
    """
    A request is not served, and this is what its client is told.

    ``status`` is the HTTP status and ``grpc_status`` the name of the other; ``error`` is the code and
    ``description`` a sentence that may be shown. ``www_authenticate`` is the challenge, ready to be sent;
    where it is empty, no other token would help. Nothing in it holds any part of a token.
    """

    status: ClassVar[int] = 401
    grpc_status: ClassVar[str] = "UNAUTHENTICATED"
    error: ClassVar[str] = ""

    def __init__(self, description: str, www_authenticate: str = "") -> None:
        super().__init__(f"{self.error}: {description}" if self.error else description)
        self.description = description
        self.www_authenticate = www_authenticate


class NoToken(NotServed):
    """There is no token in the request; the challenge tells where to get one (RFC 6750 3.1)."""

    def __init__(self, resource: str, scopes: Iterable[str] = ()) -> None:
        value = challenge(
            TOKEN_TYPE_BEARER, scope=_joined(scopes), resource_metadata=metadata_url(resource)
        )
        super().__init__("A token is required.", value)


class InvalidToken(NotServed):
    """
    The token is not accepted; ``reason`` says why.

    What ``reason.sentence`` tells helps an honest client and nobody else.
    """

    error = "invalid_token"

    def __init__(self, reason: Reason, resource: str, *, scopes: Iterable[str] = ()) -> None:
        is_about_proof = reason in _ABOUT_PROOFS or self.error != "invalid_token"
        value = challenge(
            TOKEN_TYPE_DPOP if is_about_proof else TOKEN_TYPE_BEARER,
            error=self.error,
            error_description=reason.sentence,
            algs=" ".join(PROOF_ALGORITHMS) if is_about_proof else None,
            scope=_joined(scopes),
            resource_metadata=metadata_url(resource),
        )
        super().__init__(reason.sentence, value)
        self.reason = reason


class InvalidProof(InvalidToken):
    """The token may be good; the proof of the key that it is bound to is not (RFC 9449 7.1)."""

    error = "invalid_dpop_proof"


class InsufficientScope(NotServed):
    """
    The token is good and not for this: it lacks ``missing``.

    The challenge names ``needed``, all that the operation needs, so that one more token will do.
    """

    status = 403
    grpc_status = "PERMISSION_DENIED"
    error = "insufficient_scope"

    def __init__(self, resource: str, *, needed: Iterable[str], missing: Iterable[str]) -> None:
        self.needed, self.missing = frozenset(needed), frozenset(missing)
        description = "The token does not have the scopes that this needs."
        value = challenge(
            TOKEN_TYPE_BEARER,
            error=self.error,
            error_description=description,
            scope=_joined(self.needed),
            resource_metadata=metadata_url(resource),
        )
        super().__init__(description, value)


class InsufficientLogin(NotServed):
    """The user must log in more strongly, or again, for a token that serves for this (RFC 9470 3)."""

    error = "insufficient_user_authentication"

    def __init__(self, resource: str, *, acr_values: Iterable[str], max_age: int | None) -> None:
        self.acr_values, self.max_age = tuple(acr_values), max_age
        description = Reason.STEP_UP_REQUIRED.sentence
        value = challenge(
            TOKEN_TYPE_BEARER,
            error=self.error,
            error_description=description,
            acr_values=" ".join(self.acr_values),
            max_age=None if max_age is None else str(max_age),
            resource_metadata=metadata_url(resource),
        )
        super().__init__(description, value)


class Unverifiable(NotServed):
    """
    Nobody can tell now whether the token is good: keys or revocations cannot be had.

    Another token would not help, so there is no challenge. ``retry_after`` is in seconds; ``detail`` is for
    the operator alone.
    """

    status = 503
    grpc_status = "UNAVAILABLE"
    error = "temporarily_unavailable"

    def __init__(self, description: str, *, retry_after: int = 1, detail: str = "") -> None:
        super().__init__(description)
        self.retry_after = retry_after
        self.detail = detail


def _joined(scopes: Iterable[str]) -> str:
    return " ".join(sorted(scopes))
