"""The dashboard shows every measure of the broker, and asks for nothing else."""

import itertools
import json
import re

import pytest

from docs.operations_tables import measures
from tests.deploy.chart import DEPLOY, Document
from tests.deploy.promql import complaints, family, selectors

DASHBOARD: Document = json.loads((DEPLOY / "grafana" / "broker.json").read_text(encoding="utf-8"))
PANELS: dict[str, Document] = {
    one["title"]: one for one in DASHBOARD["panels"] if one["type"] != "row"
}
_COLUMNS = 24
_INTERVAL = "$__rate_interval"
_VARIABLES = {one["name"] for one in DASHBOARD["templating"]["list"]}


def expressions(panel: Document) -> list[str]:
    """What a panel asks, with an interval as Grafana puts in."""
    return [target["expr"].replace(_INTERVAL, "5m") for target in panel["targets"]]


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_asks_for_what_the_broker_measures(title: str) -> None:
    asked = [one for text in expressions(PANELS[title]) for one in selectors(text)]

    assert asked
    assert [one for selector in asked for one in complaints(selector)] == []
    assert all(("instance", "$instance") in selector.labels for selector in asked)


def test_every_measure_is_shown() -> None:
    shown = {
        measure.name
        for panel in PANELS.values()
        for text in expressions(panel)
        for selector in selectors(text)
        if (measure := family(selector.name))
    }

    assert shown == {measure.name for measure in measures()}


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_explains_itself(title: str) -> None:
    panel = PANELS[title]

    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["legendFormat"] or panel["type"] == "table"


def test_rates_go_by_the_interval_that_fits_what_is_looked_at() -> None:
    for panel in PANELS.values():
        for target in panel["targets"]:
            assert set(re.findall(r"\[([^\]]+)\]", target["expr"])) <= {_INTERVAL}


def test_every_variable_that_is_used_is_there() -> None:
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}

    assert used == _VARIABLES


def test_panels_lie_side_by_side_and_not_upon_each_other() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]

    assert all(one["x"] >= 0 and one["x"] + one["w"] <= _COLUMNS for one in places)
    taken = [square for place in places for square in _squares(place)]
    assert len(set(taken)) == len(taken)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def _squares(place: Document) -> list[tuple[int, int]]:
    columns = range(place["x"], place["x"] + place["w"])
    rows = range(place["y"], place["y"] + place["h"])
    return list(itertools.product(columns, rows))
