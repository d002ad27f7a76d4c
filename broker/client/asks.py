"""What can be asked of the broker, once for both faces: form parameters, and the messages they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from broker.client import _reading as reading
from broker.client.answers import Explanation, Introspection, Token
from broker.client.failures import BadAnswer, CredentialUnusable
from broker.oauth import (
    GRANT_CLIENT_CREDENTIALS,
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
)

Answer = TypeVar("Answer")
Form = Sequence[tuple[str, str]]
_TOKENS: Final = frozenset({"actor_token", "assertion", "subject_token"})


@dataclass(frozen=True, slots=True)
class Ask(Generic[Answer]):
    """
    One question: its endpoint and form over HTTP, its method and fields over gRPC.

    ``read_json`` and ``read_message`` make the answer of either face. Both raise ``BadAnswer``, or what
    means the same (``UNREADABLE``). What is not answered over HTTP has no ``read_json``. ``targets`` go
    with the one question that has several.
    """

    endpoint: str
    method: str
    form: Form = field(repr=False)
    read_json: Callable[[Mapping[str, Any]], Answer] | None
    read_message: Callable[[Any], Answer]
    targets: "Sequence[Target]" = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What one of several tokens is to be for: a resource, and the scopes asked for there."""

    resource: str
    scopes: Sequence[str] = ()


def names_of(scopes: Sequence[str]) -> list[str]:
    """The scopes one by one; they may also come in one string, as OAuth writes them."""
    return scopes.split() if isinstance(scopes, str) else list(scopes)


class IdToken(str):
    """An ID token, which is exchanged as what it is wherever a subject token may stand (RFC 8693 3)."""

    __slots__ = ()


def type_of(subject_token: str) -> str:
    """What a subject token is taken for: an access token, unless it says otherwise."""
    is_identity = isinstance(subject_token, IdToken)
    return TOKEN_TYPE_ID_TOKEN if is_identity else TOKEN_TYPE_ACCESS_TOKEN


def exchange(
    subject_token: str,
    *,
    resource: str,
    scopes: Sequence[str] = (),
    subject_token_type: str | None = None,
    actor_token: str | None = None,
    actor_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
) -> Ask[Token]:
    """A token exchange (RFC 8693 2.1)."""
    return _token(
        "ExchangeToken",
        [
            ("grant_type", GRANT_TOKEN_EXCHANGE),
            ("subject_token", subject_token),
            ("subject_token_type", subject_token_type or type_of(subject_token)),
            *_actor(actor_token, actor_token_type),
            ("resource", resource),
            *_scope(scopes),
        ],
    )


def exchange_all(
    subject_token: str,
    targets: Sequence[Target],
    *,
    subject_token_type: str | None = None,
    actor_token: str | None = None,
    actor_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
) -> Ask[tuple[Token, ...]]:
    """Exchanges of one token for several targets, all or none; only the gRPC face answers this."""
    form = [
        ("grant_type", GRANT_TOKEN_EXCHANGE),
        ("subject_token", subject_token),
        ("subject_token_type", subject_token_type or type_of(subject_token)),
        *_actor(actor_token, actor_token_type),
    ]

    def read(message: Any) -> tuple[Token, ...]:
        tokens = reading.tokens_of_message(message)
        wanted = [[*form, ("resource", target.resource)] for target in targets]
        return tuple(_checked(*one) for one in zip(tokens, wanted, strict=True))

    return Ask("", "ExchangeTokens", form, None, read, tuple(targets))


def check_together(grpc: str | None) -> None:
    """Refuse to ask for several tokens, all or none, where that cannot be asked: raises ``BadAnswer``."""
    if grpc is None:
        raise BadAnswer(
            "Over HTTP nothing gives several tokens, all or none: use gRPC, or ask for them one by one."
        )


def issue_id_jag(
    id_token: str, *, audience: str, resource: str | None = None, scopes: Sequence[str] = ()
) -> Ask[Token]:
    """An identity assertion for another authorization server (ID-JAG 4.3)."""
    return _token(
        "ExchangeToken",
        [
            ("grant_type", GRANT_TOKEN_EXCHANGE),
            ("requested_token_type", TOKEN_TYPE_ID_JAG),
            ("subject_token", id_token),
            ("subject_token_type", TOKEN_TYPE_ID_TOKEN),
            ("audience", audience),
            *([] if resource is None else [("resource", resource)]),
            *_scope(scopes),
        ],
    )


def client_token(*, resource: str | None = None, scopes: Sequence[str] = ()) -> Ask[Token]:
    """A client's own token (RFC 6749 4.4.2)."""
    return _token(
        "IssueClientToken",
        [
            ("grant_type", GRANT_CLIENT_CREDENTIALS),
            *([] if resource is None else [("resource", resource)]),
            *_scope(scopes),
        ],
    )


def redeem(
    assertion: str, *, resource: str | None = None, scopes: Sequence[str] = ()
) -> Ask[Token]:
    """Redeem an assertion (RFC 7523 2.1)."""
    return _token(
        "RedeemAssertion",
        [
            ("grant_type", GRANT_JWT_BEARER),
            ("assertion", assertion),
            *([] if resource is None else [("resource", resource)]),
            *_scope(scopes),
        ],
    )


def presented_with(ask: Ask[Answer], grant: str | None) -> Ask[Answer]:
    """
    The same question by a client of which nothing speaks but this token, if there is one (RFC 7523 2.1).

    That is enough for a token of its own. Raises ``CredentialUnusable`` for all else.
    """
    if grant is None:
        return ask
    if ask.method != "IssueClientToken":
        raise CredentialUnusable("This workload's token is good for a token of its own alone.")
    wanted = [(name, value) for name, value in ask.form if name != "grant_type"]
    form = [("grant_type", GRANT_JWT_BEARER), ("assertion", grant), *wanted]
    return replace(ask, method="RedeemAssertion", form=form)


def introspect(token: str) -> Ask[Introspection]:
    """Whether a token still counts (RFC 7662 2.1)."""
    return Ask(
        "introspect",
        "IntrospectToken",
        [("token", token)],
        reading.introspection_of_json,
        reading.introspection_of_message,
    )


def revoke(token: str) -> Ask[None]:
    """Withdraw a token with all that was derived from it (RFC 7009 2.1)."""
    return Ask("revoke", "RevokeToken", [("token", token)], reading.nothing, reading.nothing)


def explain(
    subject_token: str, *, resource: str, scopes: Sequence[str] = (), client_id: str | None = None
) -> Ask[Explanation]:
    """What an exchange would lead to, and why; only the gRPC face answers this."""
    asked = exchange(subject_token, resource=resource, scopes=scopes)
    form = [*asked.form, *([] if client_id is None else [("explained_client_id", client_id)])]
    return Ask("", "ExplainDecision", form, None, reading.explanation_of_message)


def _actor(token: str | None, token_type: str) -> list[tuple[str, str]]:
    return [] if token is None else [("actor_token", token), ("actor_token_type", token_type)]


def _scope(scopes: Sequence[str]) -> list[tuple[str, str]]:
    return [("scope", " ".join(names_of(scopes)))] if scopes else []


def _token(method: str, form: Form) -> Ask[Token]:
    return Ask(
        "token",
        method,
        form,
        lambda body: _checked(reading.token_of_json(body), form),
        lambda message: _checked(reading.token_of_message(message), form),
    )


def _checked(token: Token, form: Form) -> Token:
    """The token, if it is neither what was handed in nor for something else; raises ``BadAnswer``."""
    given = {value for name, value in form if name in _TOKENS}
    asked = {_normal(value) for name, value in form if name == "resource"}
    if token.access_token in given:
        raise BadAnswer("What was handed in came back in place of a token.")
    if token.resource and asked and _normal(token.resource) not in asked:
        raise BadAnswer("What was issued is for another resource.")
    return token


def _normal(resource: str) -> str:
    """A resource as the broker writes it: the case of scheme and host does not matter, nor a lone slash."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        return resource
    path = "" if parts.path == "/" else parts.path
    return parts._replace(
        scheme=parts.scheme.lower(), netloc=parts.netloc.lower(), path=path
    ).geturl()
