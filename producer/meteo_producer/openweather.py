"""OpenWeather: current weather, forecast of 5 days in steps of 3 hours, air pollution; needs a key.

Rules of the provider (openweathermap.org/current, /forecast5, /api/air-pollution):
- Times are unix seconds, UTC. `units`: standard (K, m/s), metric (°C, m/s), imperial (°F, mph); pressure is hPa, at
  sea level; visibility metres; rain and snow mm, whatever the units.
- "Only really measured or calculated data is displayed": any field can be absent.
- `rain.1h`, `snow.1h`: volume of the last hour. In the forecast `rain.3h`, `snow.3h`: "volume for last 3 hours, mm", so
  `dt` is the end of the step.
- `cod` in the body counts as much as the HTTP status.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from meteo_common.errors import MeteoError, RefusedError, UsageError
from meteo_common.message import AirQuality, ForecastStep, Message, Observation, Sun
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer import units
from meteo_producer.answer import Json, as_instant, as_list, as_number, as_numbers, as_object, as_text
from meteo_producer.api import Api, Endpoint
from meteo_producer.source import AirReading, Answers, Feed, build

ASKED_UNITS = "metric"
UNITS: Mapping[str, tuple[str, str]] = {
    "standard": ("K", "m/s"),
    "metric": ("°C", "m/s"),
    "imperial": ("°F", "mph"),
}
"""Units of temperature and wind by the request's `units`: the answers do not name them."""
PATHS: Mapping[Feed, tuple[str, str]] = {
    "current": ("current", "/data/2.5/weather"),
    "forecast": ("forecast", "/data/2.5/forecast"),
    "air_quality": ("air_pollution", "/data/2.5/air_pollution"),
}


class OpenWeather:
    """The source `openweather`."""

    name = "openweather"
    needs_coordinates = True

    def __init__(self, settings: Settings, api: Api) -> None:
        self._api = api
        self._base_url = settings.openweather_url
        self._key = settings.openweather_api_key

    def ready(self) -> None:
        """Raise UsageError without a key."""
        self._secret()

    def poll_cost(self, feeds: Collection[Feed]) -> float:
        """Return the number of calls: one for each feed."""
        return 1.0 + sum(feed != "current" for feed in feeds)

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        """Ask once per feed."""
        params: dict[str, str | int | float] = {
            "lat": place.latitude or 0.0,
            "lon": place.longitude or 0.0,
            "units": ASKED_UNITS,
            "appid": self._secret(),
        }
        bodies: dict[str, Any] = {}
        missing: dict[str, MeteoError] = {}
        for feed, (name, path) in PATHS.items():
            if feed != "current" and feed not in feeds:
                continue
            endpoint = Endpoint("OpenWeather", self._base_url, path, "OPENWEATHER_URL", account="openweather")
            try:
                bodies[name] = self._api.get(endpoint, params, str(place))
            except MeteoError as error:
                if feed == "current":
                    raise
                missing[feed] = error
        return Answers(place, collected_at, bodies, ASKED_UNITS, missing)

    def normalise(self, answers: Answers) -> Message:
        """Return the message; `station_id` is the provider's city, or its coordinates where it names no city."""
        body = _answer(answers.bodies.get("current"), "the answer")
        temperature, speed = UNITS[answers.units or ASKED_UNITS]
        observation, observed_at = read_current(body, temperature, speed)
        ahead, pollution = answers.bodies.get("forecast"), answers.bodies.get("air_pollution")
        return build(
            self.name,
            answers,
            _station(body),
            observed_at,
            observation,
            position=_position(body) if answers.place.latitude is None else None,
            read_forecast=lambda: read_forecast(ahead, temperature),
            read_air_quality=lambda: read_air_quality(pollution, answers.collected_at),
            read_sun=lambda: read_sun(body),
        )

    def _secret(self) -> str:
        if self._key is None:
            raise UsageError("The source openweather needs a key: set OPENWEATHER_API_KEY (openweathermap.org/api).")
        return self._key.get_secret_value()


def read_current(body: Json, temperature: str, speed: str) -> tuple[Observation, datetime]:
    """Return the current values, given in these units, and their time."""
    observed_at = as_instant(body.get("dt"), "dt")
    if observed_at is None:
        raise RefusedError("the answer has no time (dt)")
    main, wind, clouds = (as_object(body.get(name), name) for name in ("main", "wind", "clouds"))
    observation = Observation(
        temperature_celsius=_converted(main, "temp", temperature, units.CELSIUS),
        apparent_temperature_celsius=_converted(main, "feels_like", temperature, units.CELSIUS),
        humidity_percent=as_number(main.get("humidity"), "humidity"),
        pressure_hpa=as_number(main.get("pressure"), "pressure"),
        wind_speed_mps=_converted(wind, "speed", speed, units.METRES_PER_SECOND),
        wind_gust_mps=_converted(wind, "gust", speed, units.METRES_PER_SECOND),
        wind_direction_degrees=as_number(wind.get("deg"), "wind.deg"),
        cloud_cover_percent=as_number(clouds.get("all"), "clouds.all"),
        visibility_metres=as_number(body.get("visibility"), "visibility"),
        condition=_condition(body),
    )
    if observation == Observation():
        raise RefusedError("the answer holds no weather (neither main, wind, clouds, visibility nor weather)")
    # The provider's contract: neither key means that none fell.
    dry = "rain" not in body and "snow" not in body
    observation.precipitation_1h_mm = 0.0 if dry else _precipitation(body, "1h")
    return observation, observed_at


def read_forecast(body: Any, temperature: str) -> list[ForecastStep]:
    """Return the steps of 3 hours; `valid_at` is their end. A step without rain and snow does not say how much falls.

    None is an answer that was not asked for.
    """
    if body is None:
        return []
    steps = []
    for entry in as_list(_answer(body, "the forecast answer").get("list"), "list"):
        step = as_object(entry, "list[]")
        valid_at = as_instant(step.get("dt"), "list[].dt")
        if valid_at is None:
            raise RefusedError("a forecast step has no time (dt)")
        main = as_object(step.get("main"), "list[].main")
        steps.append(
            ForecastStep(valid_at, 3, _converted(main, "temp", temperature, units.CELSIUS), _precipitation(step, "3h"))
        )
    return steps


def read_air_quality(body: Any, collected_at: datetime) -> AirReading:
    """Return the air quality with the index as given.

    Of several entries it is the last that is not after `collected_at`, else the first.
    """
    if body is None:
        return None, None
    entries = [
        as_object(entry, "list[]") for entry in as_list(_answer(body, "the air pollution answer").get("list"), "list")
    ]
    timed = [(as_instant(entry.get("dt"), "list[].dt"), entry) for entry in entries]
    past = [(instant, entry) for instant, entry in timed if instant is not None]
    if not past:
        raise RefusedError("the air pollution answer has no entry with a time")
    until_now = [(instant, entry) for instant, entry in past if instant <= collected_at]
    observed_at, entry = max(until_now, key=lambda pair: pair[0]) if until_now else min(past, key=lambda pair: pair[0])
    components = as_numbers(entry.get("components"), "components")
    index = as_number(as_object(entry.get("main"), "list[].main").get("aqi"), "list[].main.aqi")
    return AirQuality(OpenWeather.name, observed_at, None, components), index


def read_sun(body: Json) -> Sun | None:
    """Return sunrise and sunset; where the sun does not rise or set the provider leaves them out or writes 0."""
    system = as_object(body.get("sys"), "sys")
    if "sunrise" not in system and "sunset" not in system:
        return None
    return Sun(
        as_instant(system.get("sunrise") or None, "sys.sunrise"), as_instant(system.get("sunset") or None, "sys.sunset")
    )


def _answer(body: Any, name: str) -> Json:
    answer = as_object(body, name)
    code = str(answer.get("cod", 200))
    if code != "200":
        raise RefusedError(f"{name} is the error {code[:10]}: {str(answer.get('message'))[:200]}")
    return answer


def _converted(block: Json, key: str, unit: str, conversions: Mapping[str, units.Conversion]) -> float | None:
    return units.convert(as_number(block.get(key), key), unit, conversions, key)


def _precipitation(body: Json, period: str) -> float | None:
    """Return rain plus snow of `period` in mm: of what names a volume; None when nothing does.

    A plain number is taken as the endpoint's period. A volume for another period only (3 hours, in a current answer)
    makes the sum unknown: what part of it fell in this one is not said. `{}` and null say nothing.
    """
    total = None
    for kind in ("rain", "snow"):
        given = body.get(kind)
        if isinstance(given, dict) and given and given.get(period) is None:
            return None
        amount = as_number(given.get(period) if isinstance(given, dict) else given, f"{kind}.{period}")
        if amount is not None:
            total = round((total or 0.0) + amount, 6)
    return total


def _condition(body: Json) -> str | None:
    """All conditions, the main one first: two at once are told by both."""
    entries = [as_object(entry, "weather[]") for entry in as_list(body.get("weather"), "weather")]
    texts = [as_text(entry.get("description") or entry.get("main"), "weather[].description") for entry in entries]
    return ", ".join(text for text in texts if text) or None


def _position(body: Json) -> tuple[float, float] | None:
    coordinates = as_object(body.get("coord"), "coord")
    latitude, longitude = (as_number(coordinates.get(name), f"coord.{name}") for name in ("lat", "lon"))
    return None if latitude is None or longitude is None else (latitude, longitude)


def _station(body: Json) -> str | None:
    city = as_number(body.get("id"), "id")
    return f"{city:.0f}" if city else None
