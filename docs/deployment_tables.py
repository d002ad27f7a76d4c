"""The table of alerts, from the rules that Prometheus is given."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from docs.tables import table

RULES: Final = Path(__file__).parents[1] / "examples" / "deploy" / "alerts" / "rules.yaml"
_TEMPLATE: Final = re.compile(r"\{\{ \$(?:labels\.)?(\w+)(?: \| \w+)? \}\}")


def alerts_table() -> str:
    """Every alert, when it comes, and what to do."""
    return table(
        ("Alert", "Severity", "After", "It says", "What to do"),
        (
            (
                f"`{rule['alert']}`",
                rule["labels"]["severity"],
                rule.get("for", "at once"),
                _TEMPLATE.sub(r"*\1*", rule["annotations"]["summary"]),
                rule["annotations"]["action"],
            )
            for rule in _rules()
        ),
    )


def _rules() -> Iterator[Mapping[str, Any]]:
    document = YAML(typ="safe", pure=True).load(RULES.read_text(encoding="utf-8"))
    for group in document["groups"]:
        yield from group["rules"]
