"""Reading the aggregates: from HBase by row key, or from the days' `aggregates.jsonl` where HBASE_ENABLED is off."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

from meteo_common.errors import UsageError
from meteo_common.settings import Settings
from meteo_hadoop.hbase import AggregateTable, ForeignRow, StoredRow
from meteo_hadoop.manifest import AGGREGATES, Days
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import THREADS, FileSystem

Aggregates = dict[str, Any]
"""One line of `aggregates.jsonl`: a station's day."""

COLUMNS = {
    "date": "day",
    "station_id": "station",
    "city": "city",
    "observations": "obs.",
    "temperature_avg_celsius": "°C avg",
    "temperature_min_celsius": "min",
    "temperature_max_celsius": "max",
    "precipitation_1h_sum_mm": "rain mm",
    "humidity_avg_percent": "hum. %",
    "pressure_avg_hpa": "hPa",
    "wind_speed_avg_mps": "wind m/s",
    "wind_direction_mean_degrees": "from °",
}
"""What a person sees, with its headings."""

FIELDS = (
    "aggregate_version", "date", "station_id", "city", "country", "source", "observations",
    "temperature_avg_celsius", "temperature_min_celsius", "temperature_max_celsius",
    "precipitation_1h_sum_mm", "precipitation_3h_sum_mm", "aqi_avg", "aqi_scale",
    "humidity_avg_percent", "pressure_avg_hpa", "wind_speed_avg_mps", "wind_direction_mean_degrees",
    "first_observed_at", "last_observed_at",
)  # fmt: skip
"""In the order of a line; HBase sorts columns by name and leaves out those that are null."""
_TEXTS = {
    "date", "station_id", "city", "country", "source", "aqi_scale", "first_observed_at", "last_observed_at",
}  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """Which aggregates: of a station (None: all), from one day to another, both inclusive (None: without bound).

    `latest`: of each station only the newest day among these.
    """

    station_id: str | None = None
    first: date | None = None
    last: date | None = None
    latest: bool = False

    def __post_init__(self) -> None:
        if self.first and self.last and self.first > self.last:
            raise UsageError(f"--from {self.first} is after --to {self.last}; exchange them.")
        if self.station_id is not None and (not self.station_id or "#" in self.station_id):
            raise UsageError(f"'{self.station_id}' is no station; expected one such as open-meteo:2988507.")

    def covers(self, day: date) -> bool:
        """Say whether the day lies within the bounds."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


def query(settings: Settings, selection: Selection) -> list[Aggregates]:
    """Return the aggregates sorted by day and station.

    Raises UnreachableError when HBase, or with HBASE_ENABLED=false HDFS, is away.
    """
    read = _from_hbase if settings.hbase_enabled else _from_hdfs
    found = sorted(read(settings, selection), key=lambda row: (row["date"], row["station_id"]))
    if selection.latest:
        found = sorted({row["station_id"]: row for row in found}.values(), key=lambda row: str(row["station_id"]))
    return found


def newest_aggregates(settings: Settings, days: int) -> list[Aggregates]:
    """Return the aggregates of the last `days` days that have some, by day and station, as they lie in HDFS."""
    partitions = Days(FileSystem(settings), settings.hdfs_base_path)
    found: list[list[Aggregates]] = []
    for day in sorted(partitions.listed(), reverse=True):
        if rows := _read_day(partitions, day):
            found.append(rows)
        if len(found) == days:
            break
    return [row for rows in reversed(found) for row in rows]


def table(rows: Iterable[Aggregates]) -> tuple[Sequence[str], list[list[str]]]:
    """Return headings and cells for people."""
    return list(COLUMNS.values()), [[_cell(row.get(name)) for name in COLUMNS] for row in rows]


def _from_hbase(settings: Settings, selection: Selection) -> Iterator[Aggregates]:
    with AggregateTable.connect(settings) as hbase:
        for row in _stored_rows(hbase, selection):
            if isinstance(row, StoredRow) and selection.covers(row.day):
                yield _parsed(row)


def _stored_rows(hbase: AggregateTable, selection: Selection) -> Iterator[StoredRow | ForeignRow]:
    """Yield the rows of the station's days, or of the whole table: keys begin with the station."""
    station = selection.station_id
    if station is None:
        return hbase.scan()
    first = f"{station}#{selection.first or ''}".encode()
    # Behind the last key that is wanted: '$' follows '#', and a NUL follows a day.
    after = f"{station}#{selection.last}\0".encode() if selection.last else f"{station}$".encode()
    return hbase.scan(first, after, newest=selection.latest)


def _from_hdfs(settings: Settings, selection: Selection) -> Iterator[Aggregates]:
    partitions = Days(FileSystem(settings), settings.hdfs_base_path)
    days = [day for day in partitions.listed() if selection.covers(day)]
    with ThreadPoolExecutor(THREADS) as pool:
        for rows in pool.map(lambda day: _read_day(partitions, day), days):
            yield from (row for row in rows if selection.station_id in {None, row["station_id"]})


def _read_day(partitions: Days, day: date) -> list[Aggregates]:
    try:
        content = partitions.filesystem.read(partitions.path(day, AGGREGATES))
    except FileVanishedError:
        return []  # not aggregated yet
    return [json.loads(line) for line in content.splitlines()]


def _parsed(row: StoredRow) -> Aggregates:
    """Return HBase's texts as the line they came from."""
    values = {name: text if name in _TEXTS else json.loads(text) for name, text in row.fields.items()}
    return dict.fromkeys(FIELDS) | values


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
