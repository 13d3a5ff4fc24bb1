"""A row of a day's files, with only what the aggregates need of it; read and written by msgspec.

`rows_plain` is the same without msgspec, for nodes that its compiled part does not fit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Instant = Annotated[datetime, Meta(tz=True)]


class Observation(Struct, gc=False, omit_defaults=True):
    """Values measured at one instant, in the units of their names; None was not said."""

    temperature_celsius: float | None = None
    humidity_percent: float | None = None
    pressure_hpa: float | None = None
    wind_speed_mps: float | None = None
    wind_direction_degrees: float | None = None
    precipitation_1h_mm: float | None = None


class AirQuality(Struct, gc=False, omit_defaults=True):
    """An index by its provider's scale."""

    scale: str
    observed_at: Instant
    index: float | None = None


class ForecastStep(Struct, gc=False, omit_defaults=True):
    """Precipitation expected in `hours` at `valid_at`."""

    valid_at: Instant
    hours: int
    precipitation_mm: float | None = None


class Message(Struct, gc=False, omit_defaults=True):
    """One place at one poll."""

    normaliser_version: int
    source: str
    station_id: str
    city: str
    collected_at: Instant
    observation: Observation
    country: str | None = None
    air_quality: AirQuality | None = None
    forecast: list[ForecastStep] = []


class Row(Struct, gc=False, omit_defaults=True):
    """A message with its observation's time and its place in the log; `topic_generation` counts remade topics."""

    date_time: str
    partition: int
    msg_offset: int
    value: Message
    topic_generation: int = 1


decode_row = msgspec.json.Decoder(Row).decode
"""Bytes → Row; raises one of `ROW_ERRORS`. Whatever is not in Row is skipped unread: 2 µs for a line of 1.5 KB."""
encode_row = msgspec.json.Encoder().encode
"""Row → bytes that decode_row reads, without newline or tab."""
ROW_ERRORS: tuple[type[Exception], ...] = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
