"""Answers as Open-Meteo's archive gives them, for any days; no long one was recorded."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from meteo_producer.open_meteo_archive import VARIABLES

UNITS = {
    "time": "iso8601", "temperature_2m": "°C", "apparent_temperature": "°C", "relative_humidity_2m": "%",
    "pressure_msl": "hPa", "wind_speed_10m": "m/s", "wind_gusts_10m": "m/s", "wind_direction_10m": "°",
    "cloud_cover": "%", "precipitation": "mm", "weather_code": "wmo code",
}  # fmt: skip


def clock(start: datetime, hours: int) -> list[str]:
    return [f"{start + timedelta(hours=hour):%Y-%m-%dT%H:%M}" for hour in range(hours)]


def archive(first: str, last: str, **changes: Any) -> dict[str, Any]:
    """Return an answer of the archive about these days of UTC (inclusive); the temperature counts the hours."""
    start = datetime.fromisoformat(first)
    hours = ((datetime.fromisoformat(last) - start).days + 1) * 24
    hourly: dict[str, list[Any]] = {"time": clock(start, hours)}
    hourly |= {name: [1.0] * hours for name in VARIABLES}
    hourly["temperature_2m"] = [hour / 100 for hour in range(hours)]
    hourly |= changes
    frame = {"latitude": 48.86, "longitude": 2.34, "utc_offset_seconds": 0, "timezone": "GMT", "elevation": 38.0}
    return {**frame, "hourly_units": UNITS, "hourly": hourly}
