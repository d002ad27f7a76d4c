"""The container image, as far as it can be shown without a container."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import __version__

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
PATIENCE = 120


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its argument, continued lines joined and comments left out."""
    lines = [one for one in DOCKERFILE.read_text().splitlines() if not one.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    split = [one.split(maxsplit=1) for one in joined.splitlines() if one]
    return [(word, argument) for word, argument in split]


def stage(number: int) -> list[tuple[str, str]]:
    """The instructions of one stage; stage 0 is what stands before the first."""
    stages: list[list[tuple[str, str]]] = [[]]
    for word, argument in instructions():
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, argument))
    return stages[number]


def only(word: str, *, of: int = 2) -> str:
    """The argument of an instruction that a stage has exactly once."""
    (argument,) = [argument for found, argument in stage(of) if found == word]
    return argument


def test_the_linter_for_dockerfiles_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", str(DOCKERFILE)],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_it_does_not_run_as_root() -> None:
    """A number, since Kubernetes cannot tell from a name that it is not root's."""
    assert only("USER") == "65532:65532"
    after = stage(2)[[word for word, _ in stage(2)].index("USER") :]
    assert not [argument for word, argument in after if word in {"RUN", "COPY", "ADD"}]


def test_the_base_is_pinned_and_the_same_in_both_stages() -> None:
    (base,) = [argument for word, argument in stage(0) if word == "ARG"]

    assert re.fullmatch(r"PYTHON=python:3\.\d+-slim-[a-z]+", base)
    assert [argument for word, argument in instructions() if word == "FROM"] == [
        "${PYTHON} AS build",
        "${PYTHON}",
    ]


@pytest.mark.requirement("CFG-04")
def test_no_secret_is_part_of_the_image() -> None:
    """Neither given while building, nor set, nor copied."""
    given = [argument for word, argument in instructions() if word in {"ARG", "ENV"}]

    assert not re.search(r"(?i)secret|token|passw|private|credential|vault", " ".join(given))
    assert not [argument for word, argument in instructions() if word == "ADD"]


@pytest.mark.requirement("CFG-04")
def test_only_what_the_wheel_is_made_of_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == set(copied())


def copied() -> list[str]:
    """What the first stage takes from the checkout."""
    copies = [argument for word, argument in stage(1) if word == "COPY"]
    return [source for argument in copies for source in argument.split()[:-1]]


def test_signals_reach_the_broker_itself() -> None:
    """A shell between would keep SIGTERM to itself, and every stop would be a kill."""
    assert only("ENTRYPOINT") == '["broker"]'
    assert only("CMD") == '["serve"]'
    assert only("STOPSIGNAL") == "SIGTERM"
    assert only("HEALTHCHECK").endswith('CMD ["broker", "health"]')


def test_everything_written_goes_to_the_volume() -> None:
    assert only("VOLUME") == '["/var/lib/broker"]'
    assert only("WORKDIR") == "/var/lib/broker"
    assert "BROKER_DATA_DIR=/var/lib/broker" in only("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in only("ENV")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """
    What the first stage makes, made by its own commands from the files it copies.

    Only the folders lie elsewhere, and what the broker needs is not installed again but found
    where these tests found it.
    """
    pytest.importorskip("pip", reason="the image is built by pip")
    root = tmp_path_factory.mktemp("image")
    source = root / "src"
    source.mkdir()
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source)
    script = (
        only("RUN", of=1).replace("/opt/broker", f"{root}/opt").replace("/dist", f"{root}/dist")
    )
    clean = {key: text for key, text in os.environ.items() if not key.startswith(("PYTHON", "PIP"))}
    subprocess.run(
        ["sh", "-euc", script],
        cwd=source,
        env={
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            # For pip, this variable set to nought turns the isolation off.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        },
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    shutil.rmtree(source)
    (site,) = (root / "opt" / "lib").glob("python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield root / "opt"
    shutil.rmtree(root)


def run(installed: Path, *command: str) -> str:
    """Run a program of the image, away from any checkout."""
    done = subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=installed.parent,
        env={"PATH": f"{installed}/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_works_without_the_checkout(installed: Path) -> None:
    assert __version__ in run(installed, "broker", "--version")
    where = run(installed, "python", "-c", "import broker; print(broker.__file__)")
    assert where.startswith(str(installed))


def test_the_delivered_policies_are_inside_and_good(installed: Path) -> None:
    (inside,) = installed.glob("lib/python*/site-packages/broker/default_policies")
    files = sorted(one.relative_to(inside) for one in inside.rglob("*") if one.is_file())
    beside = ROOT / "policies"

    assert files == sorted(one.relative_to(beside) for one in beside.rglob("*") if one.is_file())
    assert [one for one in files if one.suffix == ".cedar"]
    run(installed, "broker", "policy", "check", str(inside))


def test_running_writes_nothing_beside_the_program(installed: Path) -> None:
    """So the root file system can be read-only."""
    before = sorted(installed.rglob("*"))

    run(installed, "broker", "config", "schema")

    assert sorted(installed.rglob("*")) == before


def test_neither_tests_nor_pip_are_inside(installed: Path) -> None:
    (site,) = installed.glob("lib/python*/site-packages")

    assert {one.name for one in site.iterdir() if one.is_dir()} == {
        "broker",
        f"delegation_broker-{__version__}.dist-info",
    }
