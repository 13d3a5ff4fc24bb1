"""Open-Meteo: times, units, precipitation, the sun."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import answers, load

from meteo_common.days import day_bounds, day_of
from meteo_common.errors import RefusedError
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo, read_air_quality, read_current, read_forecast, read_sun

SOURCE = OpenMeteo(Settings(), Api())
UNITS = {"time": "iso8601", "interval": "seconds", "temperature_2m": "°C", "precipitation": "mm"}


def frame(offset: int = 0, time: str = "2026-11-20T10:45", **blocks: Any) -> dict[str, Any]:
    current = {"time": time, "interval": 900, "temperature_2m": 7.1}
    return {"utc_offset_seconds": offset, "current_units": UNITS, "current": current, **blocks}


def last_hour(body: dict[str, Any]) -> float | None:
    return SOURCE.normalise(answers({"current": body})).observation.precipitation_1h_mm


def hours(start: datetime, values: list[float | None], **more: Any) -> dict[str, Any]:
    times = [(start + timedelta(hours=n)).strftime("%Y-%m-%dT%H:%M") for n in range(len(values))]
    return {"time": times, "precipitation": values, **more}


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(0, "10:45"), (3600, "09:45"), (-18000, "15:45"), (19800, "05:15"), (-12600, "14:15"), (45900, "22:00")],
)
def test_local_time_becomes_utc_by_the_answers_own_offset(offset: int, expected: str) -> None:
    _, observed_at = read_current(frame(offset))
    assert observed_at.strftime("%H:%M") == expected


@pytest.mark.parametrize(
    ("offset", "time", "expected"),
    [
        (7200, "2026-03-29T02:30", "2026-03-29T00:30"),  # a local hour that does not exist by the zone's rules
        (7200, "2026-10-25T02:30", "2026-10-25T00:30"),  # the first 02:30 of the long day
        (3600, "2026-10-25T02:30", "2026-10-25T01:30"),  # the second
    ],
)
def test_change_of_clocks(offset: int, time: str, expected: str) -> None:
    _, observed_at = read_current(frame(offset, time))
    assert observed_at == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@settings(deadline=None)
@given(
    st.integers(min_value=-12 * 4, max_value=14 * 4),
    st.datetimes(datetime(1940, 1, 2), datetime(2100, 1, 1)),  # noqa: DTZ001 - hypothesis wants them so
)
def test_every_offset_leads_back_to_the_instant(quarters: int, instant: datetime) -> None:
    """All offsets in use are quarters of an hour from −12 to +14 hours."""
    local = (instant + timedelta(minutes=15 * quarters)).strftime("%Y-%m-%dT%H:%M")
    _, observed_at = read_current(frame(900 * quarters, local))
    assert observed_at == instant.replace(second=0, microsecond=0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Paris", date(2026, 3, 29), 23),
        ("Europe/Paris", date(2026, 10, 25), 25),
        ("America/St_Johns", date(2026, 3, 8), 23),
        ("America/St_Johns", date(2026, 11, 1), 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), 25),  # 24.5 hours: its clocks change by half an hour
        ("Asia/Kathmandu", date(2026, 3, 29), 24),
    ],
)
def test_each_hour_of_a_long_or_short_day_is_an_observation_of_its_own(zone: str, day: date, hours: int) -> None:
    """Polled each hour of the local day, with the offset that the provider gives at that time."""
    local = ZoneInfo(zone)
    instant, end = day_bounds(day, local)
    observed = []
    while instant < end:
        shown = instant.astimezone(local)
        offset = shown.utcoffset()
        assert offset is not None
        _, observed_at = read_current(frame(int(offset.total_seconds()), shown.strftime("%Y-%m-%dT%H:%M")))
        assert observed_at == instant
        assert day_of(observed_at, local) == day
        observed.append(observed_at)
        instant += timedelta(hours=1)
    assert len(observed) == len(set(observed)) == hours


@pytest.mark.parametrize(
    ("offset", "first", "minute"),
    [
        (3600, "2026-03-28T12:00", 0),  # asked in Paris' winter, about the days around its 23-hour day
        (7200, "2026-10-24T12:00", 0),  # asked in its summer, about the days around its 25-hour day
        (-12600, "2026-03-07T12:00", 30),  # St. John's
        (20700, "2026-03-28T12:00", 15),  # Kathmandu
    ],
)
def test_forecast_over_a_change_of_clocks_has_steps_of_3_hours(offset: int, first: str, minute: int) -> None:
    """The provider names 24 hours a day by the one offset of the answer, also those that no clock will show."""
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    body = frame(offset, first, hourly=hours(start, [1.0] * 72, temperature_2m=[float(n) for n in range(72)]))
    steps = read_forecast(body, start - timedelta(seconds=offset))
    assert len(steps) >= 23
    for before, after in pairwise(steps):
        assert after.valid_at - before.valid_at == timedelta(hours=3)
    assert {step.valid_at.minute for step in steps} == {minute}
    for step in steps:
        hour = (step.valid_at - start).total_seconds() / 3600 + offset / 3600
        assert step.temperature_celsius == hour
    assert {step.precipitation_mm for step in steps[1:]} == {3.0}


def test_unix_times_are_instants_already() -> None:
    body = load("open-meteo", "om_forecast__MagicMirrorOrg__weather-openmeteo-current-weather__0-46cac")
    message = SOURCE.normalise(answers({"current": body}))
    assert message.observed_at == datetime.fromtimestamp(body["current_weather"]["time"], UTC)
    assert message.sun is not None
    assert message.sun.sunrise == datetime.fromtimestamp(body["daily"]["sunrise"][0], UTC)
    assert message.observation.wind_speed_mps == pytest.approx(4.7 / 3.6)


@pytest.mark.parametrize(
    ("field", "key", "unit", "given", "expected"),
    [
        ("temperature_celsius", "temperature_2m", "°F", 50.0, 10.0),
        ("apparent_temperature_celsius", "apparent_temperature", "°F", -40.0, -40.0),
        ("wind_speed_mps", "wind_speed_10m", "km/h", 36.0, 10.0),
        ("wind_speed_mps", "wind_speed_10m", "mp/h", 10.0, 4.4704),
        ("wind_speed_mps", "wind_speed_10m", "m/s", 3.0, 3.0),
        ("wind_gust_mps", "wind_gusts_10m", "kn", 36.0, 18.52),
        ("visibility_metres", "visibility", "ft", 10000.0, 3048.0),
        ("wind_direction_degrees", "wind_direction_10m", "°", 360, 0.0),
        ("pressure_hpa", "pressure_msl", "hPa", 1013.2, 1013.2),
        ("temperature_celsius", "temperature_2m", "°C", -0.0, 0.0),
    ],
)
def test_units_of_the_answer(field: str, key: str, unit: str, given: float, expected: float) -> None:
    body = frame()
    body["current"][key] = given
    body["current_units"] = UNITS | {key: unit}
    value = getattr(SOURCE.normalise(answers({"current": body})).observation, field)
    assert value == pytest.approx(expected)
    assert str(value) != "-0.0"


def test_unknown_unit_is_refused() -> None:
    body = frame(current_units={"temperature_2m": "°Ré"})
    with pytest.raises(RefusedError, match=r"current\.temperature_2m is given in '°Ré', expected one of"):
        SOURCE.normalise(answers({"current": body}))


def test_last_hour_is_the_sum_of_its_four_quarters() -> None:
    times = [f"2026-11-20T{text}" for text in ("09:45", "10:00", "10:15", "10:30", "10:45")]
    body = frame(3600, minutely_15={"time": times, "precipitation": [5.0, 0.1, 0.2, 0.3, 0.4]})
    assert last_hour(body) == 1.0
    body["minutely_15_units"] = {"precipitation": "inch"}
    assert last_hour(body) == 25.4
    body["minutely_15"]["precipitation"][2] = None
    assert last_hour(body) is None


def test_last_hour_is_unknown_from_a_quarter_alone() -> None:
    body = frame()
    body["current"]["precipitation"] = 0.3
    body["hourly"] = hours(datetime(2026, 11, 20, 9, tzinfo=UTC), [1.0, 2.0, 3.0])
    assert last_hour(body) is None
    body["current"]["interval"] = 3600
    assert last_hour(body) == 0.3
    on_the_hour = frame(time="2026-11-20T10:00", hourly=hours(datetime(2026, 11, 20, 9, tzinfo=UTC), [1.0, 2.0, 3.0]))
    assert last_hour(on_the_hour) == 2.0


def test_forecast_steps_sum_the_three_hours_before_them() -> None:
    values = [float(n) for n in range(12)]  # hours 8 … 19 of UTC
    body = frame(hourly=hours(datetime(2026, 11, 20, 8, tzinfo=UTC), values, temperature_2m=[n / 2 for n in range(12)]))
    steps = read_forecast(body, datetime(2026, 11, 20, 10, 45, tzinfo=UTC))
    assert [step.valid_at.hour for step in steps] == [12, 15, 18]
    assert [step.precipitation_mm for step in steps] == [2 + 3 + 4, 5 + 6 + 7, 8 + 9 + 10]
    assert [step.temperature_celsius for step in steps] == [2.0, 3.5, 5.0]
    assert {step.hours for step in steps} == {3}
    body["hourly"]["precipitation"][3] = None
    steps = read_forecast(body, datetime(2026, 11, 20, 10, 45, tzinfo=UTC))
    assert [step.precipitation_mm for step in steps] == [None, 18.0, 27.0]


def test_forecast_in_a_zone_of_a_half_hour() -> None:
    body = frame(19800, hourly=hours(datetime(2026, 11, 20, 0, tzinfo=UTC), [1.0] * 24))
    steps = read_forecast(body, datetime(2026, 11, 19, 18, 0, tzinfo=UTC))
    assert [step.valid_at.strftime("%H:%M") for step in steps[:3]] == ["18:30", "21:30", "00:30"]
    assert [step.precipitation_mm for step in steps[:3]] == [None, 3.0, 3.0]


def test_recorded_forecast_against_its_hours() -> None:
    body = load("open-meteo", "om_forecast__MagicMirrorOrg__weather-openmeteo-current__0-d84f3")
    message = SOURCE.normalise(answers({"current": body}))
    local = {time: n for n, time in enumerate(body["hourly"]["time"])}
    for step in message.forecast:
        end = local[(step.valid_at - timedelta(hours=5)).strftime("%Y-%m-%dT%H:%M")]
        assert step.precipitation_mm == pytest.approx(sum(body["hourly"]["precipitation"][end - 2 : end + 1]))
        assert step.temperature_celsius == body["hourly"]["temperature_2m"][end]


@pytest.mark.parametrize(
    ("sunrise", "sunset"),
    [
        (None, None),
        ("1970-01-01T00:00", "1970-01-01T00:00"),
        ("2026-06-20T00:00", "2026-06-20T00:00"),  # the sun does not rise
        ("2026-06-20T00:00", "2026-06-21T00:00"),  # it does not set
        (0, 0),
    ],
)
@pytest.mark.parametrize("offset", [7200, -10800])
def test_polar_sun_is_null(sunrise: Any, sunset: Any, offset: int) -> None:
    daily = {"time": ["2026-06-20"], "sunrise": [sunrise], "sunset": [sunset]}
    sun = read_sun(frame(offset, daily=daily), datetime(2026, 6, 20, 10, tzinfo=UTC))
    assert sun is not None
    assert (sun.sunrise, sun.sunset) == (None, None)


def test_the_last_sunset_before_the_polar_day_has_no_sunrise_after_it() -> None:
    daily = {"time": ["2026-05-18"], "sunrise": ["2026-05-18T01:20"], "sunset": [None]}
    sun = read_sun(frame(7200, daily=daily), datetime(2026, 5, 18, 10, tzinfo=UTC))
    assert sun is not None
    assert (sun.sunrise, sun.sunset) == (datetime(2026, 5, 17, 23, 20, tzinfo=UTC), None)


def test_sun_of_the_local_day() -> None:
    daily = {
        "time": ["2026-11-20", "2026-11-21"],
        "sunrise": ["2026-11-20T05:40", "2026-11-21T05:39"],
        "sunset": ["2026-11-20T19:44", "2026-11-21T19:45"],
    }
    sun = read_sun(frame(39600, daily=daily), datetime(2026, 11, 20, 14, tzinfo=UTC))  # 01:00 of the 21st in Sydney
    assert sun is not None
    assert sun.sunrise == datetime(2026, 11, 20, 18, 39, tzinfo=UTC)


def test_air_quality_by_the_european_index() -> None:
    body = load("open-meteo", "om_forecast__home-assistant__air-quality-current")
    air, index = read_air_quality(body)
    assert air is not None
    assert (air.scale, index, air.components_ugm3) == ("european", None, {"o3": 82.0})
    body["current"] |= {"european_aqi": 1500, "pm10": -3.0}
    message = SOURCE.normalise(answers({"current": frame(), "air_pollution": body}))
    assert message.air_quality is not None
    assert message.air_quality.index is None
    assert message.quality == [
        "air_quality.index:out_of_range",
        "air_quality.components_ugm3.pm10:out_of_range",
    ]


def test_unreadable_forecast_does_not_cost_the_observation() -> None:
    message = SOURCE.normalise(answers({"current": frame(hourly={"time": "never"}), "air_pollution": []}))
    assert message.observation.temperature_celsius == 7.1
    assert message.forecast == []
    assert message.quality == ["precipitation_1h_mm:refused", "forecast:refused", "air_quality:refused"]


def test_values_out_of_range_are_null_and_named() -> None:
    body = frame(hourly=hours(datetime(2026, 11, 20, 8, tzinfo=UTC), [900.0] * 8, temperature_2m=[-200.0] * 8))
    body["current"] |= {"temperature_2m": 61.0, "relative_humidity_2m": 101}
    message = SOURCE.normalise(answers({"current": body}))
    assert message.observation.temperature_celsius is None
    assert message.quality == [
        "temperature_celsius:out_of_range",
        "humidity_percent:out_of_range",
        "forecast[0].temperature_celsius:out_of_range",
        "forecast[0].precipitation_mm:out_of_range",
        "forecast[1].temperature_celsius:out_of_range",
        "forecast[1].precipitation_mm:out_of_range",
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([frame(), frame()], "the answer is about 2 places, expected one"),
        (frame(current={"interval": 900, "temperature_2m": 7}), "current.time is missing"),
        (frame(time="yesterday"), "current.time is 'yesterday', expected a time such as"),
        (frame(current=[]), "current is an array, expected an object"),
        (frame(offset=10**9), "utc_offset_seconds is 1e\\+09, expected less than a day"),
        (frame(time="2026-11-22T10:00"), "observed_at is more than 24 h after collected_at"),
        (frame(time="1939-01-01T00:00"), "observed_at is before 1940"),
    ],
)
def test_refusals(body: Any, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        SOURCE.normalise(answers({"current": body}))


@pytest.mark.parametrize(
    ("latitude", "longitude", "station"),
    [(48.853, 2.349, "48.85,2.35"), (-0.001, -0.004, "0.00,0.00"), (-33.87, 151.21, "-33.87,151.21")],
)
def test_station_names_the_place_asked_for(latitude: float, longitude: float, station: str) -> None:
    message = SOURCE.normalise(answers({"current": frame()}, place=Place("X", "XX", latitude, longitude)))
    assert message.station_id == f"open-meteo:{station}"
