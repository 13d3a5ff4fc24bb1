"""The job of the daily aggregates: rows of the days' files → one line per station and day."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from meteo_hadoop.formulas import aggregates, line_of
from meteo_hadoop.job import Count, Job, Key
from meteo_hadoop.local_time import LocalTime, local_time
from meteo_hadoop.observations import good_rows, pack, unpack, winner

if TYPE_CHECKING:
    from meteo_hadoop.rows import Row

FORECAST_HOURS = 3


def daily_job(zone: str, days: set[date] | None) -> Job:
    """Return the job that computes the daily aggregates of `days` (None: of all) by the calendar of `zone`.

    Keys are (day, station_id, observed_at); results are sorted by (day, station_id). Lines of other days than asked
    are counted as `bad_day`: they lie in a wrong folder.
    """
    names = None if days is None else frozenset(day.isoformat() for day in days)
    parameters = {"zone": zone} | ({} if names is None else {"days": ",".join(sorted(names))})
    return Job(
        name="daily",
        mapper=partial(map_rows, zone=zone, days=names),
        combiner=winner,
        reducer=partial(reduce_day, zone=zone),
        encode=pack,
        decode=unpack,
        key_fields=3,
        partition_fields=2,
        parameters=parameters,
        zones=(zone,),
    )


def from_parameters(parameters: Mapping[str, str]) -> Job:
    """Return the job whose `parameters` these are."""
    days = parameters.get("days")
    return daily_job(
        parameters["zone"], None if days is None else {date.fromisoformat(day) for day in days.split(",") if day}
    )


def map_rows(
    lines: Iterable[bytes], count: Count, *, zone: str, days: frozenset[str] | None
) -> Iterator[tuple[Key, Row]]:
    """Yield ((day, station_id, observed_at), row) of each good line, with the forecast steps of its day alone."""
    time = local_time(zone)
    for day, station_id, observed_at, row in good_rows(lines, count, time, days):
        if row.value.forecast:
            _keep_day(row, day, time)
        yield (day, station_id, observed_at), row


def reduce_day(partition: Key, records: Iterable[tuple[Key, Row]], *, zone: str) -> Iterator[bytes]:
    """Yield the one line of a station's day; `records` are its winners in the order of observed_at."""
    day, station_id = partition
    winners = [(key[2], row.value) for key, row in records]
    yield line_of(aggregates(day, station_id, winners, local_time(zone)))


def _keep_day(row: Row, day: str, time: LocalTime) -> None:
    """Leave of a row's forecast only what `formulas.precipitation_forecast` sums."""
    message = row.value
    message.forecast = [
        step
        for step in message.forecast
        if step.hours == FORECAST_HOURS and step.precipitation_mm is not None and time.day_of(step.valid_at) == day
    ]
