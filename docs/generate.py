"""Regenerates the pages that follow from the code: ``python -m docs.generate``."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from broker.audit.reader import UNDETECTED
from broker.config.documents import json_schema, settings_page
from docs.conformance_tables import deviations_table, requirement_gaps_table, requirement_tables
from docs.deployment_tables import alerts_table
from docs.errors_tables import classes_table, reasons_tables
from docs.helm_values import CHART, values_schema
from docs.operations_tables import events_table, fields_table, metrics_table
from docs.performance_plots import plots
from docs.performance_tables import REGIONS as PERFORMANCE
from docs.regions import fill, names_in
from docs.threats_tables import attack_tables, faults_table, gaps_list

FOLDER: Final = Path(__file__).parent


def undetected_list() -> str:
    """What verification of the audit record cannot show, by what it is verified with."""
    lists = [
        f"With {mode.value}:\n\n" + "".join(f"- {one}\n" for one in cases)
        for mode, cases in UNDETECTED.items()
    ]
    return "\n".join(lists)


REGIONS: Final[Mapping[str, Callable[[], str]]] = {
    "alerts": alerts_table,
    "attacks": attack_tables,
    "deviations": deviations_table,
    "errors": classes_table,
    "events": events_table,
    "faults": faults_table,
    "fields": fields_table,
    "gaps": gaps_list,
    "metrics": metrics_table,
    "reasons": reasons_tables,
    "requirement-gaps": requirement_gaps_table,
    "requirements": requirement_tables,
    "undetected": undetected_list,
    **PERFORMANCE,
}
"""What is made inside pages that are otherwise written by hand, by the name of the region."""


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def pages() -> Mapping[Path, str]:
    """Every generated page as it should be, and every page with a region that is generated."""
    made = {
        FOLDER / "settings.md": settings_page(),
        FOLDER / "broker.schema.json": _json(json_schema()),
        CHART / "values.schema.json": _json(values_schema()),
        **plots(),
    }
    for path in sorted(FOLDER.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if path not in made and names_in(text):
            made[path] = fill(text, REGIONS)
    return made


def main() -> None:
    """Write what has changed."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
