"""A file to write settings into, and what it takes to read them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from broker.config import ConfigError, Settings, load_settings

Load = Callable[..., Settings]
Refuse = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a file and loads it."""

    def write_and_load(text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
        path = tmp_path / "broker.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path, environ or {})

    return write_and_load


@pytest.fixture
def refuse(load: Load, tmp_path: Path) -> Refuse:
    """Loads what must be refused, and gives the first line of each problem without the directory."""

    def problems(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            load(text, environ)
        return [
            str(one).partition("\n")[0].replace(f"{tmp_path}/", "")
            for one in refused.value.problems
        ]

    return problems
