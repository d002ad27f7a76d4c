"""Cedar's syntax: where the policies of a file begin, and the pieces of their conditions."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from cedarpy import pst

# A string or a comment may hold a semicolon; nothing else may but the end of a policy.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|\s+|;|[^\s";/]+|.', re.DOTALL)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The policies in a text, each with the line on which it begins, counted from 1."""
    line, first, start, position = 1, 0, 0, 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        is_blank = token.isspace() or token.startswith("//")
        if not is_blank and not first:
            first, start = line, match.start()
        line += token.count("\n")
        position = match.end()
        if token == ";":
            yield first, text[start:position]
            first = 0
    if first:
        yield first, text[start:position]


def children(node: pst.PstNode) -> Iterator[pst.PstNode]:
    """The nodes directly below a node of the syntax tree."""
    for one in fields(node):
        yield from _nodes(getattr(node, one.name))


def _nodes(value: Any) -> Iterator[pst.PstNode]:
    if isinstance(value, tuple):
        for one in value:
            yield from _nodes(one)
    elif isinstance(value, dict):
        yield from _nodes(tuple(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        # Whatever is a dataclass in the tree is one of its nodes.
        yield value  # type: ignore[misc]


def descend(node: pst.PstNode) -> Iterator[pst.PstNode]:
    """A node and all nodes below it. The depth is bounded by the parser, at 100 levels."""
    stack = [node]
    while stack:
        one = stack.pop()
        yield one
        stack.extend(children(one))


def conjuncts(expression: pst.Expr) -> Iterator[pst.Expr]:
    """What must hold, one by one, for an expression to hold."""
    match expression:
        case pst.BinaryOp(op="and", left=left, right=right):
            yield from conjuncts(left)
            yield from conjuncts(right)
        case pst.UnaryOp(op="not", arg=pst.BinaryOp(op="or", left=left, right=right)):
            yield from conjuncts(negated(left))
            yield from conjuncts(negated(right))
        case pst.UnaryOp(op="not", arg=pst.UnaryOp(op="not", arg=inner)):
            yield from conjuncts(inner)
        case _:
            yield expression


def negated(expression: pst.Expr) -> pst.Expr:
    """The opposite of an expression, without piling one negation on another."""
    match expression:
        case pst.UnaryOp(op="not", arg=inner):
            return inner
        case _:
            return pst.UnaryOp("not", expression)


def conditions(policy: pst.Template) -> Iterator[pst.Expr]:
    """What must hold, one by one, for a policy whose head matches to apply."""
    for clause in policy.clauses:
        match clause:
            case pst.When(expr=expression):
                yield from conjuncts(expression)
            case pst.Unless(expr=expression):
                yield from conjuncts(negated(expression))
