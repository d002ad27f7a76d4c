"""From the tree of the file to typed sections, with every mistake turned into a sentence."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from broker.config.document import Node
from broker.config.documents import values_of_mapping
from broker.config.file import BrokerFile
from broker.config.problems import Path, Problem, dotted, nearest

_LISTS: Final = ("clients", "resources", "issuers")
_STAND_IN_ISSUER: Final = "https://127.0.0.1"
_QUOTED: Final = re.compile(r"'([^']*)'")
_CREDENTIAL: Final = re.compile(r"secret|password|passphrase|token$", re.IGNORECASE)

_SENTENCES: Final = {
    "missing": "is required",
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a section with settings of its own",
    "model_attributes_type": "must be a section with settings of its own",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What could be read of a file.

    ``broken`` names the sections that could not, which stand in ``file`` with their defaults. Entries
    of the three lists that could not be read are left out; ``positions`` says where the others stand.
    """

    file: BrokerFile
    broken: frozenset[str]
    positions: Mapping[str, Sequence[int]]
    problems: Sequence[Problem]


def read_sections(root: Node) -> Reading:
    """Read the whole file, going on past mistakes, so that one look finds them all."""
    data = root.plain()
    try:
        file = BrokerFile.model_validate(data)
    except ValidationError as error:
        return _read_the_rest(data, root, errors=error.errors(include_url=False))
    everything = {name: range(len(data.get(name) or ())) for name in _LISTS}
    return Reading(file, frozenset(), everything, ())


def _read_the_rest(data: dict[str, Any], root: Node, *, errors: Sequence[ErrorDetails]) -> Reading:
    """What can be read of a file beside its errors."""
    problems = [problem_of(error, root) for error in errors]
    positions = _prune(data, [tuple(error["loc"]) for error in errors])
    broken = frozenset(str(error["loc"][0]) for error in errors)
    if "issuer" in broken:
        data["issuer"] = _STAND_IN_ISSUER
    return Reading(BrokerFile.model_validate(data), broken, positions, problems)


def _prune(data: dict[str, Any], locations: Sequence[Path]) -> Mapping[str, Sequence[int]]:
    """Take out of ``data`` what is wrong: single entries of the lists, and otherwise whole sections."""
    entries = {(path[0], path[1]) for path in locations if path[0] in _LISTS and len(path) > 1}
    for path in locations:
        if path[0] not in _LISTS or len(path) == 1:
            data.pop(str(path[0]), None)
    positions = {}
    for name in _LISTS:
        listed = data.get(name) or []
        positions[name] = [at for at in range(len(listed)) if (name, at) not in entries]
        if name in data:
            data[name] = [listed[at] for at in positions[name]]
    return positions


def problem_of(error: ErrorDetails, root: Node) -> Problem:
    """One mistake as a problem: its place in the file, a sentence, and the nearest right name."""
    kind = error["type"]
    path = _path_in_file(tuple(error["loc"]), root, is_absent=kind == "missing")
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_setting(path, root)
    known: Sequence[str] = ()
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags"))
        known = _QUOTED.findall(expected)
        # What is a tag is told without the word before the last.
        told = _one_of(known) if kind == "union_tag_invalid" else expected
        sentence = f"must be {told}"
    elif kind == "union_tag_not_found":
        sentence = f"lacks its '{_discriminator(context)}'"
    elif kind == "refused":
        sentence, known = str(context["sentence"]), context["known"]
    else:
        sentence = _SENTENCES.get(kind, error["msg"])
    if kind == "union_tag_invalid":
        path = (*path, _discriminator(context))
    at_key = kind == "missing" or error["loc"][-1] == "[key]"
    hint = nearest(_written_at(path, root, is_key=at_key), known)
    return Problem(root.mark_of(path, is_key=at_key), dotted(path), sentence, hint)


def _one_of(words: Sequence[str]) -> str:
    """The words that something may be, as a sentence names them: ``'a', 'b' or 'c'``."""
    *most, last = [f"'{word}'" for word in words]
    return f"{', '.join(most)} or {last}" if most else last


def _written_at(path: Path, root: Node, *, is_key: bool) -> object:
    """What stands at a place: the value, or the name that it has there."""
    if is_key:
        return path[-1] if path else ""
    node = root.find(path)
    return "" if node is None else node.content


def _discriminator(context: Mapping[str, Any]) -> str:
    """The setting by which one section is told from another, such as ``method``."""
    return str(context["discriminator"]).strip("'")


def _unknown_setting(path: Path, root: Node) -> Problem:
    name = str(path[-1])
    # Of several sorts of a section another may have it.
    hint = nearest(name, setting_names(path[:-1]) - {name})
    sentence = "there is no such setting"
    if not hint and _CREDENTIAL.search(name):
        sentence += "; secrets stand in files of their own, and those of clients as hashes"
    return Problem(root.mark_of(path, is_key=True), dotted(path), sentence, hint)


def _path_in_file(location: Path, root: Node, *, is_absent: bool) -> Path:
    """
    The path without the steps that only pydantic takes: into a union's branch, or to a key.

    ``is_absent`` says that the last step leads to what is not there.
    """
    path: Path = ()
    for at, step in enumerate(location):
        is_last = at == len(location) - 1
        is_there = root.find((*path, step)) is not None or (is_last and is_absent)
        if step == "[key]" or not is_there or _is_branch(path, location[at:], root):
            continue
        path = (*path, step)
    return path


def _is_branch(path: Path, rest: Path, root: Node) -> bool:
    """Whether the next step leads into a union's branch, which may be called as a setting is."""
    node = root.find((*path, rest[0]))
    if len(rest) == 1 or node is None or isinstance(node.content, dict | list):
        return False
    return root.find((*path, rest[1])) is not None


def setting_names(path: Path) -> frozenset[str]:
    """The names of the settings that a section may have."""
    schema = BrokerFile.model_json_schema()
    branches = [schema]
    for step in path:
        branches = [inner for branch in branches for inner in _inside(branch, step, root=schema)]
    return frozenset(name for branch in branches for name in branch.get("properties", ()))


def _inside(branch: Mapping[str, Any], step: str | int, *, root: Mapping[str, Any]) -> list[Any]:
    found = branch.get("items") if isinstance(step, int) else branch.get("properties", {}).get(step)
    found = values_of_mapping(branch) if found is None else found
    return _resolved(found, root) if found is not None else []


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    if "$ref" in schema:
        return _resolved(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches is None:
        return [schema]
    return [inner for branch in branches for inner in _resolved(branch, root)]
