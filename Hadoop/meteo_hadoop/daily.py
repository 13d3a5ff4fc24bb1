"""The job of the daily aggregates: rows of the days' files → one line per station and day."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING

from meteo_hadoop.formulas import aggregates, line_of
from meteo_hadoop.job import Count, Job, Key
from meteo_hadoop.local_time import LocalTime, local_time

if TYPE_CHECKING:
    from meteo_hadoop.rows import ROW_ERRORS, Row, decode_row, encode_row
else:
    try:
        from meteo_hadoop.rows import ROW_ERRORS, Row, decode_row, encode_row
    except ImportError:  # msgspec, or its compiled part for this machine, is not here
        from meteo_hadoop.rows_plain import ROW_ERRORS, Row, decode_row, encode_row

_STATION = re.compile(r"[a-z-]+:[A-Za-z0-9._,+-]+", re.ASCII)
_KNOWN_STATIONS = 100_000
FORECAST_HOURS = 3

BAD_LINES = ("bad_json", "bad_row", "bad_time", "bad_station", "bad_day")
"""Counters of lines that do not count, by reason; `lines` counts all that were read."""


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


def pack(row: Row) -> bytes:
    """Return the row's bytes. A function, because a codec's method cannot be pickled."""
    return encode_row(row)


def unpack(value: bytes) -> Row:
    """Return the row of `pack`."""
    return decode_row(value)


def from_parameters(parameters: Mapping[str, str]) -> Job:
    """Return the job whose `parameters` these are."""
    days = parameters.get("days")
    return daily_job(
        parameters["zone"], None if days is None else {date.fromisoformat(day) for day in days.split(",") if day}
    )


def map_rows(
    lines: Iterable[bytes], count: Count, *, zone: str, days: frozenset[str] | None
) -> Iterator[tuple[Key, Row]]:
    """Yield ((day, station_id, observed_at), row) of each good line, with the forecast steps of its day alone.

    observed_at is the row's `date_time`, which is the message's, in a canonical form that sorts.
    """
    # One object per station and day: keys of the same objects are compared and hashed in half the time.
    time, stations = local_time(zone), dict[str, str]()
    place = time.place
    decode = decode_row
    seen = 0
    for line in lines:
        seen += 1
        try:
            row = decode(line)
        except ROW_ERRORS:
            count(_reason(line), 1)
            continue
        try:
            day, observed_at = place(row.date_time)
        except ValueError:
            count("bad_time", 1)
            continue
        message = row.value
        if days is not None and day not in days:
            count("bad_day", 1)
            continue
        station_id = stations.get(message.station_id)
        if station_id is None:
            station_id = message.station_id
            if _STATION.fullmatch(station_id) is None:
                count("bad_station", 1)
                continue
            if len(stations) < _KNOWN_STATIONS:
                stations[station_id] = station_id
        if message.forecast:
            _keep_day(row, day, time)
        yield (day, station_id, observed_at), row
    count("lines", seen)


def winner(one: Row, other: Row) -> Row:
    """Return the row that counts of two of one station and time.

    The greatest (collected_at, normaliser_version, topic generation, partition, offset) wins, times as instants.
    """
    return one if _order(one) >= _order(other) else other


def reduce_day(partition: Key, records: Iterable[tuple[Key, Row]], *, zone: str) -> Iterator[bytes]:
    """Yield the one line of a station's day; `records` are its winners in the order of observed_at."""
    day, station_id = partition
    winners = [(key[2], row.value) for key, row in records]
    yield line_of(aggregates(day, station_id, winners, local_time(zone)))


def _order(row: Row) -> tuple[datetime, int, int, int, int]:
    message = row.value
    return message.collected_at, message.normaliser_version, row.topic_generation, row.partition, row.msg_offset


def _keep_day(row: Row, day: str, time: LocalTime) -> None:
    """Leave of a row's forecast only what `formulas.precipitation_forecast` sums."""
    message = row.value
    message.forecast = [
        step
        for step in message.forecast
        if step.hours == FORECAST_HOURS and step.precipitation_mm is not None and time.day_of(step.valid_at) == day
    ]


def _reason(line: bytes) -> str:
    """Return why decode_row refused a line: the same reason with and without msgspec."""
    try:
        json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "bad_json"
    return "bad_row"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
