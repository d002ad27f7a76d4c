"""The least change of the facts that would turn a condition, and how to say it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cedarpy import pst

from broker.policy import phrases
from broker.policy.case import PARENTS, Case, Edit
from broker.policy.cedar_text import cedar_text
from broker.policy.phrases import Path
from broker.policy.policies import handle

_IDENTITIES: Final = frozenset(
    {("resource", "name"), ("resource", "uri"), ("principal", "client_id")}
)
"""Facts that say what is asked for; with others it would be another question."""

_OPPOSITES: Final = {
    "eq": "not_eq",
    "not_eq": "eq",
    "less": "greater_eq",
    "less_eq": "greater",
    "greater": "less_eq",
    "greater_eq": "less",
}
_MIRRORED: Final = {
    "less": "greater",
    "less_eq": "greater_eq",
    "greater": "less",
    "greater_eq": "less_eq",
}
_ANYONE: Final = pst.ScopeAny()


@dataclass(frozen=True, slots=True)
class Change:
    """
    Facts that would have to be otherwise.

    ``phrase`` follows "if". ``edits`` is empty where the change cannot be tried here. ``guards`` are
    facts that would have to be known at all; where another change gives one, its guard says nothing.
    """

    phrase: str
    edits: tuple[Edit, ...] = ()
    guards: tuple[Path, ...] = ()


def changes_for(conditions: Iterable[pst.Expr], case: Case) -> list[Change]:
    """A change for each condition, so that all of them hold; guards that others imply are left out."""
    changes = [change_to(condition, case, wanted=True) for condition in conditions]
    given = {edit.path for change in changes for edit in change.edits if edit.value is not None}
    return [one for one in changes if not one.guards or not given.issuperset(one.guards)]


def change_to(condition: pst.Expr, case: Case, *, wanted: bool) -> Change:
    """The change after which a condition holds, or does not."""
    match condition:
        case pst.UnaryOp(op="not", arg=inner):
            return change_to(inner, case, wanted=not wanted)
        case pst.BinaryOp(op="and" | "or"):
            return _logical(condition, case, wanted=wanted)
        case pst.HasAttr() | pst.GetAttr():
            change = _fact(condition, wanted=wanted)
        case pst.BinaryOp(op=operator) if operator in _OPPOSITES:
            change = _comparison(condition, case, wanted=wanted)
        case pst.BinaryOp(op="contains" | "contains_all" | "contains_any"):
            change = _membership(condition, case, wanted=wanted)
        case pst.BinaryOp(op="in", left=pst.Var(name=name), right=pst.EntityLit(value=group)):
            change = _grouping(name, group, case=case, wanted=wanted)
        case _:
            change = None
    return change or _as_written(condition, wanted=wanted)


def holding(conditions: Sequence[pst.Expr], case: Case) -> set[int]:
    """The numbers of the conditions that hold, each tried alone; one that fails does not hold."""
    if not conditions:
        return set()
    trials = {
        str(number): pst.Template(
            str(number), "permit", _ANYONE, _ANYONE, _ANYONE, (pst.When(condition),), {}
        )
        for number, condition in enumerate(conditions)
    }
    return {int(number) for number in case.ask(handle(trials)).policy_ids}


def _logical(condition: pst.BinaryOp, case: Case, *, wanted: bool) -> Change:
    sides = (condition.left, condition.right)
    held = holding(sides, case)
    open_sides = [side for number, side in enumerate(sides) if (number in held) is not wanted]
    changes = [change_to(side, case, wanted=wanted) for side in open_sides]
    if not changes:
        return _as_written(condition, wanted=wanted)
    if (condition.op == "and") is not wanted:
        return next((change for change in changes if change.edits), changes[0])
    if wanted:
        changes = changes_for(open_sides, case) or changes
    return Change(
        " and ".join(change.phrase for change in changes),
        tuple(edit for change in changes for edit in change.edits)
        if all(change.edits for change in changes)
        else (),
    )


def _fact(condition: pst.HasAttr | pst.GetAttr, *, wanted: bool) -> Change | None:
    """The change of a fact that is there or not, or is true or not."""
    match condition:
        case pst.HasAttr(base=base, attrs=(name,)) if (path := _path(base)) is not None:
            place = (*path, name)
            if wanted:
                return Change(phrases.known(place), guards=(place,))
            return Change(phrases.absent(place), (Edit(place, None),))
        case pst.GetAttr() if (path := _path(condition)) is not None:
            return Change(phrases.is_so(path, wanted=wanted), (Edit(path, wanted),))
        case _:
            return None


def _comparison(condition: pst.BinaryOp, case: Case, *, wanted: bool) -> Change | None:
    operator = condition.op if wanted else _OPPOSITES[condition.op]
    left = (condition.left, operator, condition.right)
    right = (condition.right, _MIRRORED.get(operator, operator), condition.left)
    # What the caller brings along is easier to change than what is registered or asked for.
    for fact, sign, other in sorted((left, right), key=lambda one: not _is_context(one[0])):
        path, value = _path(fact), _value(other, case)
        if path is not None and value is not None:
            return _compared(path, sign, value)
    return None


def _compared(path: Path, operator: str, value: Any) -> Change:
    match operator:
        case "eq":
            return _set(path, value, phrases.equals(path, value))
        case "not_eq":
            return _set(path, _other_than(value), phrases.differs(path, [value]))
        case "less" | "less_eq":
            bound = value - (operator == "less")
            return _set(path, bound, phrases.compares(path, "at most", value=bound))
        case _:
            bound = value + (operator == "greater")
            return _set(path, bound, phrases.compares(path, "at least", value=bound))


def _membership(condition: pst.BinaryOp, case: Case, *, wanted: bool) -> Change | None:
    path, given = _path(condition.left), _value(condition.right, case)
    if path is not None and given is not None:
        values = [given] if condition.op == "contains" else sorted(given)
        return _having(path, condition.op, values=values, case=case, wanted=wanted)
    path, allowed = _path(condition.right), _value(condition.left, case)
    if path is None or not allowed or condition.op != "contains":
        return None
    if wanted:
        return _set(path, allowed[0], phrases.one_of(path, allowed))
    return _set(path, _other_than(*allowed), phrases.differs(path, allowed))


def _having(
    path: Path, operator: str, *, values: list[Any], case: Case, wanted: bool
) -> Change | None:
    has = frozenset(case.read(path) or ())
    if not values:
        return None
    if not wanted:
        # Of a set that must not hold all of several values it is enough to miss one.
        gone = values[:1] if operator == "contains_all" else values
        return _set(path, has - set(gone), phrases.lacks(path, phrases.alternatives(gone)))
    if operator == "contains_any":
        return _set(path, has | {values[0]}, phrases.holds(path, phrases.alternatives(values)))
    missing = [value for value in values if value not in has]
    return _set(path, has | set(missing), phrases.holds(path, phrases.together(missing)))


def _grouping(name: str, group: pst.EntityUid, *, case: Case, wanted: bool) -> Change | None:
    if name not in {"principal", "resource"} or not wanted:
        return None
    noun = "the client" if name == "principal" else "the scope"
    phrase = f"{noun} was in {group.type} {group.id}"
    if str(group.type) == "Resource":
        return Change(f"the resource asked for was {group.id}")
    parents = [*case.read((name, PARENTS)), {"type": str(group.type), "id": group.id}]
    return Change(phrase, (Edit((name, PARENTS), parents),))


def _other_than(*values: Any) -> Any:
    """Some value of the same type as these."""
    match values[0]:
        case int():
            return max(values) + 1
        case {"__entity": {"type": kind}}:
            return {"__entity": {"type": kind, "id": "(another)"}}
        case _:
            return "(another)"


def _set(path: Path, value: Any, phrase: str) -> Change:
    return Change(phrase, () if path in _IDENTITIES else (Edit(path, value),))


def _as_written(condition: pst.Expr, *, wanted: bool) -> Change:
    return Change(f"{cedar_text(condition)} was {'true' if wanted else 'false'}")


def _is_context(expression: pst.Expr) -> bool:
    path = _path(expression)
    return path is not None and path[0] == "context"


def _path(expression: pst.Expr) -> Path | None:
    match expression:
        case pst.Var(name=name):
            return (name,)
        case pst.GetAttr(base=base, attr=name):
            path = _path(base)
            return None if path is None else (*path, name)
        case _:
            return None


def _value(expression: pst.Expr, case: Case) -> Any:
    """What an operand comes to, or ``None`` where that takes more than looking it up."""
    match expression:
        case pst.StringLit(value=value) | pst.LongLit(value=value):
            return value
        case pst.EntityLit(value=uid):
            return {"__entity": {"type": str(uid.type), "id": uid.id}}
        case pst.Set(elements=elements):
            values = [_value(element, case) for element in elements]
            return None if None in values else values
        case pst.GetAttr():
            path = _path(expression)
            return None if path is None else case.read(path)
        case _:
            return None
