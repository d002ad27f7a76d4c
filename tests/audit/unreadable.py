"""Segments that the system will not open, for root neither."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def refuse_segments(
    monkeypatch: pytest.MonkeyPatch, writer: str, *, times: int | None = None
) -> Callable[[], int]:
    """Refuse to open the segments of a writer, so many times or always; tells how often that was."""
    real = os.open
    refused = 0

    def refusing(path: Any, *rest: Any, **options: Any) -> int:
        nonlocal refused
        name = Path(os.fsdecode(path)).name
        is_meant = name.startswith(f"{writer}.") and name.endswith(".jsonl")
        if is_meant and (times is None or refused < times):
            refused += 1
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", refusing)
    return lambda: refused
