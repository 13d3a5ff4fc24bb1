"""The message on the topic `weather-api`: one per place and poll, as UTF-8 JSON.

`decode` is the contract: what it accepts becomes a row, what it refuses becomes a dead letter with its reason.
Units are in the names; a field that is None was not said by the provider. `docs/message.md` explains each.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from meteo_common.errors import RefusedError

SCHEMA_VERSION = 1
NORMALISER_VERSION = 1

EARLIEST = datetime(1940, 1, 1, tzinfo=UTC)
"""No source of ours knows older weather (Open-Meteo's archive begins then)."""
LATEST_AHEAD = timedelta(hours=24)
"""A provider's clock may be ahead of ours by this much."""
CALENDAR = datetime(2, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""From the first up to, not including, the second: near Python's ends an instant has no date in UTC or a local zone."""

LIMITS: dict[str, tuple[float, float]] = {
    "temperature_celsius": (-90, 60),
    "apparent_temperature_celsius": (-110, 80),
    "humidity_percent": (0, 100),
    "pressure_hpa": (300, 1100),
    "wind_speed_mps": (0, 115),
    "wind_gust_mps": (0, 140),
    "wind_direction_degrees": (0, 360),
    "cloud_cover_percent": (0, 100),
    "visibility_metres": (0, 200_000),
    "precipitation_1h_mm": (0, 450),
}
"""Inclusive limits of an observation's values: beyond the records ever measured on Earth it is an error."""
FORECAST_LIMITS: dict[str, tuple[float, float]] = {
    "temperature_celsius": (-90, 60),
    "precipitation_mm": (0, 1000),
}
INDEX_LIMITS: dict[str, tuple[float, float]] = {"openweather": (1, 5)}
"""Inclusive limits of an air quality index by its scale; every other scale has 0…1,000."""
OTHER_INDEX_LIMITS = (0.0, 1000.0)

Temperature = Annotated[float, Meta(ge=-90, le=60)] | None
Instant = Annotated[datetime, Meta(tz=True)]


class Observation(Struct):
    """Values measured at one instant."""

    temperature_celsius: Temperature = None
    apparent_temperature_celsius: Annotated[float, Meta(ge=-110, le=80)] | None = None
    humidity_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    pressure_hpa: Annotated[float, Meta(ge=300, le=1100)] | None = None
    wind_speed_mps: Annotated[float, Meta(ge=0, le=115)] | None = None
    wind_gust_mps: Annotated[float, Meta(ge=0, le=140)] | None = None
    wind_direction_degrees: Annotated[float, Meta(ge=0, le=360)] | None = None
    cloud_cover_percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    visibility_metres: Annotated[float, Meta(ge=0, le=200_000)] | None = None
    precipitation_1h_mm: Annotated[float, Meta(ge=0, le=450)] | None = None
    condition: str | None = None


class AirQuality(Struct):
    """An index by its provider's scale, and concentrations in µg/m³."""

    scale: Annotated[str, Meta(min_length=1)]
    observed_at: Instant
    index: float | None = None
    components_ugm3: dict[str, float | None] = {}

    def __post_init__(self) -> None:
        _check_calendar("observed_at", self.observed_at)
        low, high = INDEX_LIMITS.get(self.scale, OTHER_INDEX_LIMITS)
        if self.index is not None and not low <= self.index <= high:
            raise ValueError(f"index {self.index:g} is outside {low:g}…{high:g} of the scale {self.scale}")


class Sun(Struct):
    """Sunrise and sunset; None where the sun does not rise or set that day."""

    sunrise: Instant | None = None
    sunset: Instant | None = None

    def __post_init__(self) -> None:
        _check_calendar("sunrise", self.sunrise)
        _check_calendar("sunset", self.sunset)


class ForecastStep(Struct):
    """What is expected at `valid_at`; the precipitation falls in the `hours` that end there or begin there,
    as the provider defines it."""

    valid_at: Instant
    hours: Annotated[int, Meta(ge=1, le=24)]
    temperature_celsius: Temperature = None
    precipitation_mm: Annotated[float, Meta(ge=0, le=1000)] | None = None

    def __post_init__(self) -> None:
        _check_calendar("valid_at", self.valid_at)


class Message(Struct):
    """One place at one poll."""

    schema_version: Annotated[int, Meta(ge=1)]
    normaliser_version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    source: Annotated[str, Meta(pattern=r"^[a-z-]+\Z")]
    data_origin: Literal["api", "simulated", "replay"]
    station_id: Annotated[str, Meta(pattern=r"^[a-z-]+:[A-Za-z0-9._,+-]+\Z", max_length=200)]
    city: Annotated[str, Meta(min_length=1)]
    observed_at: Instant
    collected_at: Instant
    observation: Observation
    country: str | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    air_quality: AirQuality | None = None
    sun: Sun | None = None
    forecast: list[ForecastStep] = []
    quality: list[str] = []
    raw: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.schema_version > SCHEMA_VERSION:
            raise ValueError(f"schema_version {self.schema_version} is unknown (this version knows {SCHEMA_VERSION})")
        if not self.station_id.startswith(f"{self.source}:"):
            raise ValueError(f"station_id {self.station_id} does not begin with its source {self.source}")
        _check_calendar("observed_at", self.observed_at)
        _check_calendar("collected_at", self.collected_at)
        if self.observed_at < EARLIEST:
            raise ValueError("observed_at is before 1940")
        if self.observed_at - self.collected_at > LATEST_AHEAD:
            raise ValueError("observed_at is more than 24 h after collected_at")


def _check_calendar(name: str, instant: datetime | None) -> None:
    if instant is not None and not CALENDAR[0] <= instant < CALENDAR[1]:
        raise ValueError(f"{name} is outside the years 2 to 9998")


_decoder = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()
# Escapes that JSON allows and JSONB does not: NUL, or half of a surrogate pair (in a field that is not ours, where
# the typed decoder only skips; elsewhere it refuses them itself).
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(value: bytes | None) -> Message:
    """Return the message that a record's value holds.

    Raises RefusedError with the reason when it is not one, or when JSONB could not hold it.
    """
    if not value:
        raise RefusedError("the record has no value" if value is None else "the record's value is empty")
    try:
        if not value.isascii():
            value.decode("utf-8")  # the typed decoder skips fields that are not ours, whatever their bytes
        message = _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise RefusedError(f"not a valid message: {error}") from None
    except msgspec.DecodeError as error:
        if _SUSPECT.search(value):
            _refuse_what_jsonb_cannot_hold(value)
        raise RefusedError(f"not JSON: {error}") from None
    except UnicodeDecodeError:
        raise RefusedError("not UTF-8") from None
    except RecursionError:
        raise RefusedError("nested too deeply") from None
    # Most values have no backslash, and that is seen in a third of the time that the expression takes.
    if b"\\" in value and _SUSPECT.search(value):
        _refuse_what_jsonb_cannot_hold(value)
    return message


def encode(message: Message) -> bytes:
    """Return the record's value for a message. Times are written in UTC with a `Z`."""
    return _encoder.encode(message)


def _refuse_what_jsonb_cannot_hold(value: bytes) -> None:
    """Look for it in every text, also under a name that comes again.

    The standard library's decoder alone lets half a surrogate pair through.
    """
    try:
        # Numbers as they are written: an int of more than 4,300 digits would be refused.
        whole = json.loads(value, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError:
        raise RefusedError("nested too deeply") from None
    except ValueError:
        return
    stack: list[Any] = [whole]
    while stack:
        item = stack.pop()
        if isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, str):
            if "\x00" in item:
                raise RefusedError("contains \\u0000, which JSONB cannot hold")
            if _SURROGATE.search(item):
                raise RefusedError("contains half of a surrogate pair, which is no character")
