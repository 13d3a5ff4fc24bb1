"""Queries put to the real Prometheus and PostgreSQL; the answers as tables with named columns, as Grafana gets them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg2
import requests

from proof.filling import Range, Value, fill_promql, fill_sql, fill_text

LABEL_VALUES = re.compile(r"label_values\((?:(.+),\s*)?(\w+)\)")
Cell = float | str | datetime | None


@dataclass
class Frame:
    """One answer: columns of equal length; a series has the columns `time` and its own name."""

    columns: dict[str, list[Any]]
    labels: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    @property
    def series(self) -> dict[str, list[Any]]:
        """The columns that are drawn over `time`."""
        return {name: values for name, values in self.columns.items() if name != "time"}


@dataclass(frozen=True)
class Sources:
    """The two data sources, by address."""

    prometheus: str
    postgresql: str

    def frames(self, target: Mapping[str, Any], variables: Mapping[str, Value], span: Range) -> list[Frame]:
        """Return a query's answer. Raises ValueError with the query when the server refuses it."""
        if "rawSql" in target:
            return self._from_sql(fill_sql(target["rawSql"], variables, span), target["format"])
        expression = fill_promql(target["expr"], variables, span)
        legend = fill_text(target.get("legendFormat", ""), {})
        if target.get("format") == "table":
            return [_as_table(self._promql("query", query=expression, time=span.end.timestamp()))]
        if target.get("instant"):
            found = self._promql("query", query=expression, time=span.end.timestamp())
            return [_as_series(entry, [entry["value"]], legend) for entry in found]
        found = self._promql(
            "query_range",
            query=expression,
            start=span.start.timestamp(),
            end=span.end.timestamp(),
            step=span.interval,
        )
        return [_as_series(entry, entry["values"], legend) for entry in found]

    def values(self, variable: Mapping[str, Any], span: Range) -> list[str]:
        """Return what a variable can be, by its query."""
        query = variable["query"]
        if isinstance(query, str):
            columns = self._from_sql(fill_sql(query, {}, span), "table")[0].columns
            return [str(value) for value in columns.get("__value", next(iter(columns.values())))]
        found = LABEL_VALUES.fullmatch(query["query"])
        if found is None:
            raise ValueError(f"{query['query']}: expected label_values(metric, label).")
        given = {"match[]": found[1]} if found[1] else {}
        return [str(value) for value in self._get(f"label/{found[2]}/values", given)]

    def texts(self, variable: Mapping[str, Any], span: Range) -> list[str]:
        """Return how the values of an SQL variable are shown."""
        columns = self._from_sql(fill_sql(variable["query"], {}, span), "table")[0].columns
        return [str(text) for text in columns["__text"]]

    def born(self) -> datetime:
        """Return since when Prometheus has values."""
        found = self._promql("query", query='min(process_start_time_seconds{job="prometheus"})')
        return datetime.fromtimestamp(float(found[0]["value"][1]), UTC)

    def metrics(self) -> set[str]:
        """Return the names of all metrics that Prometheus has seen, also of those that have no series yet."""
        names = {str(name) for name in self._get("label/__name__/values", {})}
        for name, described in self._get("metadata", {}).items():
            kinds = {entry["type"] for entry in described}
            names |= {name} | {f"{name}_{end}" for end in ("bucket", "sum", "count") if "histogram" in kinds}
            names |= {f"{name}_total"} if "counter" in kinds else set()
        return names

    def _promql(self, path: str, **given: object) -> list[dict[str, Any]]:
        data = self._get(path, given)
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        return list(data["result"])

    def _get(self, path: str, given: Mapping[str, object]) -> Any:
        answer = requests.get(f"{self.prometheus}/api/v1/{path}", params=dict(given), timeout=30)  # type: ignore[arg-type]
        body = answer.json()
        if body["status"] != "success":
            raise ValueError(f"{body['error']}: {given}")
        return body["data"]

    def _from_sql(self, statement: str, form: str) -> list[Frame]:
        connection = psycopg2.connect(self.postgresql)
        try:
            with connection, connection.cursor() as cursor:
                # A dashboard must not hold the database up.
                cursor.execute("SET statement_timeout = '20s'")
                cursor.execute(statement)
                names = [column[0] for column in cursor.description or ()]
                columns = [list(map(_cell, values)) for values in zip(*cursor.fetchall(), strict=True)]
        except psycopg2.Error as error:
            raise ValueError(f"{str(error).strip()} in\n{statement}") from None
        finally:
            connection.close()
        frame = Frame(dict(zip(names, columns or [[] for _ in names], strict=True)))
        return _spread(frame) if form == "time_series" else [frame]


def _cell(value: Any) -> Cell:
    return float(value) if isinstance(value, Decimal | int) else value


def _as_series(entry: Mapping[str, Any], values: Sequence[tuple[float, str]], legend: str) -> Frame:
    labels = entry["metric"]
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
    numbers = [float(value) for _, value in values]
    return Frame({"time": [float(instant) for instant, _ in values], name: numbers}, dict(labels))


def _as_table(found: Sequence[Mapping[str, Any]]) -> Frame:
    names = sorted({name for entry in found for name in entry["metric"]})
    columns: dict[str, list[Any]] = {name: [entry["metric"].get(name) for entry in found] for name in names}
    columns["Value"] = [float(entry["value"][1]) for entry in found]
    return Frame(columns)


def _spread(frame: Frame) -> list[Frame]:
    """Return one series for each numeric column, and for each text of the column `metric`."""
    times = [value.timestamp() if isinstance(value, datetime) else value for value in frame.columns["time"]]
    metric = frame.columns.get("metric")
    made: list[Frame] = []
    for name, values in frame.series.items():
        if name == "metric":
            continue
        for own in dict.fromkeys(metric) if metric else [name]:
            kept = [number for number in range(len(times)) if metric is None or metric[number] == own]
            made.append(Frame({"time": [times[at] for at in kept], own: [values[at] for at in kept]}))
    return made


def is_empty(frames: Sequence[Frame]) -> bool:
    """Say whether no frame has a value: no row, or nothing but nulls and NaN."""
    return not any(
        value is not None and not (isinstance(value, float) and math.isnan(value))
        for frame in frames
        for values in frame.series.values()
        for value in values
    )
