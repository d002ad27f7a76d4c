"""What the source of the broker mentions, read off its syntax."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

_GENERATED = "v1"


@cache
def modules(root: Path) -> Mapping[str, ast.Module]:
    """The syntax trees of all modules that are written by hand, by file relative to ``root``."""
    files = sorted(path.relative_to(root) for path in (root / "broker").rglob("*.py"))
    return {
        file.as_posix(): ast.parse((root / file).read_bytes(), file.as_posix())
        for file in files
        if _GENERATED not in file.parts
    }


@cache
def attribute_uses(root: Path) -> Mapping[str, frozenset[str]]:
    """The names of all attributes that are looked up anywhere, and the files that do."""
    return _by_name(
        (node.attr, file)
        for file, tree in modules(root).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    )


@cache
def string_uses(root: Path) -> Mapping[str, frozenset[str]]:
    """All string literals, and the files they stand in."""
    return _by_name(
        (node.value, file)
        for file, tree in modules(root).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _by_name(found: Iterator[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    files: defaultdict[str, set[str]] = defaultdict(set)
    for name, file in found:
        files[name].add(file)
    return {name: frozenset(places) for name, places in files.items()}
