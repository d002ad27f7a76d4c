"""Which tests say that they show which requirement, read off their source without running it."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STANDARDS: Final = "std:"
"""What tells a requirement of a standard from an attack of the same id."""
_CATALOGUE: Final = "sec:"


@dataclass(frozen=True, slots=True, order=True)
class Shown:
    """A test: its file relative to the root of the tree, with ``/`` between parts, and its name."""

    file: str
    name: str

    @property
    def link(self) -> str:
        """A link to it from a page of the documents, by its name read as a sentence."""
        sentence = self.name.removeprefix("test_").replace("_", " ")
        return f"[{sentence}](../{self.file})"


def requirements(root: Path) -> Mapping[str, tuple[Shown, ...]]:
    """
    The tests below ``root/tests`` by the ids that their ``requirement`` markers name.

    Rows of the attack catalogue are found under their bare id, with or without the prefix that tells
    them from others. Raises ``ValueError`` for a marker whose ids are not plain strings.
    """
    found: defaultdict[str, set[Shown]] = defaultdict(set)
    for path in sorted((root / "tests").rglob("test_*.py")):
        file = path.relative_to(root).as_posix()
        for name, requirement in _marked(ast.parse(path.read_bytes(), file), file):
            found[requirement.removeprefix(_CATALOGUE)].add(Shown(file, name))
    return {requirement: tuple(sorted(tests)) for requirement, tests in found.items()}


def _marked(module: ast.Module, file: str) -> Iterator[tuple[str, str]]:
    """Every test function with each id that is marked on it or on the whole module."""
    of_all = [
        requirement
        for statement in module.body
        if isinstance(statement, ast.Assign) and _names(statement.targets) == ["pytestmark"]
        for requirement in _ids(statement.value, file)
    ]
    for function in module.body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
            own = [one for marker in function.decorator_list for one in _ids(marker, file)]
            for requirement in (*of_all, *own):
                yield function.name, requirement


def _ids(expression: ast.expr, file: str) -> Iterator[str]:
    """The ids in every ``requirement(...)`` of an expression, marks of single parameters included."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Call) and _is_marker(node.func):
            try:
                yield from map(str, map(ast.literal_eval, node.args))
            except ValueError:
                place = f"{file}:{node.lineno}"
                raise ValueError(f"{place}: a requirement is named by a plain string") from None


def _is_marker(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr == "requirement"


def _names(targets: list[ast.expr]) -> list[str]:
    return [target.id for target in targets if isinstance(target, ast.Name)]
