"""Small file systems of a test's own, to fill up, to write-protect and to lose."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(directory: Path, *, kibibytes: int) -> Iterator[Path]:
    """A file system of that size in memory; the test is skipped where it may not be mounted."""
    directory.mkdir()
    options = f"size={kibibytes}k,mode=0700"
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a file system")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not let a file system be mounted")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def remount(directory: Path, mode: str) -> None:
    """Make a small disk read-only (``ro``) or writable again (``rw``)."""
    subprocess.run(["mount", "-o", f"remount,{mode}", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Leave no room on a small disk; remove the file returned to make room again."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        size = 65_536
        while size > 0:
            try:
                file.write(b"\xff" * size)
            except OSError:
                size //= 2
    return filler
