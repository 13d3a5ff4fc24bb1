"""A source of weather: asking it and understanding it are apart, so that kept answers can be understood again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, Protocol, TypeVar

import msgspec

import meteo_common.message as contract
from meteo_common.errors import MeteoError, RefusedError, TransientError, UsageError
from meteo_common.message import AirQuality, ForecastStep, Message, Observation, Sun, decode, encode
from meteo_common.places import Place
from meteo_producer.answer import Json, as_number
from meteo_producer.limits import limit_air_quality, limit_forecast, limit_observation

Feed = Literal["current", "forecast", "air_quality"]
FEEDS: tuple[Feed, ...] = ("current", "forecast", "air_quality")
"""What a source can be asked for. `current` is part of every poll: without an observation there is no message."""


LONGEST_MESSAGE = 1_000_000
"""Bytes: Kafka's topics and clients take records up to 1 MiB, key and frame included. The longest seen has 0.2 MB."""


class KeyRefusedError(UsageError):
    """The provider refuses the key: asking again helps only with another one."""


class RateLimitedError(TransientError):
    """The provider asks for a pause, of `retry_after` seconds where it said so."""


class BudgetSpentError(TransientError):
    """Asking would exceed what the provider allows; `retry_after` says in how many seconds it would no longer."""


@dataclass(frozen=True)
class Answers:
    """What a provider said of one place at one poll.

    `bodies`: parsed JSON by the names of the message's `raw`: current, forecast, air_pollution.
    `units`: the units asked for, where the answers do not name them themselves.
    `missing`: feeds besides `current` that were asked for and could not be had, each with its error.
    """

    place: Place
    collected_at: datetime
    bodies: dict[str, Any]
    units: str | None = None
    missing: dict[str, MeteoError] = field(default_factory=dict)


class Source(Protocol):
    """A provider that is asked about a place."""

    name: str
    needs_coordinates: bool
    """Whether a place that CITY gives by name only must be looked up first, over the network."""

    def ready(self) -> None:
        """Raise UsageError naming the setting without which it cannot be asked."""

    def poll_cost(self, feeds: Collection[Feed]) -> float:
        """Return what `fetch` takes from the budget for these feeds, in the provider's unit; 0 without a provider."""

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        """Ask about a place, which has coordinates if the source needs them.

        Raises UsageError for what must be set right, UnreachableError when the provider does not answer,
        RateLimitedError when it wants a pause, BudgetSpentError when its budget is spent.
        """

    def normalise(self, answers: Answers) -> Message:
        """Return the message that the answers say; a pure function. Raises RefusedError with the reason."""


class History(Protocol):
    """A provider of past days, asked for them once."""

    name: str
    days_per_call: int

    def ready(self) -> None:
        """Raise UsageError naming the setting without which it cannot be asked."""

    def last_day(self, today: date) -> date:
        """Return the last day that is whole; later ones are not asked for."""

    def cost(self, days: int) -> float:
        """Return what one call about so many days takes from the budget, in the provider's unit."""

    def fetch_days(self, place: Place, first: date, last: date, collected_at: datetime) -> Answers:
        """Ask about these days (inclusive) of a place that has coordinates. Raises as `Source.fetch` does."""

    def normalise_days(self, answers: Answers) -> list[tuple[date, Message]]:
        """Return one message for each hour that was measured, with the day it belongs to.

        Each message's `raw` is an answer about its hour alone, in the provider's own form, from which it can be
        normalised again. Raises RefusedError with the reason.
        """


class Recording(Protocol):
    """Weather that was recorded before, and that comes to an end."""

    name: str

    def __len__(self) -> int:
        """Return how many messages there will be."""

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each message's key and value, as `as_record` makes them, in the order of their time."""


@dataclass(frozen=True)
class Selection:
    """What of a recording is wanted: days in WEATHER_TIMEZONE (inclusive, None = open), places (empty = all)."""

    first: date | None = None
    last: date | None = None
    places: tuple[Place, ...] = ()


T = TypeVar("T")
AirReading = tuple[AirQuality | None, float | None]
"""The air quality, still without its index, and the index as the provider gave it; None when it was not asked for."""


def without_refused(name: str, read: Callable[[], T], default: T, quality: list[str]) -> T:
    """Return what `read` makes of a feed besides `current`; when it refuses, `default`, and `quality` says so.

    An unreadable forecast must not cost the observation; its answer stays in `raw`.
    """
    try:
        return read()
    except (RefusedError, ValueError):
        # The parts of a message raise ValueError for times outside its calendar.
        quality.append(f"{name}:refused")
        return default


def as_record(message: Message) -> tuple[bytes, bytes]:
    """Return the key and the value of a message's record."""
    return message.station_id.encode(), encode(message)


def checked(message: Message) -> Message:
    """Return the message if its own contract accepts it. Raises RefusedError with the contract's reason."""
    try:
        value = encode(message)
    except (UnicodeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RefusedError(f"the answer cannot be kept as JSON: {error}") from None
    if len(value) > LONGEST_MESSAGE:
        raise RefusedError(f"the message has {len(value)} bytes, more than the {LONGEST_MESSAGE} that Kafka takes")
    return decode(value)


def build(
    source: str,
    answers: Answers,
    station: str | None,
    observed_at: datetime,
    observation: Observation,
    *,
    data_origin: Literal["api", "simulated", "replay"] = "api",
    position: tuple[float, float] | None = None,
    read_forecast: Callable[[], list[ForecastStep]] = list,
    read_air_quality: Callable[[], AirReading] = lambda: (None, None),
    read_sun: Callable[[], Sun | None] = lambda: None,
    refused: Collection[str] = (),
) -> Message:
    """Return the message of these answers: what is the same for every source is said here, and here only.

    `station`: the station's name within the source; None for a source that knows coordinates only.
    `position`: latitude and longitude in degrees, else the place's. What a `read_` function refuses is left out, and
    `quality` says so, after what `without_refused` noted in `refused`. What lies outside its limits becomes None and is
    named there too. Raises RefusedError when the message breaks its contract (times, identity).
    """
    noted = list(refused)
    no_steps: list[ForecastStep] = []
    no_air: AirReading = None, None
    steps = without_refused("forecast", read_forecast, no_steps, noted)
    air_quality, air_index = without_refused("air_quality", read_air_quality, no_air, noted)
    sun = without_refused("sun", read_sun, None, noted)
    quality = [*limit_observation(observation), *limit_forecast(steps), *limit_air_quality(air_quality, air_index)]
    place = answers.place
    latitude, longitude = position or (place.latitude, place.longitude)
    if station is None:
        if latitude is None or longitude is None:
            raise RefusedError("the answer names neither a station nor coordinates")
        station = station_at(latitude, longitude)
    try:
        return Message(
            schema_version=contract.SCHEMA_VERSION,
            # Read when it is needed: stored answers are normalised again when it is a higher one.
            normaliser_version=contract.NORMALISER_VERSION,
            source=source,
            data_origin=data_origin,
            station_id=f"{source}:{station}",
            city=place.name,
            country=place.country,
            latitude=latitude,
            longitude=longitude,
            observed_at=observed_at,
            collected_at=answers.collected_at,
            observation=observation,
            air_quality=air_quality,
            sun=sun,
            forecast=steps,
            quality=[*quality, *noted],
            raw=answers.bodies,
        )
    except ValueError as error:
        raise RefusedError(str(error)) from None


def station_at(latitude: float, longitude: float) -> str:
    """Return the station's name where a source knows coordinates only: 2 decimals, about a kilometre; no -0.00."""
    return f"{round(latitude, 2) + 0.0:.2f},{round(longitude, 2) + 0.0:.2f}"


def position_of(place: Place, body: Json) -> tuple[float, float]:
    """Return the coordinates that were asked for, else those that the answer names. Raises RefusedError without any."""
    if place.latitude is not None and place.longitude is not None:
        return place.latitude, place.longitude
    latitude, longitude = (as_number(body.get(name), name) for name in ("latitude", "longitude"))
    if latitude is None or longitude is None:
        raise RefusedError("the answer has no coordinates")
    return latitude, longitude
