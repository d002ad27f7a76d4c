"""JSON pointers into claims (RFC 6901)."""

import re
from collections.abc import Mapping
from typing import Any, Final

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)


def is_pointer(text: str) -> bool:
    """Whether a text is a pointer to something within a document: not empty, and rightly escaped."""
    return _POINTER.fullmatch(text) is not None


def value_at(document: Any, pointer: str) -> Any:
    """What the pointer leads to, or ``None`` where it leads nowhere; ``null`` is no different."""
    value = document
    for step in pointer.split("/")[1:]:
        value = _member(value, step.replace("~1", "/").replace("~0", "~"))
    return value


def _member(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(name)
    if isinstance(value, list) and _INDEX.fullmatch(name) and int(name) < len(value):
        return value[int(name)]
    return None
