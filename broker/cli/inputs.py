"""What commands read: files, standard input and secrets, never the argument list where others see it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import rich_click as click

from broker.cli.page import told_width
from broker.cli.stop import Misconfigured
from broker.config import ConfigError, Settings, load_settings

_LONGEST_TOKEN: Final = 65_536
_LONGEST_SECRET: Final = 1024
_NO_SETTINGS: Final = (
    "Name the settings file with --config FILE or in BROKER_CONFIG; `broker dev` writes one to "
    ".broker-dev/broker.yaml."
)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def config_option(*, is_required: bool = True) -> Callable[[_Function], _Function]:
    """The option that names the settings file."""
    return click.option(
        "--config",
        "-c",
        "config",
        type=click.Path(path_type=Path),
        envvar="BROKER_CONFIG",
        default=Path("broker.yaml") if is_required else None,
        show_default=is_required,
        help="The settings file.",
    )


def settings_from(config: Path, *, is_single_process: bool = False) -> Settings:
    """The settings in force, or the end of the command with exit code 3."""
    try:
        return load_settings(config, os.environ, is_single_process=is_single_process)
    except ConfigError as error:
        raise wrong_settings(config, error) from None


def wrong_settings(config: Path, error: ConfigError) -> Misconfigured:
    """How a command ends that was given wrong settings, or found none."""
    hint = "" if config.exists() else f"\n{_NO_SETTINGS}"
    width = told_width()
    return Misconfigured(f"{error if width is None else error.on_page(width)}{hint}")


def read_token(argument: str, *, name: str) -> str:
    """
    A token from ``@FILE``, or from standard input for ``-``.

    A token on the command line is refused: the list of processes and the shell's history show it.
    """
    if argument == "-":
        raw = sys.stdin.buffer.read(_LONGEST_TOKEN + 1)
    elif argument.startswith("@"):
        raw = _read_file(Path(argument[1:]), _LONGEST_TOKEN, name=name)
    else:
        raise click.UsageError(
            f"{name} takes @FILE, or - for standard input; on the command line others can read it."
        )
    if len(raw) > _LONGEST_TOKEN:
        raise click.UsageError(f"{name}: what was read is too large for a token.")
    try:
        token = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token:
        raise click.UsageError(f"{name}: what was read is not a token.")
    return token


def read_secret(file: Path | None) -> str:
    """A client secret from its file, or from ``BROKER_CLIENT_SECRET``."""
    if file is None:
        secret = os.environ.get("BROKER_CLIENT_SECRET", "")
    else:
        raw = _read_file(file, _LONGEST_SECRET, name="--secret-file")
        secret = raw.decode("utf-8", "replace").rstrip("\r\n")
    if not secret:
        raise click.UsageError(
            "Give the client's secret by --secret-file or in BROKER_CLIENT_SECRET."
        )
    return secret


def _read_file(path: Path, limit: int, *, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise click.UsageError(f"{name}: {path} cannot be read: {error.strerror}.") from None


def policies_from(directory: Path | None, config: Path) -> Path:
    """The policy folder named, or that of the settings."""
    place = directory or settings_from(config).policies
    if not place.is_dir():
        raise click.UsageError(f"{place} is not a directory.")
    return place
