"""The simulation: a source that answers without a network or a key, and recordings of whatever days are wanted.

For teaching and for load. The weather is invented (`climate.py`) from SIMULATION_SEED, the place's coordinates and the
time alone: the same seed gives the same weather in every process. `data_origin` says `simulated`.

Its answers have the form of the others: `current`, `forecast` (the generator knows the future) and `air_pollution`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from meteo_common.days import day_bounds
from meteo_common.errors import RefusedError, UsageError
from meteo_common.message import AirQuality, ForecastStep, Message, Observation, Sun, decode, encode
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.answer import Json, as_instant, as_list, as_number, as_numbers, as_object, as_text
from meteo_producer.api import Api
from meteo_producer.climate import HOUR, Climate, Values, describe, digest
from meteo_producer.forecast import STEPS
from meteo_producer.source import AirReading, Answers, Feed, Selection, build, position_of

NAME = "simulation"
COLLECTED_AFTER = timedelta(seconds=3)
"""Fixed, so that the same days give the same messages each time and the second adds no observation."""
FIELDS = (
    "temperature_celsius",
    "apparent_temperature_celsius",
    "humidity_percent",
    "pressure_hpa",
    "wind_speed_mps",
    "wind_gust_mps",
    "wind_direction_degrees",
    "cloud_cover_percent",
    "visibility_metres",
    "precipitation_1h_mm",
)
"""The observation's fields in the order of the climate's values; its answers use the same names."""
HOMES = {"Paris,FR": (48.85, 2.35)}
"""Coordinates of CITY's default. Any other place without coordinates gets some made from its name."""
DAYS = date(1940, 1, 2), date(2199, 12, 31)


class Simulation:
    """The source `simulation`: it can be polled, and it can be the FALLBACK of another one."""

    name = NAME
    needs_coordinates = False

    def __init__(self, settings: Settings, api: Api) -> None:  # noqa: ARG002 - it asks nobody
        self._seed = settings.simulation_seed
        self._climates: dict[tuple[float, float], Climate] = {}

    def ready(self) -> None:
        """It needs nothing."""

    def poll_cost(self, feeds: Collection[Feed]) -> float:  # noqa: ARG002 - whatever is asked for
        """Return 0: it asks nobody."""
        return 0.0

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        """Answer with the weather of the minute that `collected_at` lies in."""
        home = located(place)
        latitude, longitude = home.latitude or 0.0, home.longitude or 0.0
        climate = self._climates.get((latitude, longitude))
        if climate is None:
            climate = self._climates[latitude, longitude] = Climate(self._seed, latitude, longitude)
        seconds = int(collected_at.timestamp()) // 60 * 60
        hour = seconds // HOUR
        current = new_answer(self._seed, latitude, longitude)
        values = climate.at(seconds)
        current |= {"time": seconds, **dict(zip(FIELDS, values, strict=True))}
        current["condition"] = describe(climate.hour(hour), climate.hour(hour + 1))
        current["sunrise"], current["sunset"] = climate.sun(hour * HOUR)
        bodies: dict[str, Any] = {"current": current}
        if "forecast" in feeds:
            bodies["forecast"] = {"steps": _steps(climate, hour)}
        if "air_quality" in feeds:
            bodies["air_pollution"] = _pollution(hour * HOUR, values)
        return Answers(home, collected_at, bodies)

    def normalise(self, answers: Answers) -> Message:
        """Return the message that an answer of the simulation says."""
        body = as_object(answers.bodies.get("current"), "current")
        observed_at = as_instant(body.get("time"), "time")
        if observed_at is None:
            raise RefusedError("the answer has no time")
        observation = Observation(condition=as_text(body.get("condition"), "condition"))
        for field in FIELDS:
            setattr(observation, field, as_number(body.get(field), field))
        if observation == Observation():
            raise RefusedError("the answer holds no weather")
        return build(
            self.name,
            answers,
            None,
            observed_at,
            observation,
            data_origin="simulated",
            position=position_of(answers.place, body),
            read_forecast=lambda: read_forecast(answers.bodies.get("forecast")),
            read_air_quality=lambda: read_air_quality(answers.bodies.get("air_pollution")),
            read_sun=lambda: read_sun(body),
        )


class SimulatedDays:
    """The recording `simulation`: each place of CITY, every PRODUCE_EVERY of the selected days of WEATHER_TIMEZONE."""

    name = NAME

    def __init__(self, settings: Settings, selection: Selection) -> None:
        first, last = selection.first, selection.last
        if first is None or last is None:
            raise UsageError(
                "The simulation has no beginning and no end: give --from and --to, or poll it with --once."
            )
        if first < DAYS[0] or last > DAYS[1]:
            raise UsageError(f"The simulation knows the days {DAYS[0]} to {DAYS[1]}; expected --from and --to in them.")
        start, end = day_bounds(first, settings.zone)[0], day_bounds(last, settings.zone)[1]
        self._seed = settings.simulation_seed
        self._step = int(settings.produce_every)
        self._start = int(start.timestamp())
        self._steps = -(-(int(end.timestamp()) - self._start) // self._step)
        self._places = [located(place) for place in selection.places or settings.places]

    def __len__(self) -> int:
        return self._steps * len(self._places)

    def __iter__(self) -> Iterator[Message]:
        return (decode(value) for _, value in self.records())

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each message's key and value, as `encode` makes it: to build a message anew costs more than its values.

        So each place has one message, whose values change from step to step.
        """
        players = [Player(self._seed, place) for place in self._places]
        at = datetime.fromtimestamp(self._start, UTC)
        step = timedelta(seconds=self._step)
        for seconds in range(self._start, self._start + self._steps * self._step, self._step):
            for player in players:
                yield player.key, player.play(seconds, at)
            at += step


class Player:
    """Writes one place's messages, in the order of their time."""

    def __init__(self, seed: int, place: Place) -> None:
        latitude, longitude = place.latitude or 0.0, place.longitude or 0.0
        self._climate = Climate(seed, latitude, longitude)
        self._body = new_answer(seed, latitude, longitude)
        self._body |= {"time": 0, **dict.fromkeys(FIELDS), "condition": None, "sunrise": None, "sunset": None}
        start = datetime.fromtimestamp(0, UTC)
        answers = Answers(place, start, {"current": self._body})
        self._observation = Observation()
        self._message = build(NAME, answers, None, start, self._observation, data_origin="simulated")
        self.key = self._message.station_id.encode()
        self._hour = -1
        self._a = self._b = self._climate.hour(0)

    def play(self, seconds: int, at: datetime) -> bytes:
        """Return the encoded message of this unix time, which `at` is."""
        hour, rest = divmod(seconds, HOUR)
        if hour != self._hour:
            self._begin(hour)
        values = self._climate.between(self._a, self._b, rest / HOUR, seconds)
        observation, body, message = self._observation, self._body, self._message
        # One by one: a loop over the names would cost as much as all the rest.
        (
            observation.temperature_celsius,
            observation.apparent_temperature_celsius,
            observation.humidity_percent,
            observation.pressure_hpa,
            observation.wind_speed_mps,
            observation.wind_gust_mps,
            observation.wind_direction_degrees,
            observation.cloud_cover_percent,
            observation.visibility_metres,
            observation.precipitation_1h_mm,
        ) = values
        body["time"] = seconds
        body.update(zip(FIELDS, values, strict=True))
        message.observed_at = at
        message.collected_at = at + COLLECTED_AFTER
        return encode(message)

    def _begin(self, hour: int) -> None:
        """Prepare what is the same for all steps of an hour."""
        self._hour = hour
        self._a, self._b = self._climate.hour(hour), self._climate.hour(hour + 1)
        self._body["condition"] = self._observation.condition = describe(self._a, self._b)
        rise, down = self._body["sunrise"], self._body["sunset"] = self._climate.sun(hour * HOUR)
        self._message.sun = Sun(as_instant(rise, "sunrise"), as_instant(down, "sunset"))


def located(place: Place) -> Place:
    """Return the place with coordinates: its own, or some between 40° and 60° N, 10° W and 30° E made from its name."""
    if place.latitude is not None:
        return place
    number = digest(str(place))
    latitude, longitude = HOMES.get(str(place), (40 + number % 2000 / 100, number // 2000 % 4000 / 100 - 10))
    return replace(place, latitude=latitude, longitude=longitude)


def new_answer(seed: int, latitude: float, longitude: float) -> Json:
    """Return what every `current` begins with."""
    return {"seed": seed, "latitude": latitude, "longitude": longitude}


def read_sun(body: Json) -> Sun | None:
    """Return sunrise and sunset; both null on polar days."""
    if "sunrise" not in body:
        return None
    return Sun(as_instant(body["sunrise"], "sunrise"), as_instant(body.get("sunset"), "sunset"))


def read_forecast(body: Any) -> list[ForecastStep]:
    """Return the steps of 3 hours; `time` is their end."""
    steps = []
    for entry in as_list(as_object(body, "forecast").get("steps"), "forecast.steps"):
        step = as_object(entry, "steps[]")
        valid_at = as_instant(step.get("time"), "steps[].time")
        if valid_at is None:
            raise RefusedError("a forecast step has no time")
        temperature, rain = (as_number(step.get(name), name) for name in ("temperature_celsius", "precipitation_mm"))
        steps.append(ForecastStep(valid_at, 3, temperature, rain))
    return steps


def read_air_quality(body: Any) -> AirReading:
    """Return the air quality with the European index as given."""
    if body is None:
        return None, None
    answer = as_object(body, "air_pollution")
    observed_at = as_instant(answer.get("time"), "air_pollution.time")
    if observed_at is None:
        raise RefusedError("the air quality has no time")
    components = as_numbers(answer.get("components"), "components")
    return AirQuality("european", observed_at, None, components), as_number(answer.get("european_aqi"), "european_aqi")


def _steps(climate: Climate, hour: int) -> list[Json]:
    first = hour // 3 * 3 + 3
    return [
        {
            "time": end * HOUR,
            "temperature_celsius": climate.at(end * HOUR)[0],
            "precipitation_mm": round(sum(climate.hour(end - back).rain for back in (2, 1, 0)), 1),
        }
        for end in range(first, first + 3 * STEPS, 3)
    ]


def _pollution(seconds: int, values: Values) -> Json:
    """Wind carries particles away, cold keeps them (heating, still air), the warm sun makes ozone."""
    temperature, wind = values[0], values[4]
    fine = round((10 + max(0.0, 12 - temperature)) / (0.5 + 0.3 * wind), 1)
    ozone = round(max(10.0, 55 + 2.2 * (temperature - 10)), 1)
    components = {"pm2_5": fine, "pm10": round(fine * 1.6, 1), "no2": round(fine * 1.3, 1), "o3": ozone}
    # The European index is that of the worst pollutant: 20 points for each of its bands, here their limits in µg/m³.
    bands = {"pm2_5": (0, 10, 20, 25, 50, 75, 800), "o3": (0, 50, 100, 130, 240, 380, 800)}
    return {
        "time": seconds,
        "european_aqi": max(_index(components[name], limits) for name, limits in bands.items()),
        "components": components,
    }


def _index(value: float, limits: tuple[int, ...]) -> int:
    band = max(number for number, limit in enumerate(limits[:-1]) if value >= limit)
    return min(100, round(20 * (band + (value - limits[band]) / (limits[band + 1] - limits[band]))))
