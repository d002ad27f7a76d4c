"""The tutorial is followed to the letter, and what it says is printed is printed."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import ROOT, Block, blocks
from tests.docs.shell import environment
from tests.e2e.setting import free_ports

_PAGE: Final = ROOT / "docs" / "tutorial.md"
_PORT: Final = re.compile(r"\b71[0-3]0\b|\b710[12]\b")
_USUAL: Final = ("7100", "7101", "7102", "7110", "7120", "7130")
_SECONDS: Final = 60.0
_END: Final = "the step has ended"


class Shell:
    """A shell that is typed into, one step after the other; its programs in the background go on."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def type(self, command: str) -> str:
        """What a step prints, errors included, when it has come to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\necho; echo {_END}\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            if line.rstrip() == _END:
                return printed.removesuffix("\n")
            printed += line
        pytest.fail(f"the shell ended:\n{printed}")

    def close(self) -> None:
        """End everything that was typed."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports by those of the page."""
    taken = [str(port) for each in (free_ports(), free_ports()) for port in _of(each)]
    return dict(zip(_USUAL, taken, strict=True))


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in something that looks like a checkout."""
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    shell = Shell(tmp_path)
    late = time.monotonic() + 10 * _SECONDS
    yield shell
    shell.close()
    assert time.monotonic() < late, "nobody calls that ten minutes"


def test_every_step_does_what_it_says(
    shell: Shell, ports: Mapping[str, str], tmp_path: Path
) -> None:
    step = printed = ""
    shown = 0
    for block in blocks(_PAGE):
        text = _PORT.sub(lambda found: ports[found[0]], block.text)
        if file := block.noted("file"):
            (tmp_path / "calendar" / file).write_text(text)
        elif block.noted("step"):
            step, printed = text, shell.type(text)
        elif block.noted("from"):
            missing = _first_missing(block, printed, ports)
            for _ in range(5 if "sleep" in step else 0):
                if missing:
                    # A machine that does much else may need longer than a reader does.
                    printed = shell.type(step)
                    missing = _first_missing(block, printed, ports)
            assert not missing, f"{block.place}: {missing}\nis not in\n{printed}"
            shown += 1

    assert shown >= 9


def test_every_program_of_the_page_fits_on_a_screen() -> None:
    programs = [block for block in blocks(_PAGE) if block.noted("file")]

    assert {block.language for block in programs} == {"yaml", "cedar", "python"}
    assert all(len(block.text.splitlines()) <= 40 for block in programs)


def _first_missing(block: Block, printed: str, ports: Mapping[str, str]) -> str:
    """The first line that is shown and was not printed after those before it; nothing if there is none."""
    for usual, port in ports.items():
        printed = re.sub(rf"\b{port}\b", usual, printed)
    lines = iter(line.strip() for line in printed.splitlines())
    for shown in block.text.splitlines():
        pattern = ".*".join(map(re.escape, shown.strip().split("…")))
        if shown != "…" and not any(re.fullmatch(pattern, line) for line in lines):
            return shown
    return ""


def _of(ports: object) -> tuple[int, ...]:
    return tuple(getattr(ports, name) for name in ("http", "grpc", "admin"))
