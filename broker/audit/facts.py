"""How facts are brought into the form that an audit record holds: known by name, typed, bounded."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, Final, TypeVar, get_type_hints

from broker.audit.record import (
    ID_LIMIT,
    LIST_LIMIT,
    TEXT_LIMIT,
    ExposureFact,
    Id,
    Ids,
    InputFact,
    Inputs,
    KeyChangeFact,
    KeyChanges,
    Objects,
    Record,
    ScopeFact,
    ScopeFacts,
    Text,
)
from broker.audit.text import safe_text
from broker.errors import Reason
from broker.model import InputToken, KeyChange, KeyExposure, ScopeDecision

_OBJECT_DEPTH: Final = 3
_SEQUENCES: Final = (list, tuple)
# Integers beyond this are not safe to exchange in JSON (RFC 8259 6).
_LARGEST_INTEGER: Final = 2**53 - 1

_Item = TypeVar("_Item")


def bounded(facts: Mapping[str, object]) -> dict[str, Any]:
    """
    The facts in the form that a record holds; ``None`` stands for a fact to be left out.

    Raises ``ValueError`` for a name that is not on the list or a reason that is not on its own, and
    ``TypeError`` for a value of the wrong type: mistakes in the program, never the fault of a
    request.
    """
    held = {}
    for name, value in facts.items():
        bound = _BOUNDERS.get(name)
        if bound is None:
            raise ValueError(f"an audit record has no fact named {name!r}")
        held[name] = None if value is None else bound(value)
    return held


def _text_within(limit: int) -> Callable[[object], str]:
    def bound(value: object) -> str:
        # Nearly every fact is short, printable and without the beginning of a compact JWS, which
        # is the encoding of a brace: "ew" to "ey", or of a secret. Such a fact is kept as it is.
        if (
            type(value) is str
            and len(value) <= limit
            and value.isprintable()
            and "ey" not in value
            and "ew" not in value
            and "bks_" not in value
            and "asic" not in value
        ):
            return value
        if not isinstance(value, str):
            raise TypeError(f"an audit fact is text, not {type(value).__name__}")
        return safe_text(str.__str__(value), limit)

    return bound


bounded_text: Final = _text_within(TEXT_LIMIT)
"""Text in the form that a record holds."""
bounded_id: Final = _text_within(ID_LIMIT)
"""An id in the form that a record holds."""
_bounded_name: Final = _text_within(128)


def _reason(value: object) -> str:
    code = value.code if isinstance(value, Reason) else value
    if code not in _REASONS:
        raise ValueError("an audit record's reason comes from the closed list")
    return str(code)


def _integer(value: object) -> int:
    if type(value) is int and -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
        return value
    if isinstance(value, timedelta):
        value = int(value.total_seconds())
    if not isinstance(value, int):
        raise TypeError(f"an audit fact is an integer, not {type(value).__name__}")
    return max(-_LARGEST_INTEGER, min(int(value), _LARGEST_INTEGER))


def _listed(
    value: object, bound: Callable[[Any], _Item], *, cut: Callable[[str], _Item]
) -> list[_Item]:
    """
    Each item bounded; a set is put in order first.

    When there are too many items, ``cut`` makes a last one that tells how many there were.
    """
    if isinstance(value, set | frozenset):
        value = sorted(value)
    elif not isinstance(value, _SEQUENCES):
        raise TypeError(f"an audit fact is a list, not {type(value).__name__}")
    if len(value) <= LIST_LIMIT:
        return list(map(bound, value))
    marker = cut(f"[cut, {len(value)} items]")
    return [*(bound(item) for item in value[: LIST_LIMIT - 1]), marker]


def _ids(value: object) -> list[str]:
    if isinstance(value, _SEQUENCES) and len(value) <= LIST_LIMIT:
        return list(map(bounded_id, value))
    return _listed(value, bounded_id, cut=str)


def _objects(value: object) -> list[dict[str, Any]]:
    return _listed(value, _object, cut=lambda marker: {"cut": marker})


def _object(value: Mapping[str, Any], depth: int = _OBJECT_DEPTH) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"an audit fact is an object, not {type(value).__name__}")
    held = {}
    for name, item in islice(value.items(), LIST_LIMIT):
        held[_bounded_name(name)] = (
            bounded_id(item) if isinstance(item, str) else _json(item, depth - 1)
        )
    return held


def _json(value: object, depth: int) -> Any:
    """JSON of any shape with every text, number, list, object and depth bounded."""
    if isinstance(value, str):
        return bounded_id(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return _integer(value)
    if depth <= 0:
        return "[cut, nested too deeply]"
    if isinstance(value, Mapping):
        return _object(value, depth)
    return _listed(value, lambda item: _json(item, depth - 1), cut=str)


def _inputs(value: object) -> list[InputFact]:
    return _listed(value, _input, cut=lambda marker: InputFact(marker, "", 0))


def _input(value: InputToken | Mapping[str, Any]) -> InputFact:
    if not isinstance(value, InputToken):
        value = InputToken(**{"jti": None, **value})
    return InputFact(
        slot=bounded_id(value.slot),
        issuer=bounded_id(value.issuer),
        expires_at=_integer(value.expires_at),
        jti=None if value.jti is None else bounded_id(value.jti),
    )


def _scope_facts(value: object) -> list[ScopeFact]:
    return _listed(value, _scope_fact, cut=lambda marker: ScopeFact(marker, ""))


def _scope_fact(value: ScopeDecision | Mapping[str, Any]) -> ScopeFact:
    if not isinstance(value, ScopeDecision):
        value = ScopeDecision(**value)
    return _scope_fact_of(value)


# Decisions come from a memory themselves, and all that is in one an operator has declared: scopes,
# policies, and what Cedar says of these.
@lru_cache(maxsize=1024)
def _scope_fact_of(value: ScopeDecision) -> ScopeFact:
    return ScopeFact(
        scope=bounded_id(value.scope),
        verdict=bounded_id(value.verdict),
        policy_ids=_ids(value.policy_ids),
        errors=_ids(value.errors),
    )


def _key_changes(value: object) -> list[KeyChangeFact]:
    return _listed(value, _key_change, cut=lambda marker: KeyChangeFact(marker, "", 0, ""))


def _key_change(value: KeyChange) -> KeyChangeFact:
    return KeyChangeFact(
        kid=bounded_id(value.kid),
        to_state=bounded_id(value.to_state),
        at=_integer(value.at),
        algorithm=bounded_id(value.algorithm),
        from_state=None if value.from_state is None else bounded_id(value.from_state),
        replica=bounded_id(value.replica) if value.replica else None,
    )


def _exposure(value: object) -> ExposureFact:
    if not isinstance(value, KeyExposure):
        raise TypeError(f"an exposure is not a {type(value).__name__}")
    return ExposureFact(
        stopped_at=_integer(value.stopped_at),
        accepted_until=_integer(value.accepted_until),
        expired_at=_integer(value.expired_at),
        known_from=_integer(value.known_from),
        cut_off_until=_integer(value.cut_off_until),
    )


_REASONS: Final = frozenset(reason.code for reason in Reason)

_BOUND_BY_TYPE: Final[Mapping[Any, Callable[[object], Any]]] = {
    int | None: _integer,
    Text | None: bounded_text,
    Id | None: bounded_id,
    Ids | None: _ids,
    Objects | None: _objects,
    Inputs | None: _inputs,
    KeyChanges | None: _key_changes,
    ExposureFact | None: _exposure,
    ScopeFacts | None: _scope_facts,
}

_OTHERS_FACTS: Final = frozenset({"boot_id", "cause", "group", "torn_bytes"})
"""What the chain or the entry itself puts into a record."""

# Facts are exactly the members of a record that may be absent, so that a name is declared once.
_BOUNDERS: Final[Mapping[str, Callable[[object], Any]]] = {
    name: _reason if name == "reason" else _BOUND_BY_TYPE[hint]
    for name, hint in get_type_hints(Record, include_extras=True).items()
    if hint in _BOUND_BY_TYPE and name not in _OTHERS_FACTS
}
