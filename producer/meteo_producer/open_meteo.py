"""Open-Meteo: forecast and air quality of any coordinates, without a key.

Rules of the provider (open-meteo.com/en/docs):
- Times with `timezone` are local texts without an offset; the whole answer has one, `utc_offset_seconds`, that of the
  time of asking. It alone turns them into instants: by the zone's own rules the days after a change of clocks would be
  off by an hour. With `timeformat=unixtime` they are instants already.
- `precipitation`: "total precipitation (rain, showers, snow) sum of the preceding hour"; in `minutely_15` and in
  `current`, which is made from it, of the preceding `interval` of 900 s. `wind_gusts_10m`: that hour's maximum.
- A value that is not known is null. Units are named beside the values, in `<block>_units`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from meteo_common.errors import MeteoError, RefusedError
from meteo_common.message import AirQuality, ForecastStep, Message, Observation, Sun
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer import units
from meteo_producer.answer import Json, as_instant, as_list, as_number, as_object
from meteo_producer.api import Api, Endpoint
from meteo_producer.forecast import HOUR, STEPS, three_hour_steps, total
from meteo_producer.source import AirReading, Answers, Feed, build, position_of, without_refused
from meteo_producer.units import Conversion

QUARTER = timedelta(minutes=15)

# Field: the provider's names, the present one first; the unit where an old answer names none; conversions.
FIELDS: Mapping[str, tuple[tuple[str, ...], str, Mapping[str, Conversion]]] = {
    "temperature_celsius": (("temperature_2m", "temperature"), "°C", units.CELSIUS),
    "apparent_temperature_celsius": (("apparent_temperature",), "°C", units.CELSIUS),
    "humidity_percent": (("relative_humidity_2m", "relativehumidity_2m"), "%", units.PERCENT),
    "pressure_hpa": (("pressure_msl",), "hPa", units.HECTOPASCAL),
    "wind_speed_mps": (("wind_speed_10m", "windspeed_10m", "windspeed"), "km/h", units.METRES_PER_SECOND),
    "wind_gust_mps": (("wind_gusts_10m", "windgusts_10m"), "km/h", units.METRES_PER_SECOND),
    "wind_direction_degrees": (("wind_direction_10m", "winddirection_10m", "winddirection"), "°", units.DEGREES),
    "cloud_cover_percent": (("cloud_cover", "cloudcover"), "%", units.PERCENT),
    "visibility_metres": (("visibility",), "m", units.METRES),
}
CONDITION_NAMES = ("weather_code", "weathercode")
CURRENT = ",".join([*(names[0] for names, _, _ in FIELDS.values()), "precipitation", "weather_code"])

COMPONENTS = {
    "pm10": "pm10",
    "pm2_5": "pm2_5",
    "carbon_monoxide": "co",
    "nitrogen_dioxide": "no2",
    "sulphur_dioxide": "so2",
    "ozone": "o3",
    "ammonia": "nh3",
}
Params = dict[str, str | int | float]
AIR_PARAMS: Params = {"current": ",".join(["european_aqi", *COMPONENTS])}

CONDITIONS = {
    0: "clear sky", 1: "mainly clear", 2: "partly cloudy", 3: "overcast", 45: "fog", 48: "depositing rime fog",
    51: "light drizzle", 53: "moderate drizzle", 55: "dense drizzle",
    56: "light freezing drizzle", 57: "dense freezing drizzle",
    61: "slight rain", 63: "moderate rain", 65: "heavy rain", 66: "light freezing rain", 67: "heavy freezing rain",
    71: "slight snow fall", 73: "moderate snow fall", 75: "heavy snow fall", 77: "snow grains",
    80: "slight rain showers", 81: "moderate rain showers", 82: "violent rain showers",
    85: "slight snow showers", 86: "heavy snow showers",
    95: "thunderstorm", 96: "thunderstorm with slight hail", 99: "thunderstorm with heavy hail",
}  # fmt: skip
"""WMO weather interpretation codes as the provider's documentation words them."""


class OpenMeteo:
    """The source `open-meteo`."""

    name = "open-meteo"
    needs_coordinates = True

    def __init__(self, settings: Settings, api: Api) -> None:
        self._api = api
        self._forecast = Endpoint(
            "Open-Meteo", settings.open_meteo_url, "/v1/forecast", "OPEN_METEO_URL", account="open-meteo"
        )
        self._air = Endpoint(
            "Open-Meteo's air quality",
            settings.open_meteo_air_quality_url,
            "/v1/air-quality",
            "OPEN_METEO_AIR_QUALITY_URL",
            account="open-meteo",
        )

    def ready(self) -> None:
        """It needs no key."""

    def poll_cost(self, feeds: Collection[Feed]) -> float:
        """Return the weights of the one or two calls."""
        return weight(_current_params(feeds)) + ("air_quality" in feeds) * weight(AIR_PARAMS)

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        """Ask once for current values and forecast together, once for air quality."""
        # `auto`: the sun's local day.
        where: Params = {
            "latitude": place.latitude or 0.0,
            "longitude": place.longitude or 0.0,
            "timezone": "auto",
        }
        params = _current_params(feeds)
        bodies = {"current": self._api.get(self._forecast, where | params, str(place), weight(params))}
        missing: dict[str, MeteoError] = {}
        if "air_quality" in feeds:
            try:
                bodies["air_pollution"] = self._api.get(self._air, where | AIR_PARAMS, str(place), weight(AIR_PARAMS))
            except MeteoError as error:
                missing["air_quality"] = error
        return Answers(place, collected_at, bodies, missing=missing)

    def normalise(self, answers: Answers) -> Message:
        """Return the message; `station_id` names the coordinates that were asked for, not the model's grid point."""
        archived = answers.bodies.get("archive")
        body = _answer(answers.bodies.get("current"), "the answer") if archived is None else _as_current(archived)
        observation, observed_at = read_current(body)
        refused: list[str] = []
        observation.precipitation_1h_mm = without_refused(
            "precipitation_1h_mm", lambda: read_last_hour(body, observed_at), None, refused
        )
        return build(
            self.name,
            answers,
            None,
            observed_at,
            observation,
            position=position_of(answers.place, body),
            read_forecast=lambda: read_forecast(body, observed_at),
            read_air_quality=lambda: read_air_quality(answers.bodies.get("air_pollution")),
            read_sun=lambda: read_sun(body, observed_at),
            refused=refused,
        )


def weight(params: Params) -> float:
    """Return how many calls a request of up to 14 days counts as: 1 up to 10 variables, 1.5 for 15 (en/pricing)."""
    blocks = [str(params[block]) for block in ("current", "minutely_15", "hourly", "daily") if block in params]
    return max(1.0, sum(len(block.split(",")) for block in blocks) / 10)


def _current_params(feeds: Collection[Feed]) -> Params:
    # 4 quarters and the present one: the precipitation of exactly the last hour.
    params: Params = {
        "current": CURRENT,
        "minutely_15": "precipitation",
        "past_minutely_15": 4,
        "forecast_minutely_15": 1,
        "daily": "sunrise,sunset",
        "forecast_days": 1,
        "wind_speed_unit": "ms",
    }
    if "forecast" in feeds:
        # 2 past hours complete the first step.
        params |= {"hourly": "temperature_2m,precipitation", "past_hours": 2, "forecast_hours": STEPS * 3 + 3}
    return params


def read_current(body: Json) -> tuple[Observation, datetime]:
    """Return the current values and their time, from `current` or from the older `current_weather`.

    Without the precipitation: that of the last hour needs other blocks too, see `read_last_hour`.

    An answer with only hourly or daily values is refused: which of its hours is "now" would be a guess, and a forecast
    must not pass for an observation.
    """
    name = next((name for name in ("current", "current_weather") if body.get(name) is not None), None)
    if name is None:
        blocks = [block for block in ("minutely_15", "hourly", "daily") if body.get(block) is not None]
        raise RefusedError(f"the answer has no current values, only {', '.join(blocks) or 'its frame'}")
    current = as_object(body[name], name)
    named = as_object(body.get(f"{name}_units"), f"{name}_units")
    observed_at = read_time(current.get("time"), body, f"{name}.time")
    if observed_at is None:
        raise RefusedError(f"{name}.time is missing")
    observation = Observation(condition=_condition(current, name))
    for field, names in FIELDS.items():
        setattr(observation, field, _value(current, named, name, *names))
    if observation == Observation() and current.get("precipitation") is None:
        held = [key for key in current if key not in {"time", "interval"}]
        raise RefusedError(f"the current values hold no weather ({', '.join(held) or 'nothing'})")
    return observation, observed_at


def read_last_hour(body: Json, observed_at: datetime) -> float | None:
    """Return the precipitation of the hour that ends at the observation, in mm; None when it cannot be known.

    Known are: the 4 quarters of `minutely_15` that end then; a `current` value whose interval is an hour; the hourly
    value when the observation is on the hour. The current value of 900 s alone says nothing of the other 45 minutes.
    """
    quarterly = as_object(body.get("minutely_15"), "minutely_15")
    quarter_units = as_object(body.get("minutely_15_units"), "minutely_15_units")
    keys = ("precipitation",)
    quarters = _series(quarterly, quarter_units, "minutely_15", keys, "mm", units.MILLIMETRES, body)
    summed = total([quarters.get(observed_at - QUARTER * back) for back in (3, 2, 1, 0)])
    if summed is not None:
        return summed
    current = as_object(body.get("current"), "current")
    if as_number(current.get("interval"), "current.interval") == HOUR.total_seconds():
        named = as_object(body.get("current_units"), "current_units")
        return _value(current, named, "current", keys, "mm", units.MILLIMETRES)
    hourly = as_object(body.get("hourly"), "hourly")
    hour_units = as_object(body.get("hourly_units"), "hourly_units")
    return _series(hourly, hour_units, "hourly", keys, "mm", units.MILLIMETRES, body).get(observed_at)


def read_forecast(body: Json, after: datetime) -> list[ForecastStep]:
    """Return steps of 3 hours that end after `after`; the provider's hour is the one that ends at its time."""
    hourly = as_object(body.get("hourly"), "hourly")
    named = as_object(body.get("hourly_units"), "hourly_units")
    rain = _series(hourly, named, "hourly", ("precipitation",), "mm", units.MILLIMETRES, body)
    warmth = _series(hourly, named, "hourly", ("temperature_2m",), "°C", units.CELSIUS, body)
    return three_hour_steps(rain, warmth, after)


def read_sun(body: Json, observed_at: datetime) -> Sun | None:
    """Return sunrise and sunset of the local day of the observation; a sun that does not rise or set has none.

    For polar days the provider writes 1970, the same time twice, or times a day apart.
    """
    daily = as_object(body.get("daily"), "daily")
    local = (observed_at + _offset(body)).date()
    days = as_list(daily.get("time"), "daily.time")
    rises, sets = (as_list(daily.get(name), f"daily.{name}") for name in ("sunrise", "sunset"))
    for position, day in enumerate(days):
        start = read_time(day, body, "daily.time")
        if start is None or (start + _offset(body)).date() != local or position >= min(len(rises), len(sets)):
            continue
        rise = read_time(rises[position], body, "daily.sunrise")
        down = read_time(sets[position], body, "daily.sunset")
        if rise and down and not timedelta() < down - rise < timedelta(days=1):
            return Sun()
        return Sun(_real(rise), _real(down))
    return None


def read_air_quality(body: Any) -> AirReading:
    """Return the air quality with the European index as given."""
    if body is None:
        return None, None
    answer = _answer(body, "the air quality answer")
    current = as_object(answer.get("current"), "current")
    observed_at = read_time(current.get("time"), answer, "current.time")
    if observed_at is None:
        raise RefusedError("the air quality answer has no current values")
    named = as_object(answer.get("current_units"), "current_units")
    components = {
        short: _value(current, named, "current", (long,), "μg/m³", units.MICROGRAMS)
        for long, short in COMPONENTS.items()
        if long in current
    }
    index = as_number(current.get("european_aqi"), "current.european_aqi")
    return AirQuality("european", observed_at, None, components), index


def _as_current(body: Any) -> Json:
    """Return the archive's answer about one hour as one about now: same names, precipitation of the hour before."""
    archived = _answer(body, "the answer")
    hourly = as_object(archived.get("hourly"), "hourly")
    lists = {name: as_list(values, f"hourly.{name}") for name, values in hourly.items()}
    if any(len(values) != 1 for values in lists.values()):
        raise RefusedError("the archive's answer is about several hours, expected one")
    current = {name: values[0] for name, values in lists.items()}
    interval = {"interval": HOUR.total_seconds()}
    return archived | {"current": current | interval, "current_units": archived.get("hourly_units"), "hourly": None}


def _answer(body: Any, name: str) -> Json:
    if isinstance(body, list):
        raise RefusedError(f"{name} is about {len(body)} places, expected one")
    answer = as_object(body, name)
    if answer.get("error"):
        raise RefusedError(f"{name} is the error '{answer.get('reason')}'")
    return answer


def _offset(body: Json) -> timedelta:
    seconds = as_number(body.get("utc_offset_seconds"), "utc_offset_seconds") or 0.0
    if abs(seconds) > 86400:
        raise RefusedError(f"utc_offset_seconds is {seconds:g}, expected less than a day")
    return timedelta(seconds=seconds)


def read_time(value: Any, body: Json, field: str) -> datetime | None:
    """Return the instant of a time of the answer, by its `utc_offset_seconds`. Raises RefusedError when it is none."""
    if not isinstance(value, str):
        return as_instant(value, field)
    try:
        local = datetime.fromisoformat(value)
        return (local.replace(tzinfo=UTC) - _offset(body)) if local.tzinfo is None else local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RefusedError(f"{field} is '{value[:40]}', expected a time such as 2026-11-20T10:00") from None


def _real(instant: datetime | None) -> datetime | None:
    return None if instant is None or instant.year <= 1970 else instant


def _value(
    block: Json, named: Json, name: str, keys: tuple[str, ...], unit: str, conversions: Mapping[str, Conversion]
) -> float | None:
    key = next((key for key in keys if key in block), None)
    if key is None:
        return None
    field = f"{name}.{key}"
    return units.convert(as_number(block[key], field), str(named.get(key, unit)), conversions, field)


def _series(
    block: Json,
    named: Json,
    name: str,
    keys: tuple[str, ...],
    unit: str,
    conversions: Mapping[str, Conversion],
    body: Json,
) -> dict[datetime, float | None]:
    """Return the values of a block's array by their instants."""
    times = as_list(block.get("time"), f"{name}.time")
    key = next((key for key in keys if key in block), keys[0])
    field = f"{name}.{key}"
    values = as_list(block.get(key), field)
    series = {}
    for time, value in zip(times, values, strict=False):
        instant = read_time(time, body, f"{name}.time")
        if instant is not None:
            series[instant] = units.convert(as_number(value, field), str(named.get(key, unit)), conversions, field)
    return series


def _condition(current: Json, name: str) -> str | None:
    code = next((as_number(current[key], f"{name}.{key}") for key in CONDITION_NAMES if key in current), None)
    if code is None:
        return None
    return CONDITIONS.get(int(code), f"WMO code {code:g}")
