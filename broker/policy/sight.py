"""What a set of policies can see of a query, read off their syntax tree."""

from collections.abc import Iterable, Iterator

from cedarpy import pst

from broker.policy.facts import AUTH, NAMES, Sight
from broker.policy.syntax import children

_COMPARISONS = frozenset({"eq", "not_eq", "less", "less_eq", "greater", "greater_eq"})
_AGE = pst.GetAttr(pst.GetAttr(pst.Var("context"), "auth"), "age")


def sight_of(policies: Iterable[pst.Template]) -> Sight:
    """
    What these policies see.

    A fact is seen when any attribute of its name is mentioned anywhere, which can only err towards
    seeing more.
    """
    expressions = [clause.expr for policy in policies for clause in policy.clauses]
    steps = {step for expression in expressions for step in _age_steps(expression)}
    known = sorted(step for step in steps if step is not None)
    return Sight.of(
        (name for expression in expressions for name in _mentioned(expression)),
        age_steps=None if None in steps else tuple(known),
    )


def everything() -> Sight:
    """All there is to see."""
    return Sight.of(NAMES, age_steps=None)


def _mentioned(expression: pst.PstNode, *, is_base: bool = False) -> Iterator[str]:
    """
    The names of the attributes that an expression can tell apart.

    A record that is used as a whole, not just to reach into it, shows everything in it.
    """
    match expression:
        case pst.Var(name="context") if not is_base:
            yield from NAMES
        case pst.GetAttr(base=base, attr=name):
            yield name
            if name == "auth" and not is_base:
                yield from AUTH
            yield from _mentioned(base, is_base=True)
        case pst.HasAttr(base=base, attrs=names):
            yield from names
            yield from _mentioned(base, is_base=True)
        case _:
            for child in children(expression):
                yield from _mentioned(child)


def _age_steps(expression: pst.PstNode, *, is_base: bool = False) -> Iterator[int | None]:
    """The numbers that a login's age is compared with, and ``None`` for any other use of it."""
    match expression:
        case (
            pst.BinaryOp(op=operator, left=pst.LongLit(value=step), right=age)
            | pst.BinaryOp(op=operator, left=age, right=pst.LongLit(value=step))
        ) if age == _AGE and operator in _COMPARISONS:
            yield step
        case pst.GetAttr(attr="age"):
            yield None
        case pst.GetAttr(attr="auth") | pst.Var(name="context") if not is_base:
            yield None
        case pst.GetAttr(base=base) | pst.HasAttr(base=base):
            yield from _age_steps(base, is_base=True)
        case _:
            for child in children(expression):
                yield from _age_steps(child)
