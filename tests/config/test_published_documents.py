"""What is published about the settings agrees with what is read."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from broker.config import ConfigError, load_settings
from broker.config.documents import json_schema, settings_page

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "examples").rglob("broker.yaml"))


def checker() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_schema_in_docs_is_the_one_in_force() -> None:
    """Regenerate with ``make docs``."""
    committed = (ROOT / "docs" / "broker.schema.json").read_text()

    assert committed == json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def test_the_reference_page_in_docs_is_the_one_in_force() -> None:
    """Regenerate with ``make docs``."""
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.parent.name)
def test_the_samples_satisfy_the_schema_and_load(path: Path) -> None:
    checker().validate(YAML(typ="safe", pure=True).load(path.read_text()))

    assert load_settings(path, {}).clients


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"issuer": "https://a.example", "isuer": "x"},
        {"issuer": "https://a.example", "tokens": {"lifetime": 300}},
        {"issuer": "https://a.example", "clients": [{"id": "two words", "auth": {}}]},
        {
            "issuer": "https://a.example",
            "clients": [{"id": "a", "auth": {"secrets": [{"hash": "x"}]}}],
        },
        {"issuer": "https://a.example", "keys": {"vault": {"auth": {"method": "userpass"}}}},
        {"issuer": "https://a.example", "grpc": {"threads": 0}},
        {"issuer": "https://a.example", "audit": {"segment_size": 65_535}},
        {"issuer": "https://a.example", "audit": {"segment_size": 4_294_967_297}},
    ],
)
def test_an_editor_is_told_what_the_broker_would_refuse(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "broker.yaml"
    path.write_text(json.dumps(settings))

    assert list(checker().iter_errors(settings))
    with pytest.raises(ConfigError):
        load_settings(path, {})


def test_every_setting_has_a_description() -> None:
    page = settings_page()

    assert "|  |\n" not in page
    assert "`tokens.lifetime`" in page
    assert "| `lifetime` | duration from 10s to 10m | `5m` |" in page


def test_the_reference_page_tells_the_bounds_of_every_number_size_and_duration() -> None:
    kinds = {
        (row[2], row[1])
        for row in re.finditer(
            r"^\| `(\w+)` \| ((?:whole number|size|duration)[^|]*) \|",
            settings_page(),
            re.MULTILINE,
        )
    }

    assert ("size from 64KiB to 4GiB", "segment_size") in kinds
    assert ("duration from 10ms to 30s", "write_timeout") in kinds
    assert ("whole number from 1 to 1000000000", "threshold") in kinds
    assert ("duration up to 5m", "drain_delay") in kinds
    assert {kind for kind, _ in kinds if " from " not in kind and " up to " not in kind} == set()


@pytest.mark.parametrize("size", ["63KiB", "5GiB", 65_535, 4_294_967_297, "65535"])
def test_a_size_out_of_its_bounds_is_refused_in_the_words_of_the_page(
    tmp_path: Path, size: str | int
) -> None:
    path = tmp_path / "broker.yaml"
    path.write_text(f"issuer: http://127.0.0.1:8080\naudit: {{segment_size: {size}}}\n")

    with pytest.raises(ConfigError, match="must be between 64KiB and 4GiB"):
        load_settings(path, {})
