"""Forecast steps of 3 hours, as OpenWeather gives them, from the hourly values of the other sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from meteo_common.message import ForecastStep

HOUR = timedelta(hours=1)
STEPS = 40
"""Forecast steps of 3 hours: 5 days, as far as OpenWeather's free forecast reaches."""


def three_hour_steps(
    rain: Mapping[datetime, float | None], warmth: Mapping[datetime, float | None], after: datetime
) -> list[ForecastStep]:
    """Return up to 40 steps that end after `after`, on the 3-hour grid of UTC (in zones of a half hour, at :30).

    `rain`: mm by the end of the hour in which they fall; `warmth`: °C by their instants.
    `valid_at` is the end of the step, as for OpenWeather; its precipitation is the sum of the 3 hours that end there,
    None when one of them is not known; the temperature is that at `valid_at`.
    """
    steps = []
    for end in sorted(rain.keys() | warmth.keys()):
        if end > after and end.timestamp() % 10800 < 3600:
            amounts = [rain.get(end - HOUR * back) for back in (2, 1, 0)]
            steps.append(ForecastStep(end, 3, warmth.get(end), total(amounts)))
    return steps[:STEPS]


def total(amounts: list[float | None]) -> float | None:
    """Return the sum without the noise of binary fractions (providers give at most 3 decimals); None if one is None."""
    known = [amount for amount in amounts if amount is not None]
    return round(math.fsum(known), 6) if len(known) == len(amounts) else None
