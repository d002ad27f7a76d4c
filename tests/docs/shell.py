"""A shell as somebody has it in a checkout, with the project's environment on the path."""

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.markdown import ROOT

_SECONDS = 240


def run(command: str, *, folder: Path, **environ: str) -> str:
    """Run a command as somebody would in a checkout whose environment is on the path."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment(folder) | environ,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """All that a command finds in its environment; ``folder`` is home, and may have a ``bin``."""
    path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "COLUMNS": "110",
    }
