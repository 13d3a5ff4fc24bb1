"""The job of the station climate: rows of all days' files → one line per station.

Its formulas are those of a day, taken over all days: docs/queries.md defines each field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from meteo_hadoop.formulas import line_of, mean, precipitation_by_hour
from meteo_hadoop.job import Count, Job, Key
from meteo_hadoop.local_time import LocalTime, local_time
from meteo_hadoop.observations import good_rows, pack, unpack, winner

if TYPE_CHECKING:
    from meteo_hadoop.rows import Message, Observation, Row

CLIMATE_VERSION = 1
RAIN_DAY_MM = 1.0
"""A day of at least this much is a day of rain: the threshold of WMO-No. 1203, the guidelines on climate normals."""
SECTORS = ("N", "NNE", "NE", "ENE", "E", "ESE", "SE", "SSE", "S", "SSW", "SW", "WSW", "W", "WNW", "NW", "NNW")
SPEED_BOUNDS_MPS = (0.5, 2.1, 3.6, 5.7, 8.8, 11.1)
"""Lower bounds of the wind's classes, those usual in wind roses (1, 4, 7, 11, 17 and 22 knots); below them is calm."""


def climate_job(zone: str) -> Job:
    """Return the job that computes each station's climate, months and days by the calendar of `zone`.

    Keys are (station_id, day, observed_at); results are sorted by (station_id,).
    """
    return Job(
        name="climate",
        mapper=partial(map_rows, zone=zone),
        combiner=winner,
        reducer=partial(reduce_station, zone=zone),
        encode=pack,
        decode=unpack,
        key_fields=3,
        partition_fields=1,
        parameters={"zone": zone},
        zones=(zone,),
        partitions_span_folders=True,
    )


def from_parameters(parameters: Mapping[str, str]) -> Job:
    """Return the job whose `parameters` these are."""
    return climate_job(parameters["zone"])


def map_rows(lines: Iterable[bytes], count: Count, *, zone: str) -> Iterator[tuple[Key, Row]]:
    """Yield ((station_id, day, observed_at), row) of each good line, without what the climate does not need."""
    for day, station_id, observed_at, row in good_rows(lines, count, local_time(zone)):
        message = row.value
        message.forecast, message.air_quality = [], None
        yield (station_id, day, observed_at), row


def reduce_station(partition: Key, records: Iterable[tuple[Key, Row]], *, zone: str) -> Iterator[bytes]:
    """Yield the one line of a station; `records` are its winners, of which one day's are held at a time."""
    (station_id,) = partition
    climate = _Climate(local_time(zone))
    for day, members in groupby(records, key=lambda record: record[0][1]):
        climate.add_day(day, [(key[2], row.value) for key, row in members])
    yield line_of(climate.fields(station_id))


@dataclass
class _Month:
    """What one calendar month has come to, over all years."""

    years: set[str] = field(default_factory=set)
    observations: int = 0
    days: int = 0
    # Sums by math.fsum: one number of each day is kept, which is 31 a year.
    daily_means: list[float] = field(default_factory=list)
    lowest: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)
    precipitation_days: int = 0
    rain_days: int = 0

    def fields(self, month: int) -> dict[str, Any]:
        return {
            "month": month,
            "years": len(self.years),
            "days": self.days,
            "observations": self.observations,
            "temperature_avg_celsius": mean(self.daily_means),
            "temperature_min_celsius": min(self.lowest) + 0.0 if self.lowest else None,
            "temperature_max_celsius": max(self.highest) + 0.0 if self.highest else None,
            "precipitation_days": self.precipitation_days,
            "rain_days": self.rain_days,
        }


class _Climate:
    """The climate of one station, day by day."""

    def __init__(self, time: LocalTime) -> None:
        self._time = time
        self._months: dict[int, _Month] = {}
        self._rose: Counter[tuple[int, int]] = Counter()
        self._calm = self._without_direction = 0
        self._first_day = self._last_day = ""
        self._last: tuple[str, Message] | None = None

    def add_day(self, day: str, records: Sequence[tuple[str, Message]]) -> None:
        """Add a day's (observed_at, winning message) in the order of observed_at; days come in their order."""
        month = self._months.setdefault(int(day[5:7]), _Month())
        month.years.add(day[:4])
        month.days += 1
        month.observations += len(records)
        observations = [message.observation for _, message in records]
        temperatures = [value for item in observations if (value := item.temperature_celsius) is not None]
        if (average := mean(temperatures)) is not None:
            month.daily_means.append(average)
            month.lowest.append(min(temperatures))
            month.highest.append(max(temperatures))
        amounts = [item.precipitation_1h_mm for item in observations]
        amount = precipitation_by_hour([at for at, _ in records], amounts, self._time)
        month.precipitation_days += amount is not None
        month.rain_days += amount is not None and amount >= RAIN_DAY_MM
        for item in observations:
            self._add_wind(item)
        self._first_day = self._first_day or day
        self._last_day = day
        # Where a zone went back over midnight, the later day may hold the earlier observation.
        if self._last is None or records[-1][0] > self._last[0]:
            self._last = records[-1]

    def _add_wind(self, item: Observation) -> None:
        speed, direction = item.wind_speed_mps, item.wind_direction_degrees
        if speed is None:
            return
        if speed < SPEED_BOUNDS_MPS[0]:
            self._calm += 1
        elif direction is None:
            self._without_direction += 1
        else:
            self._rose[sector(direction), sum(speed >= bound for bound in SPEED_BOUNDS_MPS) - 1] += 1

    def fields(self, station_id: str) -> dict[str, Any]:
        """Return the fields of the station's line, in their order."""
        assert self._last is not None  # noqa: S101 - a partition has a record
        last = self._last[1]
        months = sorted(self._months.items())
        return {
            "climate_version": CLIMATE_VERSION,
            "station_id": station_id,
            "city": last.city,
            "country": last.country,
            "source": last.source,
            "first_date": self._first_day,
            "last_date": self._last_day,
            "days": sum(month.days for _, month in months),
            "observations": sum(month.observations for _, month in months),
            "months": [month.fields(number) for number, month in months],
            "wind_rose": {
                "speed_bounds_mps": SPEED_BOUNDS_MPS,
                "calm": self._calm,
                "without_direction": self._without_direction,
                "sectors": {
                    name: [self._rose[number, speed] for speed in range(len(SPEED_BOUNDS_MPS))]
                    for number, name in enumerate(SECTORS)
                },
            },
        }


def sector(direction: float) -> int:
    """Return the index in SECTORS of a direction in degrees; each is 22.5° wide and includes its first edge.

    North is [348.75, 360) and [0, 11.25).
    """
    width = 360 / len(SECTORS)
    return int((direction + width / 2) // width) % len(SECTORS)
