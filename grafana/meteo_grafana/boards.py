"""What all dashboards have in common: data sources and place as variables, rows, links to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from meteo_grafana.queries import POSTGRESQL, PROMETHEUS

TAG = "meteo"
Row = tuple[str, Sequence[Builder[Panel]]]

# One index entry for each place and month is read, where DISTINCT would read every message of the table.
STATIONS = """\
WITH RECURSIVE found(station) AS (
    (SELECT value->>'station_id' FROM weather ORDER BY value->>'station_id' LIMIT 1)
    UNION ALL
    SELECT (SELECT value->>'station_id' FROM weather WHERE value->>'station_id' > station
            ORDER BY value->>'station_id' LIMIT 1)
    FROM found WHERE station IS NOT NULL
)
SELECT station AS __value,
       concat_ws(', ', newest.city, newest.country) || ' (' || split_part(station, ':', 1) || ')' AS __text
FROM found, LATERAL (
    SELECT value->>'city' AS city, value->>'country' AS country FROM weather
    WHERE value->>'station_id' = station ORDER BY date_time DESC LIMIT 1
) AS newest
ORDER BY 2"""


def place_from_postgresql() -> dashboard.QueryVariable:
    """Return the variable `station`: one place of those in PostgreSQL, shown by its name."""
    return (
        dashboard.QueryVariable("station")
        .label("Place")
        .description("A place and the source of its weather.")
        .datasource(POSTGRESQL)
        .query(STATIONS)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(VariableSort.DISABLED)
        .multi(False)
        .include_all(False)
    )


def stations_from_prometheus() -> dashboard.QueryVariable:
    """Return the variable `station`: all or some of those that are watched."""
    query = "label_values(meteo_newest_observation_timestamp_seconds, station)"
    return (
        dashboard.QueryVariable("station")
        .label("Station")
        .description("Stations whose freshness is shown.")
        .datasource(PROMETHEUS)
        .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def board(
    name: str,
    description: str,
    since: str,
    rows: Sequence[Row],
    place: Builder[VariableModel] | None = None,
) -> dict[str, Any]:
    """Return a dashboard's JSON; its uid is `meteo-` and its name, so that links outlive every change."""
    builder = (
        dashboard.Dashboard(f"meteo: {name}")
        .uid(f"meteo-{name.lower()}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .time(since, "now")
        .refresh("1m")
        .link(
            dashboard.DashboardLink("meteo")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .keep_time(False)
            .icon("external link")
            .tooltip("The other dashboards")
        )
        .with_variable(_source("prometheus", "Prometheus", PROMETHEUS.type_val or ""))
        .with_variable(_source("postgresql", "PostgreSQL", POSTGRESQL.type_val or ""))
    )
    if place is not None:
        builder.with_variable(place)
    for title, panels in rows:
        builder.with_row(dashboard.Row(title))
        for panel in panels:
            builder.with_panel(panel)
    made: dict[str, Any] = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
    for number, panel in enumerate(made["panels"], start=1):
        panel["id"] = number
    for variable in made["templating"]["list"]:
        # The SDK writes what only variables of intervals have.
        for name in ("auto", "auto_min", "auto_count"):
            variable.pop(name, None)
    return made


def _source(name: str, label: str, kind: str) -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable(name)
        .label(label)
        .type(kind)
        .multi(False)
        .include_all(False)
        .current(VariableOption(selected=True, text=f"meteo {label}", value=f"meteo-{name}"))
    )
