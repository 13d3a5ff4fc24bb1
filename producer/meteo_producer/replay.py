"""The recorded data set that comes with the product: hourly weather of three New York airports in 2013, from NOAA.

It stands in for an API: for a first look without a network, for teaching, and for tests that must come out the same.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

from meteo_common.days import day_of
from meteo_common.errors import UsageError
from meteo_common.message import Message, Observation
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.source import Answers, Selection, as_record, build
from meteo_producer.units import fahrenheit_to_celsius

FILE = "nycflights13_weather.csv.gz"
COLLECTED_AFTER = timedelta(minutes=5)
"""Fixed, so that a replay makes the same messages each time and the second adds no observation."""
AIRPORTS = {
    "EWR": ("Newark", 40.6925, -74.168667),
    "JFK": ("New York", 40.639751, -73.778925),
    "LGA": ("New York", 40.777245, -73.872608),
}
"""City and coordinates of each station."""
METRES_PER_MILE = 1609.344
MPS_PER_MPH = 0.44704
MM_PER_INCH = 25.4

Row = dict[str, str]


class Replay:
    """The recording `replay`, as far as it is selected: days are those of WEATHER_TIMEZONE, as everywhere else."""

    name = "replay"

    def __init__(self, settings: Settings, selection: Selection) -> None:
        self._rows = [row for row in _rows() if _selected(row, selection, settings.zone)]
        if not self._rows:
            raise UsageError(
                "Nothing of the recorded data set is selected: it holds 2013-01-01 to 2013-12-31"
                " of New York,US (JFK, LGA) and Newark,US (EWR)."
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Message]:
        return map(to_message, self._rows)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each message's key and value."""
        return map(as_record, self)


def to_message(row: Row) -> Message:
    """Return the message of a row of the file: °F, mph, inches, miles and millibars become the message's units."""
    observed_at = _instant(row)
    city, latitude, longitude = AIRPORTS[row["origin"]]
    temperature = _number(row, "temp")
    observation = Observation(
        temperature_celsius=None if temperature is None else fahrenheit_to_celsius(temperature),
        humidity_percent=_number(row, "humid"),
        pressure_hpa=_number(row, "pressure"),
        wind_speed_mps=_number(row, "wind_speed", MPS_PER_MPH),
        wind_gust_mps=_number(row, "wind_gust", MPS_PER_MPH),
        wind_direction_degrees=_number(row, "wind_dir"),
        visibility_metres=_number(row, "visib", METRES_PER_MILE),
        precipitation_1h_mm=_number(row, "precip", MM_PER_INCH),
    )
    answers = Answers(Place(city, "US", latitude, longitude), observed_at + COLLECTED_AFTER, {"current": row})
    return build(Replay.name, answers, row["origin"], observed_at, observation, data_origin="replay")


def _rows() -> list[Row]:
    file = resources.files("meteo_producer") / "data" / FILE
    with file.open("rb") as packed, gzip.open(packed, "rt", encoding="utf-8", newline="") as text:
        return sorted(csv.DictReader(text), key=lambda row: (row["time_hour"], row["origin"]))


def _selected(row: Row, selection: Selection, zone: ZoneInfo) -> bool:
    places = {(place.name.casefold(), place.country) for place in selection.places}
    if places and (AIRPORTS[row["origin"]][0].casefold(), "US") not in places:
        return False
    if selection.first is None and selection.last is None:
        return True
    day = day_of(_instant(row), zone)
    return (selection.first is None or day >= selection.first) and (selection.last is None or day <= selection.last)


def _instant(row: Row) -> datetime:
    return datetime.fromisoformat(row["time_hour"])


def _number(row: Row, column: str, factor: float = 1.0) -> float | None:
    text = row[column]
    return None if text == "NA" else float(text) * factor
