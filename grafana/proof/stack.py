"""A deployed stack as the dashboards see it: its data sources, and what a dashboard's variables can be on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from proof.asking import Frame, Sources
from proof.filling import Range, Value
from proof.panels import answer

HOURS = {"h": 1, "d": 24}


def sources_of(directory: Path) -> Sources:
    """Return the data sources of the stack in this directory, with the role that Grafana has in PostgreSQL."""
    services = json.loads((directory / "stack.json").read_text("utf-8"))["services"]
    secrets = yaml.safe_load((directory / "secrets.yml").read_text("utf-8"))
    prometheus, postgres = (
        services[name]["ports"][port] for name, port in (("prometheus", "http"), ("postgres", "sql"))
    )
    password = secrets["grafana_postgres_password"]
    return Sources(f"http://127.0.0.1:{prometheus}", f"postgresql://grafana:{password}@127.0.0.1:{postgres}/weatherdb")


def span_of(board: Mapping[str, Any], sources: Sources) -> Range:
    """Return the range that a dashboard opens with; of what only Prometheus knows, no more than it has seen."""
    end = datetime.now(UTC)
    since = board["time"]["from"].removeprefix("now-")
    start = end - timedelta(hours=int(since[:-1]) * HOURS[since[-1]])
    if board["uid"] != "meteo-weather":
        born = sources.born()
        start = max(start, min(born, end - timedelta(minutes=10)))
    return Range(start, end)


def variables_of(board: Mapping[str, Any], sources: Sources, span: Range) -> dict[str, Value]:
    """Return the values that a dashboard opens with: the first of each query, or all where that is its choice."""
    chosen: dict[str, Value] = {}
    for variable in board["templating"]["list"]:
        if variable["type"] != "query":
            continue
        values = sources.values(variable, span)
        if not values:
            raise ValueError(f"{board['title']}: the variable {variable['name']} has no value.")
        chosen[variable["name"]] = values if variable["multi"] else values[0]
    return chosen


def titles_of(board: Mapping[str, Any], sources: Sources, span: Range) -> dict[str, str]:
    """Return what the values of a dashboard's single choices are called."""
    named = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and not variable["multi"]:
            named[variable["name"]] = sources.texts(variable, span)[0]
    return named


def answers_of(
    board: Mapping[str, Any], sources: Sources, variables: Mapping[str, Value], span: Range
) -> dict[int, list[Frame]]:
    """Return each panel's frames by its id."""
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    return {panel["id"]: answer(panel, sources, variables, span) for panel in panels}
