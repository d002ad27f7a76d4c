"""Where settings come from: the file, with the environment laid over it."""

import codecs
import re
import stat
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

from broker.config.document import MAX_FILE_BYTES, Node, read_document, read_scalar
from broker.config.problems import ConfigError, Mark, Problem

PREFIX: Final = "BROKER_"
ENVIRONMENT_MARK: Final = "environment"

# These belong to the commands, which look for the file and the broker by them.
_COMMAND_VARIABLES: Final = frozenset(
    {
        "BROKER_CONFIG",
        "BROKER_HTTP",
        "BROKER_GRPC",
        "BROKER_ADMIN",
        "BROKER_CLIENT_ID",
        "BROKER_CLIENT_SECRET",
        "BROKER_CLIENT_SECRET_FILE",
    }
)
# Kubernetes sets these in every pod beside a Service that is called "broker".
_SERVICE_LINK: Final = re.compile(
    r"BROKER_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)\w*)?)"
)
_LONGEST_VALUE: Final = 65_536


def read_file(path: FilePath) -> Node:
    """
    The settings in a file.

    Raises ``ConfigError`` when it cannot be read, is empty, too large, not UTF-8, begins with a byte
    order mark, or can be written by everybody.
    """
    source = str(path)
    try:
        mode = path.stat().st_mode
        # A pipe or a device would keep us waiting.
        if not stat.S_ISREG(mode):
            raise _refusal(source, "is not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "bad name"
        raise _refusal(source, f"cannot be read: {reason}") from None
    if mode & stat.S_IWOTH:
        raise _refusal(source, "everybody can write to it; take that right away (chmod o-w)")
    if not raw.strip():
        raise _refusal(source, "the file is empty")
    if len(raw) > MAX_FILE_BYTES:
        raise _refusal(source, f"is larger than {MAX_FILE_BYTES} bytes")
    if raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _refusal(source, "begins with a byte order mark; save it as plain UTF-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(Mark(source, line, column), "", "is not UTF-8")]) from None
    return read_document(text, source)


def lay_over(root: Node, environ: Mapping[str, str]) -> list[Problem]:
    """
    Set in ``root`` what the ``BROKER_*`` variables say; the problems found on the way are returned.

    Two underscores lead into a section: ``BROKER_TOKENS__LIFETIME`` is ``tokens.lifetime``. A value
    in brackets or braces is read as YAML, any other as one unquoted word.
    """
    problems: list[Problem] = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or _is_somebody_elses(variable):
            continue
        try:
            _set(root, variable, value=_read_value(variable, environ[variable]))
        except ConfigError as error:
            problems.extend(error.problems)
    return problems


def _is_somebody_elses(variable: str) -> bool:
    return variable in _COMMAND_VARIABLES or _SERVICE_LINK.fullmatch(variable) is not None


def _read_value(variable: str, text: str) -> Node:
    mark = Mark(f"{ENVIRONMENT_MARK} {variable}")
    if len(text) > _LONGEST_VALUE:
        raise ConfigError([Problem(mark, "", f"is longer than {_LONGEST_VALUE} characters")])
    if text[:1] not in ("[", "{"):
        return Node(mark, read_scalar(text))
    try:
        node = read_document("value: " + text, variable).content["value"]
    except ConfigError as error:
        # Lines and columns mean nothing in a variable, and its text may not be shown.
        sentences = [Problem(mark, "", problem.sentence) for problem in error.problems]
        raise ConfigError(sentences) from None
    return _marked(node, mark)


def _marked(node: Node, mark: Mark) -> Node:
    content = node.content
    if isinstance(content, dict):
        content = {name: _marked(inner, mark) for name, inner in content.items()}
    elif isinstance(content, list):
        content = [_marked(inner, mark) for inner in content]
    return Node(mark, content, dict.fromkeys(node.keys, mark))


def _set(root: Node, variable: str, *, value: Node) -> None:
    *sections, name = variable.removeprefix(PREFIX).lower().split("__")
    node = root
    for section in sections:
        inner = node.content.get(section)
        if inner is None or not isinstance(inner.content, dict):
            inner = Node(value.mark, {})
            node.keys[section] = value.mark
        # A section may be shared through an alias, which the variable does not mean.
        copy = Node(inner.mark, dict(inner.content), dict(inner.keys))
        node.content[section] = copy
        node = copy
    node.content[name] = value
    node.keys[name] = value.mark


def _refusal(source: str, sentence: str) -> ConfigError:
    return ConfigError([Problem(Mark(source), "", sentence)])
