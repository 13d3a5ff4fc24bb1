"""Visual Crossing: current weather, forecast and past days of any coordinates; needs a key.

Rules of the provider (visualcrossing.com/resources/documentation/weather-api):
- One address, the timeline, for all times; what it costs is counted in records: a forecast is 1, a past day asked for
  by the hour 24. `queryCost` in the answer says what it did cost. The free plan allows 1,000 records a day.
- `unitGroup`: us, uk, metric, base; the answers do not name their units. Pressure is mb in each; `precip` is "liquid
  equivalent precipitation", so snow is in it.
- `datetimeEpoch` is unix time; `datetime` a local text, of the day for a day, of the clock for an hour; `tzoffset` the
  zone's hours, which may be a fraction. `elements` drops whatever it does not name, `datetimeEpoch` too.
- Recorded answers: the `precip` of a day is the sum of its 24 hours, so that an hour begins at its time.
- Errors are plain texts. "Excessive use of 429 catch and retry logic" is forbidden.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from meteo_common.errors import RefusedError, UsageError
from meteo_common.message import ForecastStep, Message, Observation, Sun
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer import units
from meteo_producer.answer import Json, as_instant, as_list, as_number, as_object, as_text
from meteo_producer.api import Api, Endpoint
from meteo_producer.forecast import HOUR, three_hour_steps
from meteo_producer.source import Answers, Feed, build, position_of

TIMELINE = "/VisualCrossingWebServices/rest/services/timeline"
ASKED_UNITS = "metric"
UNITS: Mapping[str, tuple[str, str, str, str]] = {
    "us": ("°F", "mph", "in", "mi"),
    "uk": ("°C", "mph", "mm", "mi"),
    "metric": ("°C", "km/h", "mm", "km"),
    "base": ("K", "m/s", "mm", "km"),
}
"""Units of temperature, wind, precipitation and visibility by the request's `unitGroup`."""
ELEMENTS = (
    "datetime,datetimeEpoch,temp,feelslike,humidity,precip,preciptype,snow,windgust,windspeed,winddir,pressure,"
    "visibility,cloudcover,conditions,sunriseEpoch,sunsetEpoch,stations,source"
)
"""What a message is made of, and what tells measured hours from others: the full answer is twice as long."""
NOT_MEASURED = frozenset({"fcst", "stats", "statfcst"})
"""Values of an hour's `source` that are forecasts or long-term means."""
ELSEWHERE = frozenset({"days", "currentConditions", "alerts"})
"""Parts of an answer that are about other times than one past hour."""


class VisualCrossing:
    """The source `visual-crossing`, and the past days of the same provider."""

    name = "visual-crossing"
    needs_coordinates = True
    days_per_call = 10
    """240 of the free plan's 1,000 records a day: four calls use them nearly up, and a lost answer costs little."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._api = api
        self._base_url = settings.visual_crossing_url
        self._key = settings.visual_crossing_api_key

    def ready(self) -> None:
        """Raise UsageError without a key."""
        self._secret()

    def poll_cost(self, feeds: Collection[Feed]) -> float:  # noqa: ARG002 - the same whatever is asked for
        """Return 1: the record that a current or forecast request costs."""
        return 1.0

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        """Ask once for current conditions and, when it is due, the forecast: 1 record. There is no air quality."""
        ahead = "forecast" in feeds
        period, include = ("next5days", "current,hours") if ahead else ("today", "current")
        return Answers(place, collected_at, {"current": self._ask(place, period, include)}, ASKED_UNITS)

    def normalise(self, answers: Answers) -> Message:
        """Return the message of current conditions (`current`) or of one past hour (`timeline`)."""
        asked = answers.units or ASKED_UNITS
        if answers.bodies.get("current") is None and answers.bodies.get("timeline") is not None:
            body = _answer(answers.bodies["timeline"])
            return _message(answers, body, *_only_hour(body), asked)
        body = _answer(answers.bodies.get("current"))
        current = as_object(body.get("currentConditions"), "currentConditions")
        if not current:
            raise RefusedError("the answer has no currentConditions")
        days = [as_object(day, "days[]") for day in as_list(body.get("days"), "days")]
        return _message(answers, body, days[0] if days else {}, current, asked)

    def last_day(self, today: date) -> date:
        """Return the last day that is over in every zone: by UTC's calendar the one before yesterday."""
        return today - timedelta(days=2)

    def cost(self, days: int) -> float:
        """Return the records of so many days by the hour."""
        return 24.0 * days

    def fetch_days(self, place: Place, first: date, last: date, collected_at: datetime) -> Answers:
        """Ask about these days of the place's own calendar (inclusive), by the hour."""
        period = f"{first.isoformat()}/{last.isoformat()}"
        cost = self.cost((last - first).days + 1)
        return Answers(place, collected_at, {"timeline": self._ask(place, period, "hours", cost)}, ASKED_UNITS)

    def normalise_days(self, answers: Answers) -> list[tuple[date, Message]]:
        """Return one message for each hour that was measured, with its day by the place's calendar."""
        body = _answer(answers.bodies.get("timeline"))
        frame = {name: value for name, value in body.items() if name not in ELSEWHERE}
        messages = []
        for entry in as_list(body.get("days"), "days"):
            day = as_object(entry, "days[]")
            own = _day(day)
            for hour in _hours(day):
                if own is None or as_text(hour.get("source"), "source") in NOT_MEASURED or _is_empty(hour):
                    continue
                alone = frame | {"days": [day | {"hours": [hour]}]}
                one = Answers(answers.place, answers.collected_at, {"timeline": alone}, answers.units)
                messages.append((own, self.normalise(one)))
        return messages

    def _ask(self, place: Place, period: str, include: str, cost: float = 1.0) -> Any:
        below = f"/{place.latitude or 0.0},{place.longitude or 0.0}/{period}"
        endpoint = Endpoint(
            "Visual Crossing", self._base_url, TIMELINE, "VISUAL_CROSSING_URL", account="visual-crossing", below=below
        )
        params: dict[str, str | int | float] = {
            "key": self._secret(),
            "unitGroup": ASKED_UNITS,
            "include": include,
            "elements": ELEMENTS,
            "contentType": "json",
        }
        return self._api.get(endpoint, params, str(place), cost)

    def _secret(self) -> str:
        if self._key is None:
            raise UsageError(
                "The source visual-crossing needs a key: set VISUAL_CROSSING_API_KEY (visualcrossing.com/account)."
            )
        return self._key.get_secret_value()


def read_conditions(block: Json, asked: str) -> Observation:
    """Return the values of `currentConditions` or of an hour, given in the units of `asked`.

    Raises RefusedError for values of the wrong kind, and when there is no weather in it.
    """
    temperature, speed, amount, distance = UNITS[asked]
    observation = Observation(
        temperature_celsius=_converted(block, "temp", temperature, units.CELSIUS),
        apparent_temperature_celsius=_converted(block, "feelslike", temperature, units.CELSIUS),
        humidity_percent=as_number(block.get("humidity"), "humidity"),
        pressure_hpa=as_number(block.get("pressure"), "pressure"),
        wind_speed_mps=_converted(block, "windspeed", speed, units.METRES_PER_SECOND),
        wind_gust_mps=_converted(block, "windgust", speed, units.METRES_PER_SECOND),
        wind_direction_degrees=as_number(block.get("winddir"), "winddir"),
        cloud_cover_percent=as_number(block.get("cloudcover"), "cloudcover"),
        visibility_metres=_converted(block, "visibility", distance, units.METRES),
        precipitation_1h_mm=_converted(block, "precip", amount, units.MILLIMETRES),
        condition=as_text(block.get("conditions"), "conditions"),
    )
    if observation == Observation():
        raise RefusedError(f"the answer holds no weather ({', '.join(list(block)[:20]) or 'nothing'})")
    return observation


def read_forecast(body: Json, after: datetime, asked: str) -> list[ForecastStep]:
    """Return steps of 3 hours that end after `after`; the provider's hour is the one that begins at its time."""
    temperature, _, amount, _ = UNITS[asked]
    rain: dict[datetime, float | None] = {}
    warmth: dict[datetime, float | None] = {}
    for entry in as_list(body.get("days"), "days"):
        day = as_object(entry, "days[]")
        for hour in _hours(day):
            start = _time(hour, day, body)
            if start is not None:
                warmth[start] = _converted(hour, "temp", temperature, units.CELSIUS)
                rain[_shifted(start, HOUR)] = _converted(hour, "precip", amount, units.MILLIMETRES)
    # The last hour's end has no temperature of its own: it would be a step with half of its values.
    latest = max(warmth, default=after)
    return [step for step in three_hour_steps(rain, warmth, after) if step.valid_at <= latest]


def read_sun(block: Json, day: Json, body: Json) -> Sun | None:
    """Return sunrise and sunset as the block says, else its day; None where neither has them.

    Where the sun does not rise or set the provider leaves out one of them, or both.
    """
    for part in (block, day):
        if any(f"{name}{suffix}" in part for name in ("sunrise", "sunset") for suffix in ("", "Epoch")):
            rise, down = (_sun_time(part, name, day, body) for name in ("sunrise", "sunset"))
            return Sun(rise, down)
    return None


def _message(answers: Answers, body: Json, day: Json, block: Json, asked: str) -> Message:
    observed_at = _time(block, day, body)
    if observed_at is None:
        raise RefusedError("the answer has no time (datetimeEpoch)")
    observation = read_conditions(block, asked)
    is_current = answers.bodies.get("current") is not None
    return build(
        VisualCrossing.name,
        answers,
        None,
        observed_at,
        observation,
        position=position_of(answers.place, body),
        read_forecast=lambda: read_forecast(body, observed_at, asked) if is_current else [],
        read_sun=lambda: read_sun(block, day, body),
    )


def _answer(body: Any) -> Json:
    answer = as_object(body, "the answer")
    if not answer:
        raise RefusedError("the answer is empty")
    return answer


def _only_hour(body: Json) -> tuple[Json, Json]:
    days = [as_object(day, "days[]") for day in as_list(body.get("days"), "days")]
    hours = [(day, hour) for day in days for hour in _hours(day)]
    if len(hours) != 1:
        raise RefusedError(f"the answer is about {len(hours)} hours, expected one")
    return hours[0]


def _hours(day: Json) -> list[Json]:
    return [as_object(hour, "hours[]") for hour in as_list(day.get("hours"), "hours")]


def _is_empty(hour: Json) -> bool:
    """An hour that no station measured has its time, and nulls."""
    return all(hour.get(name) is None for name in ("temp", "humidity", "pressure", "windspeed", "precip", "cloudcover"))


def _day(day: Json) -> date | None:
    text = as_text(day.get("datetime"), "days[].datetime")
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise RefusedError(f"days[].datetime is '{text}', expected a day such as 2026-11-20") from None


def _time(block: Json, day: Json, body: Json) -> datetime | None:
    """Return the instant by `datetimeEpoch`; where that is absent, by the local texts and the zone's offset."""
    instant = as_instant(block.get("datetimeEpoch"), "datetimeEpoch")
    return instant or _local(block.get("datetime"), "datetime", day, body)


def _sun_time(part: Json, name: str, day: Json, body: Json) -> datetime | None:
    epoch = as_instant(part.get(f"{name}Epoch") or None, f"{name}Epoch")
    return epoch or _local(part.get(name), name, day, body)


def _local(value: Any, field: str, day: Json, body: Json) -> datetime | None:
    text, own = as_text(value, field), _day(day)
    if text is None or own is None:
        return None
    offset = day.get("tzoffset") if day.get("tzoffset") is not None else body.get("tzoffset")
    hours = as_number(offset, "tzoffset")
    if hours is None:
        return None
    if abs(hours) > 24:
        raise RefusedError(f"tzoffset is {hours:g}, expected hours of less than a day")
    try:
        clock = time.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise RefusedError(f"{field} is '{text[:40]}', expected a time such as 10:00:00") from None
    return _shifted(datetime.combine(own, clock, UTC), -timedelta(hours=hours))


def _shifted(instant: datetime, by: timedelta) -> datetime:
    try:
        return instant + by
    except OverflowError:
        raise RefusedError(f"the time {instant.isoformat()} is outside the calendar") from None


def _converted(block: Json, key: str, unit: str, conversions: Mapping[str, units.Conversion]) -> float | None:
    return units.convert(as_number(block.get(key), key), unit, conversions, key)
