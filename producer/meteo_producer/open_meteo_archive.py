"""Open-Meteo's archive: every hour since 1940 of any coordinates, without a key.

Rules of the provider (open-meteo.com/en/docs/historical-weather-api, /en/pricing):
- Values are those of a reanalysis and of the ECMWF's analyses, two days later; hours that are not there yet are null.
- The same names and units as in the forecast, without the visibility. `precipitation`: sum of the preceding hour.
- A call of more than 10 variables or 14 days weighs more than one.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from meteo_common.days import day_bounds, day_of
from meteo_common.errors import RefusedError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.answer import Json, as_list, as_object
from meteo_producer.api import Api, Endpoint
from meteo_producer.forecast import HOUR
from meteo_producer.open_meteo import FIELDS, OpenMeteo, read_time
from meteo_producer.source import Answers

VARIABLES = (
    *(names[0] for field, (names, _, _) in FIELDS.items() if field != "visibility_metres"),
    "precipitation",
    "weather_code",
)
"""10, the most that weigh as one call."""
DAYS_OF_ONE_CALL = 14


class OpenMeteoArchive:
    """Past days of the source `open-meteo`: the same stations as the present ones."""

    name = OpenMeteo.name
    days_per_call = DAYS_OF_ONE_CALL - 1
    """13 local days touch 14 days of UTC: a call at its lowest weight, 1."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._api = api
        self._zone = settings.zone
        self._source = OpenMeteo(settings, api)
        self._endpoint = Endpoint(
            "Open-Meteo's archive",
            settings.open_meteo_archive_url,
            "/v1/archive",
            "OPEN_METEO_ARCHIVE_URL",
            account="open-meteo",
        )

    def ready(self) -> None:
        """It needs no key."""

    def last_day(self, today: date) -> date:
        """Return the day before yesterday: the archive is two days behind, now and then more."""
        return today - timedelta(days=2)

    def cost(self, days: int) -> float:
        """Return the weight of a call about so many local days."""
        return max(1.0, (days + 1) / DAYS_OF_ONE_CALL)

    def fetch_days(self, place: Place, first: date, last: date, collected_at: datetime) -> Answers:
        """Ask for the days of UTC that hold the days `first` to `last` of WEATHER_TIMEZONE."""
        start, end = day_bounds(first, self._zone)[0], day_bounds(last, self._zone)[1] - HOUR
        params: dict[str, str | int | float] = {
            "latitude": place.latitude or 0.0,
            "longitude": place.longitude or 0.0,
            "start_date": start.date().isoformat(),
            "end_date": end.date().isoformat(),
            "hourly": ",".join(VARIABLES),
            "wind_speed_unit": "ms",
            # Local time has an hour twice and another one never; UTC has each once.
            "timezone": "GMT",
        }
        body = self._api.get(self._endpoint, params, str(place), self.cost((last - first).days + 1))
        return Answers(place, collected_at, {"archive": body})

    def normalise_days(self, answers: Answers) -> list[tuple[date, Message]]:
        """Return one message for each measured hour of the days that the answer holds from beginning to end.

        The hours up to the last measured one count as held: a day whose end is still null is not whole yet. The
        neighbouring days, of which UTC's calendar brings a few hours along, are not whole either.
        """
        body = as_object(answers.bodies.get("archive"), "the answer")
        hourly = as_object(body.get("hourly"), "hourly")
        times = [read_time(time, body, "hourly.time") for time in as_list(hourly.get("time"), "hourly.time")]
        if not times:
            raise RefusedError("the answer has no hourly values")
        measured = [(at, time) for at, time in enumerate(times) if time is not None and _is_measured(hourly, at)]
        if not measured:
            return []
        start = min(time for time in times if time is not None)
        end = max(time for _, time in measured) + HOUR
        messages = []
        for at, time in measured:
            day = day_of(time, self._zone)
            first, after = day_bounds(day, self._zone)
            if start <= first and after <= end:
                hour = Answers(answers.place, answers.collected_at, {"archive": _only(body, hourly, at)})
                messages.append((day, self._source.normalise(hour)))
        return messages


def _is_measured(hourly: Json, at: int) -> bool:
    return any(_value(hourly.get(name), at, name) is not None for name in VARIABLES)


def _value(values: Any, at: int, name: str) -> Any:
    listed = as_list(values, f"hourly.{name}")
    return listed[at] if at < len(listed) else None


def _only(body: Json, hourly: Json, at: int) -> Json:
    """Return the answer as it would be about one hour."""
    return body | {"hourly": {name: [_value(values, at, name)] for name, values in hourly.items()}}
