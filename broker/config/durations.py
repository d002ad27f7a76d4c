"""Durations as a person writes them: ``30s``, ``5m``, ``1h30m``."""

import re
from datetime import timedelta
from typing import Final

_DURATION: Final = re.compile(
    r"(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,8})s)?(?:([0-9]{1,9})ms)?"
)
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def parse_duration(text: str) -> timedelta | None:
    """The duration that a text means: numbers with their units, the greatest first; else nothing."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    days, hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return timedelta(
        days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds
    )


def write_duration(value: timedelta) -> str:
    """A duration as a person would write it."""
    milliseconds = value // timedelta(milliseconds=1)
    parts = []
    for unit, length in _UNITS:
        count, milliseconds = divmod(milliseconds, length)
        parts.append(f"{count}{unit}" if count else "")
    return "".join(parts) or "0s"
