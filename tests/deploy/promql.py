"""What expressions of Prometheus ask for, by a parser of its language, and what the broker has to answer."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import promql_parser

from broker.metrics import measures as declared
from docs.operations_tables import Measure, measures
from docs.source import modules
from tests.deploy.chart import ROOT

Expression = promql_parser.Expr

_ADDED_BY_PROMETHEUS: Final = frozenset({"instance", "job"})
_WHOLE_LISTS: Final[Mapping[str, frozenset[str]]] = {
    "face": frozenset(declared.FACES),
    "event": frozenset(declared.EVENTS),
    "decision": frozenset(declared.DECISIONS),
    "reason": frozenset(declared.REASONS),
    "store": frozenset(declared.STORES),
    "cache": frozenset(declared.CACHES),
    "result": frozenset({"ok", "failed"}),
}
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}


@dataclass(frozen=True, slots=True)
class Selector:
    """A name of series in an expression, and the labels that it asks about, each with the text."""

    name: str
    labels: tuple[tuple[str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Every selector in an expression; raises ``ValueError`` where it cannot be parsed."""
    found: list[Selector] = []

    def visit(node: Expression) -> bool:
        match node:
            case promql_parser.VectorSelector():
                found.append(_selector(node))
            case promql_parser.MatrixSelector():
                found.append(_selector(node.vector_selector))
        return True

    promql_parser.walk(promql_parser.parse(expression), pre_visit=visit)
    return list(dict.fromkeys(found))


def _selector(node: promql_parser.VectorSelector) -> Selector:
    assert node.name is not None
    asked = tuple((one.name, one.value) for one in node.matchers.matchers)
    return Selector(node.name, asked)


def family(name: str) -> Measure | None:
    """The measure that a series belongs to, or nothing."""
    for measure in measures():
        if name in {measure.name + part for part in _PARTS[measure.kind]}:
            return measure
    return None


def complaints(selector: Selector) -> Iterator[str]:
    """Whatever a selector asks for that the broker does not have."""
    measure = family(selector.name)
    if measure is None:
        yield f"there is no {selector.name}"
        return
    for label, text in selector.labels:
        if label not in {*measure.labels, *_ADDED_BY_PROMETHEUS}:
            yield f"{selector.name} has no label {label}"
        elif label in _known() and not set(text.split("|")) <= _known()[label]:
            yield f"{label} of {selector.name} is never {text}"


def _known() -> Mapping[str, frozenset[str]]:
    return {**_WHOLE_LISTS, "check": _checks()}


@cache
def _checks() -> frozenset[str]:
    """The names of all checks of readiness."""
    names = {
        call.args[0].value
        for tree in modules(ROOT).values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Check"
        and isinstance(call.args[0], ast.Constant)
    }
    return frozenset({*map(str, names), "shutdown", "grpc", "http"})


def templates(text: str) -> set[str]:
    """The labels that a text of an alert puts in."""
    return set(re.findall(r"\$labels\.(\w+)", text))
