"""Answers of either face become objects; every reader raises ``BadAnswer`` or an error that means it."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

from broker.client.answers import Explanation, Introspection, Token
from broker.client.failures import BadAnswer
from broker.oauth import TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_ID_JAG, TOKEN_TYPE_NOT_APPLICABLE

UNREADABLE: Final = (KeyError, TypeError, ValueError, RecursionError)
"""What a reader raises when an answer lacks what was asked for."""

NO_ANSWER: Final = "The answer lacks what was asked for."

_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_LONGEST_LIFE: Final = 10**9


def token_of_json(body: Mapping[str, Any]) -> Token:
    """A token response (RFC 6749 5.1, RFC 8693 2.2.1)."""
    return Token(
        access_token=_bearable(body["access_token"]),
        token_type=_text(body["token_type"]),
        expires_in=_seconds(body["expires_in"]),
        scopes=frozenset(_text(body.get("scope", "")).split()),
        resource=_text(body.get("resource", "")),
        issued_token_type=_text(body.get("issued_token_type", TOKEN_TYPE_ACCESS_TOKEN)),
    )


def token_of_message(message: Any) -> Token:
    """The same over gRPC."""
    return _token(message.issued_token)


def tokens_of_message(message: Any) -> tuple[Token, ...]:
    """Several tokens that were issued together."""
    return tuple(map(_token, message.issued_tokens))


def _token(issued: Any) -> Token:
    is_id_jag = issued.token_type == TOKEN_TYPE_NOT_APPLICABLE
    return Token(
        access_token=_bearable(issued.access_token),
        token_type=issued.token_type,
        expires_in=_seconds(issued.expires_in),
        scopes=frozenset(issued.scopes),
        resource=issued.resource,
        issued_token_type=TOKEN_TYPE_ID_JAG if is_id_jag else TOKEN_TYPE_ACCESS_TOKEN,
    )


def introspection_of_json(body: Mapping[str, Any]) -> Introspection:
    """What is told of a token (RFC 7662 2.2)."""
    is_active = body["active"]
    if not isinstance(is_active, bool):
        raise BadAnswer(NO_ANSWER)
    return Introspection(is_active, body if is_active else {})


def introspection_of_message(message: Any) -> Introspection:
    """The same over gRPC, where the document comes as JSON too."""
    if not message.active:
        return Introspection(is_active=False)
    return introspection_of_json(json.loads(message.document_json))


def explanation_of_message(message: Any) -> Explanation:
    """An explanation."""
    return Explanation(
        is_permitted=message.is_permitted,
        error=message.error,
        reason=message.reason,
        scopes={scope.scope: _verdict(scope) for scope in message.scopes},
        grounds=tuple(_grounds(message)),
        claims=json.loads(message.claims_json) if message.claims_json else None,
        policy_digest=message.policy_digest,
    )


def _verdict(scope: Any) -> str:
    """The verdict's name, such as ``permit``; its number where this library is the older one."""
    known = scope.DESCRIPTOR.fields_by_name["verdict"].enum_type.values_by_number.get(scope.verdict)
    name = str(scope.verdict) if known is None else known.name
    return name.removeprefix("POLICY_VERDICT_").lower()


def _grounds(message: Any) -> list[str]:
    lines = []
    for scope in message.scopes:
        lines += [f"{one.id} ({one.file}:{one.line})" for one in scope.policies]
        for miss in scope.nearest_misses:
            lines.append(f"{miss.policy.id} ({miss.policy.file}:{miss.policy.line}): {miss.change}")
    return lines


def nothing(_answer: object) -> None:
    """There is nothing to read in an answer that only says that it was done."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _bearable(value: object) -> str:
    """A token that can stand in a header."""
    text = _text(value)
    if not _TOKEN.fullmatch(text):
        raise BadAnswer("What was issued is no token.")
    return text


def _seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not 0 <= value <= _LONGEST_LIFE:
        raise ValueError("not a lifetime")
    return math.floor(value)
