"""The YAML file, read within bounds, with the place of every key and value."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from broker.config.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    QuickError,
    ScalarEvent,
    exact_events,
    quick_events,
)
from broker.config.problems import ConfigError, Mark, Path, Problem, nearest

MAX_FILE_BYTES: Final = 1_048_576
_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 200_000

_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,18}")
_REAL: Final = re.compile(
    r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,3})?"
)
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(slots=True)
class Node:
    """
    A value of the file and where it stands.

    ``content`` is a scalar, a list of nodes, or a mapping of names to nodes; ``keys`` says where
    each name stands. ``size`` counts the nodes within, with those that aliases repeat.
    """

    mark: Mark
    content: Any = None
    keys: dict[str, Mark] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """The value as dictionaries, lists and scalars."""
        if isinstance(self.content, dict):
            return {name: node.plain() for name, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content

    def child(self, step: str | int) -> "Node | None":
        """The node at a name or a position, if there is one."""
        if isinstance(self.content, dict):
            return self.content.get(step)
        if isinstance(self.content, list) and isinstance(step, int) and step < len(self.content):
            inner: Node = self.content[step]
            return inner
        return None

    def find(self, path: Path) -> "Node | None":
        """The node at a path, if there is one."""
        node: Node | None = self
        for step in path:
            node = node.child(step) if node is not None else None
        return node

    def mark_of(self, path: Path, *, is_key: bool = False) -> Mark:
        """Where the value at a path stands, or its name, or else the nearest thing around it."""
        node = self
        mark = self.mark
        for step in path:
            inner = node.child(step)
            if inner is None:
                return node.keys.get(str(step), mark)
            mark = node.keys[str(step)] if is_key and str(step) in node.keys else inner.mark
            node = inner
        return mark


def read_document(text: str, source: str) -> Node:
    """
    The one document of a YAML text, which must be a mapping.

    Raises ``ConfigError`` for what is not YAML, names given twice, tags, merge keys, more than one
    document, and nesting or size beyond bounds, whether written out or made by aliases.
    """
    events = quick_events(text)
    if events is not None:
        # Whatever is wrong is told by the exact parser, so that it is told in one way.
        with suppress(ConfigError, QuickError):
            return _Composer(text, source, events).document()
    return _Composer(text, source, exact_events(text)).document()


def read_scalar(text: str) -> Any:
    """The value of an unquoted word by the core schema of YAML 1.2, without dates and odd bases."""
    if text.lower() in _WORDS and text in (text.lower(), text.upper(), text.title()):
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text


class _Composer:
    """Builds nodes from the parser's events, one at a time, so that bounds hold while it reads."""

    def __init__(self, text: str, source: str, events: Iterator[Event]) -> None:
        self._text = text
        self._events = events
        self._lines = text.splitlines()
        self._source = source
        self._anchors: dict[str, Node | None] = {}
        self._problems: list[Problem] = []
        self._remaining = _MAX_NODES

    def document(self) -> Node:
        try:
            root = self._compose()
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            mark = self._mark(at.line, at.column) if at else Mark(self._source)
            raise ConfigError([self._problem(mark, f"is not YAML: {error.problem}")]) from None
        except ReaderError as error:
            raise ConfigError([self._unreadable(error)]) from None
        except (YAMLError, ValueError, RecursionError):
            raise ConfigError([Problem(Mark(self._source), "", "is not YAML")]) from None
        if not isinstance(root.content, dict):
            self._problems.append(self._problem(root.mark, "must be a mapping of settings"))
        if self._problems:
            raise ConfigError(self._problems)
        return root

    def _compose(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                mark = self._start_of(event)
                raise ConfigError([self._problem(mark, "only one document may stand in the file")])
            if isinstance(event, NodeEvent):
                root = self._node(event, self._events, depth=1)
        return root or Node(Mark(self._source, 1, 1), {})

    def _node(self, event: Event, events: Iterator[Event], *, depth: int) -> Node:
        mark = self._start_of(event)
        if isinstance(event, AliasEvent):
            return self._aliased(str(event.anchor), mark)
        self._spend(1, mark)
        node = Node(mark)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            # A node is not there for aliases until it is complete, so none can contain itself.
            self._anchors[anchor] = None
        if isinstance(event, ScalarEvent + CollectionStartEvent) and event.tag is not None:
            self._problems.append(self._problem(mark, "tags are not accepted"))
        if isinstance(event, ScalarEvent):
            node.content = read_scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, CollectionStartEvent):
            if depth > _MAX_DEPTH:
                raise ConfigError([self._problem(mark, f"is nested over {_MAX_DEPTH} levels deep")])
            fill = self._fill_mapping if isinstance(event, MappingStartEvent) else self._fill_list
            fill(node, events, depth=depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _fill_list(self, node: Node, events: Iterator[Event], *, depth: int) -> None:
        node.content = []
        for event in events:
            if isinstance(event, CollectionEndEvent):
                return
            inner = self._node(event, events, depth=depth + 1)
            node.content.append(inner)
            node.size += inner.size

    def _fill_mapping(self, node: Node, events: Iterator[Event], *, depth: int) -> None:
        node.content = {}
        for event in events:
            if isinstance(event, CollectionEndEvent):
                return
            mark = self._start_of(event)
            name = self._name(event, events, mark=mark, depth=depth)
            inner = self._node(next(events), events, depth=depth + 1)
            if name in node.keys:
                first = node.keys[name].line
                self._problems.append(
                    self._problem(mark, f"'{name}' is given twice; it first stands on line {first}")
                )
            node.keys[name] = mark
            node.content[name] = inner
            node.size += inner.size

    def _name(self, event: Event, events: Iterator[Event], *, mark: Mark, depth: int) -> str:
        if isinstance(event, ScalarEvent) and event.tag is None and event.anchor is None:
            if event.value == "<<" and event.implicit[0]:
                self._problems.append(self._problem(mark, "merge keys are not accepted"))
            return str(event.value)
        self._problems.append(self._problem(mark, "the name of a setting must be plain text"))
        if not isinstance(event, AliasEvent):
            self._node(event, events, depth=depth + 1)
        return ""

    def _aliased(self, anchor: str, mark: Mark) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            hint = nearest(anchor, self._anchors)
            raise ConfigError([Problem(mark, "", "the alias names nothing before it", hint)])
        self._spend(node.size, mark)
        return node

    def _spend(self, nodes: int, mark: Mark) -> None:
        self._remaining -= nodes
        if self._remaining < 0:
            raise ConfigError([self._problem(mark, f"holds more than {_MAX_NODES} values")])

    def _start_of(self, event: Event) -> Mark:
        at = event.start_mark
        return Mark(self._source) if at is None else self._mark(at.line, at.column)

    def _mark(self, line: int, column: int) -> Mark:
        text = self._lines[line] if line < len(self._lines) else ""
        return Mark(self._source, line + 1, column + 1, text)

    def _problem(self, mark: Mark, sentence: str) -> Problem:
        return Problem(mark, "", sentence)

    def _unreadable(self, error: ReaderError) -> Problem:
        before = self._text[: error.position]
        line = before.count("\n")
        mark = self._mark(line, len(before) - before.rfind("\n") - 1)
        return self._problem(mark, "a character that YAML does not allow")
