"""The aggregates of one station and day, from its winning rows in the order of `observed_at`.

The formulas are those of the design's section "Definitions". Sums are `math.fsum`, which rounds once, so that neither
the engine nor the number of splits can show in a result. Null (None) means that nothing was measured.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from math import atan2, cos, degrees, fsum, hypot, radians, sin
from operator import attrgetter, mul
from typing import TYPE_CHECKING, Any, TypeVar

from meteo_hadoop.local_time import LocalTime, shortened

if TYPE_CHECKING:
    from meteo_hadoop.rows import Message

AGGREGATE_VERSION = 1
CALM = 1e-9
"""A resultant wind below this share of the sum of speeds is the rounding error of winds that cancel."""

# Attributes are taken column by column, by functions written in C: it halved the reducer's time.
_OBSERVATION, _AIR_QUALITY, _FORECAST = map(attrgetter, ("observation", "air_quality", "forecast"))
_MEASURED = attrgetter(
    "temperature_celsius",
    "humidity_percent",
    "pressure_hpa",
    "wind_speed_mps",
    "wind_direction_degrees",
    "precipitation_1h_mm",
)

S = TypeVar("S")
T = TypeVar("T")


def aggregates(day: str, station_id: str, records: Sequence[tuple[str, Message]], time: LocalTime) -> dict[str, Any]:
    """Return the fields of one line of `aggregates.jsonl`, in their order.

    `records`: (observed_at in canonical form, winning message) in the order of observed_at, at least one.
    """
    times, messages = zip(*records, strict=True)
    columns = zip(*map(_MEASURED, map(_OBSERVATION, messages)), strict=True)
    temperature, humidity, pressure, speed, direction, rain = columns
    temperatures = _said(temperature)
    aqi, scale = air_quality_index(messages)
    last = messages[-1]
    return {
        "aggregate_version": AGGREGATE_VERSION,
        "date": day,
        "station_id": station_id,
        "city": last.city,
        "country": last.country,
        "source": last.source,
        "observations": len(messages),
        "temperature_avg_celsius": mean(temperatures),
        "temperature_min_celsius": min(temperatures) + 0.0 if temperatures else None,
        "temperature_max_celsius": max(temperatures) + 0.0 if temperatures else None,
        "precipitation_1h_sum_mm": precipitation_by_hour(times, rain, time),
        "precipitation_3h_sum_mm": precipitation_forecast(messages),
        "aqi_avg": aqi,
        "aqi_scale": scale,
        "humidity_avg_percent": mean(_said(humidity)),
        "pressure_avg_hpa": mean(_said(pressure)),
        "wind_speed_avg_mps": mean(_said(speed)),
        "wind_direction_mean_degrees": wind_direction(_pairs(speed, direction)),
        "first_observed_at": shortened(times[0]),
        "last_observed_at": shortened(times[-1]),
    }


def line_of(fields: Mapping[str, Any]) -> bytes:
    """Return the JSON text of a line: the fields' order, no spaces, UTF-8, the shortest digits that mean the number."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def mean(values: Sequence[float]) -> float | None:
    """Return sum / count; None of no values. Adding 0.0 turns a negative zero into zero."""
    return fsum(values) / len(values) + 0.0 if values else None


def precipitation_by_hour(times: Sequence[str], amounts: Sequence[float | None], time: LocalTime) -> float | None:
    """Return the sum over local hours of the last precipitation_1h_mm that was said in each; None if none was.

    An hour is a local hour together with its UTC offset: the long day has 25, the short one 23, and where the offset
    is half an hour they begin at the half hours of UTC. A poll every ten minutes does not count an hour six times.
    """
    said = _pairs(times, amounts)
    # By hours of UTC first, 25 at most, because a look at the zone for each of 144 observations takes twice the time.
    hours = {observed_at[:13]: amount for observed_at, amount in said}
    if all(map(time.is_local_hour, hours)):
        return _sum(hours)
    return _sum({time.hour(observed_at): amount for observed_at, amount in said})


def precipitation_forecast(messages: Iterable[Message]) -> float | None:
    """Return the sum over `valid_at` of the precipitation that the latest message with one expected; None if none did.

    The mapper has left only the steps of 3 hours, with a value, that are valid on this day.
    """
    steps: dict[Hashable, float] = {}
    for step in chain.from_iterable(map(_FORECAST, messages)):
        if step.precipitation_mm is not None:
            steps[step.valid_at] = step.precipitation_mm
    return _sum(steps)


def air_quality_index(messages: Iterable[Message]) -> tuple[float | None, str | None]:
    """Return the mean of the indices, one per distinct air_quality.observed_at, and their scale; (None, None) of none.

    Each time has the index of the latest message that said one. The scale is that of the last message with an index;
    times whose index has another scale are left out, because no number of both means anything.
    """
    indices: dict[Hashable, tuple[str, float]] = {}
    scale = None
    for air in _said(map(_AIR_QUALITY, messages)):
        if air.index is not None:
            scale = air.scale
            indices[air.observed_at] = (scale, air.index)
    return mean([index for own, index in indices.values() if own == scale]), scale


def wind_direction(winds: Sequence[tuple[float, float]]) -> float | None:
    """Return the direction, in [0, 360) degrees, of the vector sum of (speed, direction) pairs.

    None without pairs, in calm, and where the winds cancel: a resultant below `CALM` of the sum of speeds.
    """
    if not winds:
        return None
    speeds, directions = zip(*winds, strict=True)
    angles = list(map(radians, directions))
    total = fsum(speeds)
    east = fsum(map(mul, speeds, map(sin, angles)))
    north = fsum(map(mul, speeds, map(cos, angles)))
    if total <= 0 or hypot(east, north) < CALM * total:
        return None
    angle = degrees(atan2(east, north)) % 360.0
    # The remainder of a tiny negative angle rounds up to 360 itself.
    return angle if angle < 360.0 else 0.0


def _said(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def _pairs(ones: Sequence[S | None], others: Sequence[T | None]) -> list[tuple[S, T]]:
    """Return the pairs of which both were said."""
    return [(one, other) for one, other in zip(ones, others, strict=True) if one is not None and other is not None]


def _sum(amounts: Mapping[Any, float]) -> float | None:
    return fsum(amounts.values()) + 0.0 if amounts else None
