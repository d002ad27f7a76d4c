"""What can be asked of the broker, once for both faces: form parameters, and the messages they make."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from broker.client.answers import Explanation, Introspection, Token
from broker.client.failures import BadAnswer
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

NO_ANSWER: Final = "The answer lacks what was asked for."


@dataclass(frozen=True, slots=True)
class Ask(Generic[Answer]):
    """
    One question: its endpoint and form over HTTP, its method and fields over gRPC.

    ``read_json`` and ``read_message`` make the answer of either face. Both raise ``BadAnswer``.
    """

    endpoint: str
    method: str
    form: Form = field(repr=False)
    read_json: Callable[[Mapping[str, Any]], Answer]
    read_message: Callable[[Any], Answer]


def exchange(
    subject_token: str,
    *,
    resource: str,
    scopes: Sequence[str] = (),
    subject_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
    actor_token: str | None = None,
    actor_token_type: str = TOKEN_TYPE_ACCESS_TOKEN,
) -> Ask[Token]:
    """A token exchange (RFC 8693 2.1)."""
    actor = (
        []
        if actor_token is None
        else [
            ("actor_token", actor_token),
            ("actor_token_type", actor_token_type),
        ]
    )
    return _token(
        "ExchangeToken",
        [
            ("grant_type", GRANT_TOKEN_EXCHANGE),
            ("subject_token", subject_token),
            ("subject_token_type", subject_token_type),
            *actor,
            ("resource", resource),
            *_scope(scopes),
        ],
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


def introspect(token: str) -> Ask[Introspection]:
    """Whether a token still counts (RFC 7662 2.1)."""
    return Ask(
        "introspect", "IntrospectToken", [("token", token)], _introspection, _introspection_message
    )


def revoke(token: str) -> Ask[None]:
    """Withdraw a token with all that was derived from it (RFC 7009 2.1)."""
    return Ask("revoke", "RevokeToken", [("token", token)], _nothing, _nothing)


def explain(
    subject_token: str, *, resource: str, scopes: Sequence[str] = (), client_id: str | None = None
) -> Ask[Explanation]:
    """What an exchange would lead to, and why; only the gRPC face answers this."""
    asked = exchange(subject_token, resource=resource, scopes=scopes)
    form = [*asked.form, *([] if client_id is None else [("explained_client_id", client_id)])]
    return Ask("", "ExplainDecision", form, _no_json, _explanation)


def _scope(scopes: Sequence[str]) -> list[tuple[str, str]]:
    return [("scope", " ".join(scopes))] if scopes else []


def _token(method: str, form: Form) -> Ask[Token]:
    return Ask("token", method, form, _token_of_json, _token_of_message)


def _token_of_json(body: Mapping[str, Any]) -> Token:
    try:
        return Token(
            access_token=_text(body["access_token"]),
            token_type=_text(body["token_type"]),
            expires_in=int(body["expires_in"]),
            scopes=frozenset(_text(body.get("scope", "")).split()),
            resource=_text(body.get("resource", "")),
            issued_token_type=_text(body.get("issued_token_type", TOKEN_TYPE_ACCESS_TOKEN)),
        )
    except (KeyError, TypeError, ValueError):
        raise BadAnswer(NO_ANSWER) from None


def _token_of_message(message: Any) -> Token:
    issued = message.issued_token
    is_id_jag = issued.token_type == "N_A"
    return Token(
        access_token=issued.access_token,
        token_type=issued.token_type,
        expires_in=issued.expires_in,
        scopes=frozenset(issued.scopes),
        resource=issued.resource,
        issued_token_type=TOKEN_TYPE_ID_JAG if is_id_jag else TOKEN_TYPE_ACCESS_TOKEN,
    )


def _introspection(body: Mapping[str, Any]) -> Introspection:
    is_active = body.get("active")
    if not isinstance(is_active, bool):
        raise BadAnswer(NO_ANSWER)
    return Introspection(is_active, body if is_active else {})


def _introspection_message(message: Any) -> Introspection:
    if not message.active:
        return Introspection(is_active=False)
    return _introspection(json.loads(message.document_json))


def _explanation(message: Any) -> Explanation:
    verdicts = (
        type(message.scopes[0]).DESCRIPTOR.fields_by_name["verdict"] if message.scopes else None
    )
    names = (
        {}
        if verdicts is None
        else {
            value.number: value.name.removeprefix("POLICY_VERDICT_").lower()
            for value in verdicts.enum_type.values
        }
    )
    return Explanation(
        is_permitted=message.is_permitted,
        error=message.error,
        reason=message.reason,
        scopes={scope.scope: names[scope.verdict] for scope in message.scopes},
        grounds=tuple(_grounds(message)),
        claims=json.loads(message.claims_json) if message.claims_json else None,
        policy_digest=message.policy_digest,
    )


def _grounds(message: Any) -> list[str]:
    lines = []
    for scope in message.scopes:
        lines += [f"{one.id} ({one.file}:{one.line})" for one in scope.policies]
        for miss in scope.nearest_misses:
            lines.append(f"{miss.policy.id} ({miss.policy.file}:{miss.policy.line}): {miss.change}")
    return lines


def _nothing(_answer: object) -> None:
    return None


def _no_json(_body: Mapping[str, Any]) -> Explanation:
    raise BadAnswer("Only the gRPC face explains.")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value
