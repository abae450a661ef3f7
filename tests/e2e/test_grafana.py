"""The dashboard fits Grafana's schema, and Postgres runs its queries for an analyst.

grafana/dashboard.schema.json is jsonschema/dashboard.jsonschema.json of grafana-foundation-sdk, in
which Grafana publishes the schema, at the commit f178d5a42a89.
"""

import json
import re
from itertools import product
from typing import Any

import jsonschema
import pytest

from dev import ROOT
from dev.demo import Demo

pytestmark = pytest.mark.without_emulator

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "logins.json").read_text())
SCHEMA = json.loads((ROOT / "tests" / "e2e" / "grafana" / "dashboard.schema.json").read_text())
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}


def test_dashboard_fits_the_schema_of_grafana() -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(DASHBOARD)


def test_dashboard_reads_from_the_chosen_database() -> None:
    chosen = {"type": "grafana-postgresql-datasource", "uid": "${datasource}"}

    assert VARIABLES["datasource"]["query"] == chosen["type"]
    for panel in PANELS.values():
        assert [panel["datasource"], *(each["datasource"] for each in panel["targets"])] == [
            chosen,
            chosen,
        ]


def test_panels_do_not_overlap() -> None:
    cells = [cell for panel in PANELS.values() for cell in _cells(panel["gridPos"])]

    assert len(cells) == len(set(cells))


@pytest.mark.parametrize("title", PANELS)
def test_panel_shows_rows_for_each_choice(rollups: Demo, title: str) -> None:
    panel = PANELS[title]
    [target] = panel["targets"]

    with rollups.connect() as analyst:
        for choice in _choices():
            cursor = analyst.execute(_expand(target["rawSql"], choice))
            rows, names = cursor.fetchall(), [column.name for column in cursor.description]

            assert rows, choice
            if target["format"] == "time_series":
                # https://grafana.com/docs/grafana/latest/datasources/postgres/query-editor/
                assert names[0] == "time"
                assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def _choices() -> list[dict[str, str]]:
    """Return each choice of values, as a reader can make it at the top of the dashboard."""
    offered = {
        name: variable["query"].split(",")
        for name, variable in VARIABLES.items()
        if variable["type"] in {"custom", "constant"}
    }
    return [dict(zip(offered, values, strict=True)) for values in product(*offered.values())]


def _expand(query: str, choice: dict[str, str]) -> str:
    """Replace variables and macros as Grafana documents it."""
    query = re.sub(r"\$\{(\w+)\}", lambda name: choice[name[1]], query)
    query = re.sub(
        r"\$__timeFilter\((\w+)\)",
        r"\1 BETWEEN '2000-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'",
        query,
    )
    assert "$" not in query
    return query


def _cells(place: dict[str, Any]) -> list[tuple[int, int]]:
    """List the cells of the grid that a panel covers."""
    columns = range(place["x"], place["x"] + place["w"])
    return list(product(columns, range(place["y"], place["y"] + place["h"])))
