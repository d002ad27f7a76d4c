"""Which workload is which client: an issuer's rules, held against a token's verified claims."""

from collections.abc import Iterable
from typing import Any

from broker.errors import Reason, TokenRejected
from broker.model import JsonObject, WorkloadRule
from broker.tokens.json_pointer import value_at


def client_named(rules: Iterable[WorkloadRule], claims: JsonObject) -> str:
    """
    The id of the client that the claims speak for.

    Raises ``TokenRejected`` (``workload_unknown``) when no rule fits, and when those of several clients
    do: the order of rules decides nothing, and nobody can tell which client was meant.
    """
    named = {rule.client_id for rule in rules if _fits(rule, claims)}
    if len(named) != 1:
        detail = "rules of several clients fit" if named else "no rule fits"
        raise TokenRejected(Reason.WORKLOAD_UNKNOWN, detail)
    return named.pop()


def _fits(rule: WorkloadRule, claims: JsonObject) -> bool:
    """A rule without claims would be fitted by everybody, so it is fitted by nobody."""
    return bool(rule.claims) and all(
        _holds(_claim(claims, name), wanted) for name, wanted in rule.claims.items()
    )


def _claim(claims: JsonObject, name: str) -> Any:
    return value_at(claims, name) if name.startswith("/") else claims.get(name)


def _holds(value: Any, wanted: str) -> bool:
    """Text is compared with text: no number, boolean or object is the same as its spelling."""
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(text, str) and text == wanted for text in texts)
