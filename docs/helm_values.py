"""The schema of the Helm chart's values: what is written by hand, and the settings that it passes on."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from broker.config.documents import json_schema

CHART: Final = Path(__file__).parents[1] / "examples" / "deploy" / "helm" / "broker"
_BY_HAND: Final = Path(__file__).parent / "data" / "helm_values.json"

Schema = dict[str, Any]

# What the chart decides itself, by section; the empty name stands for the top.
_DECIDED: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"data_dir", "listen", "drain_delay", "policies"}),
    "HttpSection": frozenset({"tls"}),
    "GrpcSection": frozenset({"tls"}),
    "KeysSection": frozenset({"dev"}),
    "VaultSection": frozenset({"auth", "rotator"}),
    "StateSection": frozenset({"directory"}),
    "AuditSection": frozenset({"directory"}),
}
_REFERENCE: Final = re.compile(r'"#/\$defs/(\w+)"')


def values_schema() -> Schema:
    """
    The schema, in which everything is refused that is not listed.

    ``settings`` are those of ``broker.yaml`` as they are now, without those that the chart decides.
    """
    schema: Schema = json.loads(_BY_HAND.read_text(encoding="utf-8"))
    settings = json_schema()
    sections: Schema = settings.pop("$defs")
    for name, decided in _DECIDED.items():
        _leave_out(sections[name] if name else settings, decided)
    _keep_keys_in_vault(sections["KeysSection"])
    # A node has other tenants.
    sections["WorkersSection"]["properties"]["pin"]["default"] = "never"
    settings["required"] = ["issuer", "keys"]
    schema["properties"]["settings"] = {
        name: value for name, value in settings.items() if name not in {"$schema", "title"}
    }
    schema["$defs"] |= {name: sections[name] for name in sorted(_reached(settings, sections))}
    return {"$schema": settings["$schema"], "title": "Values of the broker's chart", **schema}


def _keep_keys_in_vault(section: Schema) -> None:
    """Take away every other choice: keys that are on one machine serve that machine alone."""
    store = section["properties"]["store"]
    store["enum"] = [one for one in store["enum"] if one.startswith("vault-")]
    store["default"] = "vault-transit"
    section["properties"]["vault"] = {"$ref": "#/$defs/VaultSection"}
    section["required"] = ["vault"]


def _leave_out(section: Schema, names: frozenset[str]) -> None:
    """Take members away; an unknown one is an error, since it would be left in without a word."""
    for name in names:
        del section["properties"][name]
    section["required"] = [one for one in section.get("required", []) if one not in names]


def _reached(schema: Schema, sections: Mapping[str, Schema]) -> frozenset[str]:
    """The names of all sections that a schema refers to, however indirectly."""
    found: set[str] = set()
    waiting = set(_references(schema))
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(_references(sections[name])) - found
    return frozenset(found)


def _references(schema: Schema) -> Iterator[str]:
    yield from _REFERENCE.findall(json.dumps(schema))
