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
from broker.audit.text import is_plain, safe_text
from broker.errors import Reason
from broker.model import Admission, InputToken, KeyChange, KeyExposure, ScopeDecision

_OBJECT_DEPTH: Final = 3
_SEQUENCES: Final = (list, tuple)
# Integers beyond this are not safe to exchange in JSON (RFC 8259 6).
_LARGEST_INTEGER: Final = 2**53 - 1

# The members of nearly every actor; an object with other members is looked at on its own.
_ACTOR_MEMBERS: Final = frozenset({"client_id", "iss", "sub", "sub_profile"})

_Item = TypeVar("_Item")


class Facts:
    """
    What is noted of a request, in the form that a record holds; ``None`` stands for a fact to be left out.

    Nearly all texts that are noted are plain, and that is seen at one glance at all of them together, when
    the record is closed. So a fact of text is kept as it is noted. ``loose`` has those facts that are
    still to be looked at, and ``texts`` what is text in those that are no text themselves. Only when one
    text is not plain is each bounded by itself. A fact in an unusual form is bounded when it is noted.
    ``admitted`` is carried along, and not in the record.
    """

    __slots__ = ("admitted", "held", "loose", "texts")

    def __init__(self, told: dict[str, Any]) -> None:
        self.admitted: Admission | None = None
        self.held = told
        self.loose = told.copy()
        self.texts: list[str] = []

    def note(self, **facts: Any) -> None:
        """
        Add facts.

        Raises ``ValueError`` for a name that is not on the list or a reason that is not on its own, and
        ``TypeError`` for a value of the wrong type: mistakes in the program, never the fault of a request.
        """
        for name, value in facts.items():
            if name not in _USUAL_TYPES:
                raise ValueError(f"an audit record has no fact named {name!r}")
            usual: Any = _USUAL_TYPES[name]
            if value is None:
                self.held[name] = None
            elif type(value) is not usual:
                self.held[name] = _BOUNDERS[name](value)
            elif usual is str:
                self.held[name] = self.loose[name] = value
            elif usual is int and 0 <= value <= _LARGEST_INTEGER:
                self.held[name] = value
            else:
                self._take(name, value)

    def noted(self, name: str) -> Any:
        """A fact that was noted, or ``None``."""
        return self.held.get(name)

    def _take(self, name: str, value: Any) -> None:
        copy = _COPIES[name](value, self.texts) if name in _COPIES else None
        if copy is None:
            self.held[name] = _BOUNDERS[name](value)
        else:
            self.held[name] = self.loose[name] = copy

    def add(self, other: "Facts") -> None:
        """Note what the other was told, too."""
        self.held.update(other.held)
        self.loose.update(other.loose)
        self.texts += other.texts

    def settled(self) -> dict[str, Any]:
        """All facts, whose texts are now looked at."""
        texts = [fact for fact in self.loose.values() if type(fact) is str]
        if not is_plain(texts + self.texts, ID_LIMIT):
            for name, value in self.loose.items():
                if self.held[name] is value:
                    self.held[name] = _BOUNDERS[name](value)
        self.loose, self.texts = {}, []
        return self.held


def _text_within(limit: int) -> Callable[[object], str]:
    def bound(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError(f"an audit fact is text, not {type(value).__name__}")
        text = str.__str__(value)
        return text if is_plain((text,), limit) else safe_text(text, limit)

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
    return _listed(value, bounded_id, cut=str)


def _copied_ids(value: tuple[object, ...], texts: list[str]) -> list[str] | None:
    """
    A copy in the form that a record holds, whose texts are added to ``texts``, still to be looked at.

    ``None`` where the value is unusual, so that it has to be bounded at once.
    """
    if len(value) > LIST_LIMIT:
        return None
    for item in value:
        if type(item) is not str:
            return None
        texts += (item,)
    return [*value]  # type: ignore[list-item] # Each was looked at.


def _objects(value: object) -> list[dict[str, Any]]:
    return _listed(value, _object, cut=lambda marker: {"cut": marker})


def _copied_actors(value: tuple[Any, ...], texts: list[str]) -> list[dict[str, Any]] | None:
    """The same for actors."""
    if len(value) > LIST_LIMIT:
        return None
    copies = []
    for actor in value:
        if type(actor) is not dict:
            return None
        for name in actor:
            if name not in _ACTOR_MEMBERS or type(actor[name]) is not str:
                return None
            texts += (actor[name],)
        copies.append({**actor})
    return copies


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
    return _listed(
        value, _input, cut=lambda marker: InputFact(slot=marker, issuer="", expires_at=0)
    )


def _copied_inputs(value: tuple[Any, ...], texts: list[str]) -> list[InputFact] | None:
    """The same for tokens that were presented."""
    if len(value) > LIST_LIMIT:
        return None
    copies = []
    for one in value:
        if type(one) is not InputToken or not 0 <= one.expires_at <= _LARGEST_INTEGER:
            return None
        texts += (one.slot, one.issuer, one.jti or "")
        copies.append(
            InputFact(slot=one.slot, issuer=one.issuer, expires_at=one.expires_at, jti=one.jti)
        )
    return copies


def _input(value: InputToken | InputFact | Mapping[str, Any]) -> InputFact:
    if not isinstance(value, InputToken | InputFact):
        value = InputToken(**{"jti": None, **value})
    return InputFact(
        slot=bounded_id(value.slot),
        issuer=bounded_id(value.issuer),
        expires_at=_integer(value.expires_at),
        jti=None if value.jti is None else bounded_id(value.jti),
    )


def _scope_facts(value: object) -> list[ScopeFact]:
    return _listed(value, _scope_fact, cut=lambda marker: ScopeFact(scope=marker, verdict=""))


def _copied_scopes(value: tuple[Any, ...], _texts: list[str]) -> list[ScopeFact] | None:
    """The same for decisions, in which nothing is left to be looked at."""
    if len(value) > LIST_LIMIT:
        return None
    for one in value:
        if type(one) is not ScopeDecision:
            return None
    return list(map(_scope_fact_of, value))


def _scope_fact(value: ScopeDecision | ScopeFact | Mapping[str, Any]) -> ScopeFact:
    if isinstance(value, ScopeFact):
        return value
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
    return _listed(
        value,
        _key_change,
        cut=lambda marker: KeyChangeFact(kid=marker, to_state="", at=0, algorithm=""),
    )


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

_HINTS: Final = get_type_hints(Record, include_extras=True)
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
_USUAL_BY_TYPE: Final[Mapping[Any, type]] = {int | None: int, Text | None: str, Id | None: str}
_COPY_BY_TYPE: Final[Mapping[Any, Callable[[tuple[Any, ...], list[str]], Any]]] = {
    Ids | None: _copied_ids,
    Objects | None: _copied_actors,
    Inputs | None: _copied_inputs,
    ScopeFacts | None: _copied_scopes,
}

_OTHERS_FACTS: Final = frozenset({"boot_id", "cause", "group", "log_id", "torn_bytes"})
"""What the chain or the entry itself puts into a record."""

_BOUNDERS: Final[Mapping[str, Callable[[object], Any]]] = {
    **{name: _BOUND_BY_TYPE[hint] for name, hint in _HINTS.items() if hint in _BOUND_BY_TYPE},
    "event_id": bounded_id,
    "reason": _reason,
}
# Facts are exactly the members of a record that may be absent, so that a name is declared once.
_USUAL_TYPES: Final[Mapping[str, type]] = {
    name: _USUAL_BY_TYPE.get(_HINTS[name], tuple)
    for name in _BOUNDERS
    if name != "event_id" and name not in _OTHERS_FACTS
} | {"reason": Reason}
"""Each fact, and the type in which it is nearly always noted."""
_COPIES: Final = {
    name: _COPY_BY_TYPE[hint] for name, hint in _HINTS.items() if hint in _COPY_BY_TYPE
}
