"""Cells of CSV (RFC 4180) that no spreadsheet takes for a formula and no terminal for a command."""

import unicodedata
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def cell(value: object) -> str:
    """
    A value as one cell, in quotes, on one line.

    An apostrophe stands in front of what a spreadsheet would calculate, also behind blanks. Characters
    that cannot be seen become their visible escapes. ``None`` is an empty cell.
    """
    text = "" if value is None else str(value)
    if text.lstrip(" ").startswith(_FORMULA):
        text = "'" + text
    text = shown(text)
    return '"' + text.replace('"', '""') + '"'


def row(values: Iterable[object]) -> bytes:
    """The values as one line of CSV in UTF-8, with its end."""
    return (",".join(map(cell, values)) + "\r\n").encode()


def shown(text: str) -> str:
    """The text on one line: what cannot be seen has become its visible escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(one: str) -> str:
    if unicodedata.category(one) in _HIDDEN:
        return one.encode("unicode_escape").decode()
    return one
