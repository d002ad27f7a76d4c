"""The tables of measures and of the members of an audit record."""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec

from broker.audit.record import Event, Record
from docs.source import attribute_uses, modules, string_uses
from docs.tables import table

ROOT = Path(__file__).parents[1]
_DATA = Path(__file__).parent / "data" / "record.toml"
_MEASURES = "broker/metrics/measures.py"
_EXPOSITION = "broker/metrics/exposition.py"
_SEALING = "broker/metrics/sealing.py"
_OUTLETS = "broker/metrics/outlets.py"
_SUFFIXES = {
    "CounterMetricFamily": "_total",
    "Counter": "_total",
    "Histogram": "",
    "Gauge": "",
    "GaugeMetricFamily": "",
}


_KINDS = {"string": "text", "enum": "text", "integer": "integer", "array": "list", "null": ""}


@dataclass(frozen=True, slots=True)
class Measure:
    """A family as Prometheus names it; ``attribute`` is where the code keeps it, if anywhere."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    attribute: str = ""


@cache
def record() -> Mapping[str, Mapping[str, str]]:
    """What the members of a record and its events mean."""
    return tomllib.loads(_DATA.read_text(encoding="utf-8"))


def fields_table() -> str:
    """The members of a record with their types and meanings."""
    types = {one.encode_name: one.type for one in msgspec.structs.fields(Record)}
    return table(
        ("Member", "Kind", "What it is"),
        (
            (f"`{name}`", _kind(types[name]), meaning)
            for name, meaning in record()["fields"].items()
        ),
    )


def events_table() -> str:
    """The events of a record, and whether anything writes them."""
    return table(
        ("Event", "What happened"),
        (
            (f"`{event}`", meaning + ("" if _is_written(event) else " Not written yet."))
            for event, meaning in record()["events"].items()
        ),
    )


def events() -> tuple[str, ...]:
    """All events that the schema knows."""
    return get_args(Event)


def metrics_table() -> str:
    """The families on the metrics page, and whether anything measures them."""
    return table(
        ("Metric", "Kind", "Labels", "What it tells"),
        (
            (
                f"`{one.name}`",
                one.kind,
                ", ".join(f"`{label}`" for label in one.labels),
                one.text + ("" if is_measured(one) else " Not measured yet."),
            )
            for one in measures()
        ),
    )


@cache
def measures() -> tuple[Measure, ...]:
    """Every family that the broker declares."""
    modules = (_MEASURES, _EXPOSITION, _SEALING, _OUTLETS)
    return tuple(measure for module in modules for measure in _declared(module))


def is_measured(measure: Measure) -> bool:
    """Whether some part of the broker calls the method that feeds the family."""
    if not measure.attribute:
        return True
    feeders = {
        function.name
        for function in ast.walk(modules(ROOT)[_MEASURES])
        if isinstance(function, ast.FunctionDef) and function.name != "__init__"
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == measure.attribute
    }
    uses = attribute_uses(ROOT)
    return any(uses.get(feeder, frozenset()) - {_MEASURES} for feeder in feeders)


def _declared(file: str) -> Iterator[Measure]:
    """The families that a module constructs, with what it writes about them."""
    for node in ast.walk(modules(ROOT)[file]):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        call, target = node.value, node.targets[0]
        kind = call.func.id if isinstance(call.func, ast.Name) else ""
        if kind in _SUFFIXES:
            name, text = (ast.literal_eval(argument) for argument in call.args[:2])
            attribute = target.attr if isinstance(target, ast.Attribute) else ""
            labels = _labels(call)
            family = kind.removesuffix("MetricFamily").lower()
            yield Measure(name + _SUFFIXES[kind], family, text, labels, attribute)


def _labels(call: ast.Call) -> tuple[str, ...]:
    given = [*call.args[2:], *(keyword.value for keyword in call.keywords)]
    for one in given:
        names = one.keys if isinstance(one, ast.Dict) else getattr(one, "elts", [])
        return tuple(str(name.value) for name in names if isinstance(name, ast.Constant))
    return ()


def _is_written(event: str) -> bool:
    declared = {"broker/audit/record.py", _MEASURES}
    return bool(string_uses(ROOT).get(event, frozenset()) - declared)


def _kind(hint: Any) -> str:
    """What a member holds, in a word."""
    schema = msgspec.json.schema(hint)
    names = {_KINDS[str(one.get("type", "enum"))] for one in schema.get("anyOf", [schema])}
    return " or ".join(sorted(names - {""}))
