"""What is published about the settings: the JSON Schema for editors, and the reference page."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from broker.config.durations import write_duration
from broker.config.file import BrokerFile
from broker.config.settings import Address

_Inner = tuple[str, JsonSchemaValue]

_TELLING: Final = ("method", "type")
"""The settings by which one section is told from another."""
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_INTRODUCTION: Final = """\
# Settings

Everything is set in one YAML file. `broker config check` reads it, says everything that is wrong with
it at once, and prints what is in force. `broker config schema` prints a JSON Schema for editors; begin
the file with this line to use it:

```yaml
# yaml-language-server: $schema=broker.schema.json
```

A variable of the environment overrides the file: `BROKER_` and the path of the setting in capitals,
with two underscores between its parts. `BROKER_TOKENS__LIFETIME=2m` sets `tokens.lifetime`. A value
that begins with a bracket or a brace is read as YAML.

Durations have units, as in `30s`, `5m` or `1h30m`. Relative paths of the file start at the file's own
directory, those of a variable in the working directory. URLs are https, or http on loopback. Secrets
never stand in the file: settings that end in `_file` name files that others may not read, and of a
client's secret there is only a hash.
"""


class _Schema(GenerateJsonSchema):
    """The schema without titles that are made up from names, and with defaults as people write them."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the base class passes it
        return False

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return write_duration(dft)
        return str(dft) if isinstance(dft, Address) else super().encode_default(dft)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``broker.yaml``."""
    schema = BrokerFile.model_json_schema(schema_generator=_Schema)
    for section in schema["$defs"].values():
        section.pop("title", None)
    return {"$schema": _DIALECT, **schema}


def settings_page() -> str:
    """The reference page of all settings, in Markdown."""
    schema = json_schema()
    lines = [_INTRODUCTION]
    lines.extend(_section(schema, "", root=schema))
    return "\n".join(lines) + "\n"


def _section(schema: JsonSchemaValue, path: str, *, root: Mapping[str, Any]) -> Iterator[str]:
    """The table of one section, and then the sections within it."""
    inner: list[_Inner] = []
    if path:
        told_by = {name: schema["properties"].get(name, {}).get("const") for name in _TELLING}
        variant = "".join(f" with `{name}: {value}`" for name, value in told_by.items() if value)
        yield f"## `{path}`{variant}\n\n{schema.get('description', '')}\n"
    yield "| Setting | Kind | Default | What it is |\n|---|---|---|---|"
    required = schema.get("required", ())
    for name, member in schema["properties"].items():
        kind, sections = _kind(member, root)
        default = "required" if name in required else _default(member)
        described = member.get("description") or sections[0][1]["description"]
        yield f"| `{name}` | {kind} | {default} | {described} |"
        inner.extend((f"{path}.{name}".lstrip(".") + suffix, one) for suffix, one in sections)
    yield ""
    for inner_path, section in inner:
        yield from _section(section, inner_path, root=root)


def _default(member: Mapping[str, Any]) -> str:
    value = member.get("default")
    if value is None or value in ([], {}, ""):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{', '.join(value)}`" if isinstance(value, list) else f"`{value}`"


def _kind(member: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[str, list[_Inner]]:
    """How a value is written, and the sections that it leads to with what stands before their names."""
    branches = member.get("oneOf") or member.get("anyOf")
    if branches:
        found = [_kind(one, root) for one in branches if one.get("type") != "null"]
        kinds = dict.fromkeys(kind for kind, _ in found)
        return " or ".join(kinds), [one for _, sections in found for one in sections]
    if "$ref" in member:
        return "section", [("", root["$defs"][member["$ref"].rpartition("/")[2]])]
    for within, suffix, name in (
        (member.get("items"), "[]", "list"),
        (values_of_mapping(member), ".<name>", "mapping"),
    ):
        if within is not None:
            kind, sections = _kind(within, root)
            return f"{name}: {kind}", [(suffix + rest, one) for rest, one in sections]
    return _word(member), []


def _word(member: Mapping[str, Any]) -> str:
    if "title" in member:
        return str(member["title"])
    names = [member["const"]] if "const" in member else member.get("enum")
    if names:
        return " or ".join(f"`{name}`" for name in names)
    return _WORDS[member["type"]]


def values_of_mapping(schema: Mapping[str, Any]) -> JsonSchemaValue | None:
    """The schema of the values of a mapping with names of the operator's own, if it is one."""
    by_pattern = list(schema.get("patternProperties", {}).values())
    others = schema.get("additionalProperties")
    return by_pattern[0] if by_pattern else others if isinstance(others, dict) else None


_WORDS: Final = {
    "boolean": "`true` or `false`",
    "integer": "whole number",
    "string": "text",
    "object": "mapping",
}
