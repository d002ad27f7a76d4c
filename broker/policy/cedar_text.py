"""Writes a piece of Cedar's syntax tree as Cedar text, with no more parentheses than it needs."""

import re
from collections.abc import Mapping

from cedarpy import pst

_IF, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(8)

_INFIX: Mapping[str, tuple[str, int]] = {
    "or": ("||", _OR),
    "and": ("&&", _AND),
    "eq": ("==", _RELATION),
    "not_eq": ("!=", _RELATION),
    "less": ("<", _RELATION),
    "less_eq": ("<=", _RELATION),
    "greater": (">", _RELATION),
    "greater_eq": (">=", _RELATION),
    "in": ("in", _RELATION),
    "add": ("+", _SUM),
    "sub": ("-", _SUM),
    "mul": ("*", _PRODUCT),
}
_IS_RIGHT_CLOSER = frozenset({"add", "sub", "mul", "and", "or"})
_PREFIX: Mapping[str, str] = {"not": "!", "neg": "-"}
_FUNCTIONS = frozenset({"datetime", "decimal", "duration", "ip"})
_IRREGULAR_METHODS: Mapping[str, str] = {
    "decimal_less_than": "lessThan",
    "decimal_less_eq": "lessThanOrEqual",
    "decimal_greater": "greaterThan",
    "decimal_greater_eq": "greaterThanOrEqual",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset({"true", "false", "if", "then", "else", "in", "like", "has", "is", "__cedar"})
_ESCAPES: Mapping[str, str] = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\0": "\\0",
}


def cedar_text(expression: pst.Expr) -> str:
    """The expression in Cedar, on one line."""
    return _write(expression, _IF)


def _write(expression: pst.Expr, level: int) -> str:
    text, own = _form(expression)
    return f"({text})" if own < level else text


def _form(expression: pst.Expr) -> tuple[str, int]:
    """The text of an expression, and how tightly it holds together."""
    match expression:
        case pst.BinaryOp():
            return _binary(expression)
        case pst.UnaryOp():
            return _unary(expression)
        case pst.HasAttr() | pst.Like() | pst.Is():
            return _relation(expression), _RELATION
        case pst.IfThenElse(cond=cond, then_expr=then, else_expr=other):
            return f"if {_write(cond, _IF)} then {_write(then, _IF)} else {_write(other, _IF)}", _IF
        case pst.LongLit(value=value):
            return str(value), _MEMBER if value >= 0 else _UNARY
        case _:
            return _primary(expression), _MEMBER


def _binary(expression: pst.BinaryOp) -> tuple[str, int]:
    operator = expression.op
    if operator not in _INFIX:
        return _method(operator, expression.left, expression.right), _MEMBER
    sign, level = _INFIX[operator]
    # Relations do not chain; sums, products and the logical operators lean to the left.
    left = level if operator in _IS_RIGHT_CLOSER else level + 1
    text = f"{_write(expression.left, left)} {sign} {_write(expression.right, level + 1)}"
    return text, level


def _unary(expression: pst.UnaryOp) -> tuple[str, int]:
    if expression.op in _PREFIX:
        argument = _write(expression.arg, _MEMBER)
        if isinstance(expression.arg, pst.LongLit):
            # Without parentheses a minus would become part of the number.
            argument = f"({argument})"
        return f"{_PREFIX[expression.op]}{argument}", _UNARY
    if expression.op in _FUNCTIONS:
        return f"{expression.op}({_write(expression.arg, _IF)})", _MEMBER
    return _method(expression.op, expression.arg), _MEMBER


def _method(operator: str, base: pst.Expr, *arguments: pst.Expr) -> str:
    first, *rest = operator.split("_")
    name = _IRREGULAR_METHODS.get(operator, first + "".join(map(str.capitalize, rest)))
    given = ", ".join(_write(one, _IF) for one in arguments)
    return f"{_write(base, _MEMBER)}.{name}({given})"


def _relation(expression: pst.HasAttr | pst.Like | pst.Is) -> str:
    base = _write(expression.base, _SUM)
    match expression:
        case pst.HasAttr(attrs=(name,)):
            return f"{base} has {name if _is_plain(name) else _quoted(name)}"
        case pst.HasAttr(attrs=names):
            return f"{base} has {'.'.join(names)}"
        case pst.Like(pattern=pattern):
            return f'{base} like "{"".join(map(_pattern_element, pattern))}"'
        case pst.Is(entity_type=kind, in_expr=group):
            return f"{base} is {kind}{'' if group is None else f' in {_write(group, _SUM)}'}"


def _pattern_element(element: pst.PatternElem) -> str:
    match element:
        case pst.Wildcard():
            return "*"
        case pst.Char(value="*"):
            return "\\*"
        case pst.Char(value=value):
            return _escaped(value)


def _primary(expression: pst.Expr) -> str:
    match expression:
        case pst.GetAttr(base=base, attr=name):
            member = f".{name}" if _is_plain(name) else f"[{_quoted(name)}]"
            return f"{_write(base, _MEMBER)}{member}"
        case pst.Set(elements=elements):
            return f"[{', '.join(_write(one, _IF) for one in elements)}]"
        case pst.Record(fields=members):
            pairs = (f"{_quoted(name)}: {_write(one, _IF)}" for name, one in members.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            return _atom(expression)


def _atom(expression: pst.Expr) -> str:
    match expression:
        case pst.BoolLit(value=value):
            return "true" if value else "false"
        case pst.StringLit(value=value):
            return _quoted(value)
        case pst.EntityLit(value=uid):
            return f"{uid.type}::{_quoted(uid.id)}"
        case pst.Var(name=name):
            return name
        case _:
            raise TypeError(f"not an expression of a policy: {type(expression).__name__}")


def _is_plain(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _RESERVED


def _quoted(value: str) -> str:
    return f'"{_escaped(value)}"'


def _escaped(value: str) -> str:
    return "".join(map(_escape, value))


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\u{{{ord(character):x}}}"
