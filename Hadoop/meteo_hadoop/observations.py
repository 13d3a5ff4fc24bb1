"""Observations as every job reads them: the good lines of the days' files, and the winner of several messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from meteo_hadoop.job import Count
from meteo_hadoop.local_time import LocalTime

if TYPE_CHECKING:
    from meteo_hadoop.rows import ROW_ERRORS, Row, decode_row, encode_row
else:
    try:
        from meteo_hadoop.rows import ROW_ERRORS, Row, decode_row, encode_row
    except ImportError:  # msgspec, or its compiled part for this machine, is not here
        from meteo_hadoop.rows_plain import ROW_ERRORS, Row, decode_row, encode_row

_STATION = re.compile(r"[a-z-]+:[A-Za-z0-9._,+-]+", re.ASCII)
_KNOWN_STATIONS = 100_000

BAD_LINES = ("bad_json", "bad_row", "bad_time", "bad_station", "bad_day")
"""Counters of lines that do not count, by reason; `lines` counts all that were read."""


def pack(row: Row) -> bytes:
    """Return the row's bytes. A function, because a codec's method cannot be pickled."""
    return encode_row(row)


def unpack(value: bytes) -> Row:
    """Return the row of `pack`."""
    return decode_row(value)


def good_rows(
    lines: Iterable[bytes], count: Count, time: LocalTime, days: frozenset[str] | None = None
) -> Iterator[tuple[str, str, str, Row]]:
    """Yield (local date, station_id, observed_at, row) of each good line; count the others, by reason, and all.

    observed_at is the row's `date_time`, which is the message's, in a canonical form that sorts. Rows of other days
    than `days` (None: all count) are bad: they lie in a wrong folder.
    """
    # One object per station and day: keys of the same objects are compared and hashed in half the time.
    stations = dict[str, str]()
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
        if days is not None and day not in days:
            count("bad_day", 1)
            continue
        station_id = stations.get(row.value.station_id)
        if station_id is None:
            station_id = row.value.station_id
            if _STATION.fullmatch(station_id) is None:
                count("bad_station", 1)
                continue
            if len(stations) < _KNOWN_STATIONS:
                stations[station_id] = station_id
        yield day, station_id, observed_at, row
    count("lines", seen)


def winner(one: Row, other: Row) -> Row:
    """Return the row that counts of two of one station and time.

    The greatest (collected_at, normaliser_version, topic generation, partition, offset) wins, times as instants.
    """
    return one if _order(one) >= _order(other) else other


def _order(row: Row) -> tuple[datetime, int, int, int, int]:
    message = row.value
    return message.collected_at, message.normaliser_version, row.topic_generation, row.partition, row.msg_offset


def _reason(line: bytes) -> str:
    """Return why decode_row refused a line: the same reason with and without msgspec."""
    try:
        json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "bad_json"
    return "bad_row"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
