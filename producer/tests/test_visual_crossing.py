"""Visual Crossing: units, times, forecast, past days, and what it answers when it refuses."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from recordings import FOLDER, NOW, PARIS, answers, load

from meteo_common.errors import MeteoError, RefusedError, UnreachableError, UsageError
from meteo_common.message import decode, encode
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.source import Answers, KeyRefusedError, RateLimitedError
from meteo_producer.visual_crossing import TIMELINE, VisualCrossing

SOURCE = VisualCrossing(Settings(), Api())
KEY = "0123456789ABCDEF01234567A"
LIVE = "vc__essamatefelsherif__sample-02__0-fdcd1"
PAST = "vc__essamatefelsherif__sample-01__0-83e96"
TRIMMED = "vc__coltonro__staticData__0-63bfb"
IN_US_UNITS = "vc__fukamachi__data__0-adf5c"


def current(**values: Any) -> dict[str, Any]:
    return {"tzoffset": 1.0, "currentConditions": {"datetimeEpoch": 1795168800, "temp": 7.1, **values}}


def timeline(*hours: dict[str, Any], day: str = "2025-03-30", **frame: Any) -> dict[str, Any]:
    return {"tzoffset": 2.0, "days": [{"datetime": day, "hours": list(hours)}], **frame}


def test_recorded_current_conditions() -> None:
    body = load("visual-crossing", LIVE)
    message = SOURCE.normalise(answers({"current": body}, "metric"))
    assert decode(encode(message)) == message
    assert message.station_id == "visual-crossing:48.85,2.35"
    assert message.observed_at == datetime(2025, 3, 10, 20, tzinfo=UTC)
    observed = message.observation
    assert (observed.temperature_celsius, observed.pressure_hpa, observed.visibility_metres) == (15, 1020, 10_000)
    assert observed.wind_speed_mps == pytest.approx(14.8 / 3.6)
    assert (observed.wind_gust_mps, observed.precipitation_1h_mm, observed.condition) == (None, None, "Clear")
    assert message.sun is not None
    assert message.sun.sunrise == datetime.fromtimestamp(1741580188, UTC)
    assert (message.air_quality, message.quality) == (None, [])


def test_recorded_forecast_against_its_hours() -> None:
    body = load("visual-crossing", LIVE)
    message = SOURCE.normalise(answers({"current": body}, "metric"))
    hours = {hour["datetimeEpoch"]: hour for day in body["days"] for hour in day["hours"]}
    assert len(message.forecast) == 40
    for step in message.forecast:
        end = int(step.valid_at.timestamp())
        assert step.valid_at > message.observed_at
        assert end % 10800 == 0
        assert step.temperature_celsius == hours[end]["temp"]
        # An hour begins at its time: those of the step are the 3 before its end.
        assert step.precipitation_mm == pytest.approx(sum(hours[end - 3600 * back]["precip"] for back in (3, 2, 1)))


def test_recorded_days_are_the_sum_of_their_hours() -> None:
    """This is what shows that an hour begins at its time."""
    days = [day for name in (LIVE, TRIMMED) for day in load("visual-crossing", name)["days"]]
    assert sum(day["precip"] > 0 for day in days) >= 4
    for day in days:
        assert sum(hour["precip"] for hour in day["hours"]) == pytest.approx(day["precip"])


def test_recorded_past_day() -> None:
    body = load("visual-crossing", PAST)
    given = answers({"timeline": body}, "metric")
    messages = SOURCE.normalise_days(given)
    assert [day for day, _ in messages] == [date(2025, 3, 7)] * 24
    hours = body["days"][0]["hours"]
    for (_, message), hour in zip(messages, hours, strict=True):
        assert message.observed_at == datetime.fromtimestamp(hour["datetimeEpoch"], UTC)
        assert message.observation.temperature_celsius == hour["temp"]
        assert message.raw["timeline"]["days"][0]["hours"] == [hour]
        # What is stored of an hour can be understood again.
        again = Answers(given.place, given.collected_at, decode(encode(message)).raw, "metric")
        assert SOURCE.normalise(again) == message
    assert len({message.observed_at for _, message in messages}) == 24


def test_only_measured_hours_of_a_past_day() -> None:
    body = load("visual-crossing", LIVE)
    kept = SOURCE.normalise_days(answers({"timeline": body}, "metric"))
    measured = [hour for day in body["days"] for hour in day["hours"] if hour["source"] == "obs"]
    assert 0 < len(kept) == len(measured) < 24
    empty = {"datetimeEpoch": 1743289200, "temp": None, "precip": None, "source": "obs"}
    assert SOURCE.normalise_days(answers({"timeline": timeline(empty)})) == []


def test_us_units_of_a_recorded_answer() -> None:
    message = SOURCE.normalise(answers({"timeline": load("visual-crossing", IN_US_UNITS)}, "us"))
    assert message.observation.temperature_celsius == pytest.approx((79.5 - 32) * 5 / 9)
    assert message.observation.wind_speed_mps == pytest.approx(6.5 * 0.44704)
    assert message.observation.visibility_metres == pytest.approx(16093.44)
    # This answer gives inches of mercury where the documentation says millibars: better none than a wrong one.
    assert message.observation.pressure_hpa is None
    assert message.quality == ["pressure_hpa:out_of_range"]


@pytest.mark.parametrize(
    ("group", "field", "key", "given", "expected"),
    [
        ("metric", "temperature_celsius", "temp", 10.0, 10.0),
        ("uk", "apparent_temperature_celsius", "feelslike", 10.0, 10.0),
        ("us", "temperature_celsius", "temp", 50.0, 10.0),
        ("base", "temperature_celsius", "temp", 283.15, 10.0),
        ("metric", "wind_speed_mps", "windspeed", 36.0, 10.0),
        ("uk", "wind_speed_mps", "windspeed", 10.0, 4.4704),
        ("us", "wind_gust_mps", "windgust", 10.0, 4.4704),
        ("base", "wind_speed_mps", "windspeed", 10.0, 10.0),
        ("metric", "precipitation_1h_mm", "precip", 2.5, 2.5),
        ("us", "precipitation_1h_mm", "precip", 0.1, 2.54),
        ("uk", "visibility_metres", "visibility", 1.0, 1609.344),
        ("base", "visibility_metres", "visibility", 1.0, 1000.0),
        ("metric", "wind_direction_degrees", "winddir", 360, 0.0),
    ],
)
def test_units_that_were_asked_for(group: str, field: str, key: str, given: float, expected: float) -> None:
    values = {"temp": 50.0, key: given}
    observation = SOURCE.normalise(answers({"current": current(**values)}, group)).observation
    assert getattr(observation, field) == pytest.approx(expected)


@pytest.mark.parametrize("preciptype", [None, ["rain"], ["rain", "snow"]])
@pytest.mark.parametrize("stations", [None, ["LFPB"], {"LFPB": {"distance": 7.0}}])
def test_shapes_that_say_nothing_of_the_weather(preciptype: Any, stations: Any) -> None:
    body = current(precip=0.4, preciptype=preciptype, stations=stations)
    assert SOURCE.normalise(answers({"current": body})).observation.precipitation_1h_mm == 0.4


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(0, "10:30"), (5.5, "05:00"), (5.75, "04:45"), (-3.5, "14:00"), (12.75, "21:45"), (-10.0, "20:30")],
)
def test_local_time_only_where_there_is_no_epoch(offset: float, expected: str) -> None:
    hour = {"datetime": "10:30:00", "temp": 7.1}
    body = timeline(hour, tzoffset=offset)
    assert SOURCE.normalise(answers({"timeline": body})).observed_at.strftime("%H:%M") == expected
    body["days"][0]["tzoffset"] = 0  # the day's own, after a change of clocks
    assert SOURCE.normalise(answers({"timeline": body})).observed_at.strftime("%H:%M") == "10:30"
    hour["datetimeEpoch"] = 1743330000
    assert SOURCE.normalise(answers({"timeline": body})).observed_at == datetime(2025, 3, 30, 10, 20, tzinfo=UTC)


@pytest.mark.parametrize(("day", "hours"), [("2025-03-30", 23), ("2025-10-26", 25), ("2025-07-01", 24)])
def test_long_and_short_days(day: str, hours: int) -> None:
    """Each hour is an instant of its own, whatever the clock shows: on the long day 02:00 comes twice."""
    midnight = {"2025-03-30": 1743289200, "2025-10-26": 1761429600, "2025-07-01": 1751320800}[day]
    rows = [{"datetime": "00:00:00", "datetimeEpoch": midnight + 3600 * n, "temp": float(n)} for n in range(hours)]
    messages = SOURCE.normalise_days(answers({"timeline": timeline(*rows, day=day)}))
    assert {own for own, _ in messages} == {date.fromisoformat(day)}
    instants = [message.observed_at for _, message in messages]
    assert len(set(instants)) == hours
    assert instants[-1] - instants[0] == timedelta(hours=hours - 1)


def test_polar_sun_is_null() -> None:
    for values in ({"sunrise": None, "sunset": None}, {"sunriseEpoch": 0, "sunsetEpoch": 0}):
        sun = SOURCE.normalise(answers({"current": current(**values)})).sun
        assert sun is not None
        assert (sun.sunrise, sun.sunset) == (None, None)
    assert SOURCE.normalise(answers({"current": current()})).sun is None


@pytest.mark.parametrize(
    ("bodies", "reason"),
    [
        ({"current": {}}, "the answer is empty"),
        ({"current": timeline()}, "the answer has no currentConditions"),
        ({"current": current(datetimeEpoch=None)}, "the answer has no time"),
        ({"current": {"currentConditions": {"datetimeEpoch": 1795168800}}}, "the answer holds no weather"),
        ({"current": current(temp="7")}, "temp is a text, expected a number"),
        ({"timeline": timeline()}, "the answer is about 0 hours, expected one"),
        ({"timeline": timeline({"datetime": "noon", "temp": 1})}, "datetime is 'noon', expected a time such as"),
        ({"timeline": timeline({"datetime": "10:00:00", "temp": 1}, day="today")}, "expected a day such as"),
        ({"timeline": timeline({"datetime": "10:00:00", "temp": 1}, tzoffset=99)}, "tzoffset is 99, expected"),
    ],
)
def test_refusals(bodies: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        SOURCE.normalise(answers(bodies))


@pytest.fixture
def asked(httpserver: HTTPServer) -> VisualCrossing:
    given = {"visual_crossing_url": httpserver.url_for(""), "visual_crossing_api_key": KEY}
    return VisualCrossing(Settings.model_validate(given), Api())


def answer(httpserver: HTTPServer, period: str, body: str, status: int = 200) -> None:
    httpserver.expect_request(f"{TIMELINE}/48.853,2.349/{period}").respond_with_data(body, status)


def recorded(name: str) -> str:
    return (FOLDER / "visual-crossing" / name).read_text(encoding="utf-8")


def test_one_request_has_current_conditions_and_the_forecast(httpserver: HTTPServer, asked: VisualCrossing) -> None:
    answer(httpserver, "next5days", recorded(f"{LIVE}.json"))
    answer(httpserver, "today", recorded(f"{LIVE}.json"))
    message = asked.normalise(asked.fetch(PARIS, ["current", "forecast", "air_quality"], NOW))
    assert (message.city, message.country, message.collected_at) == ("Paris", "FR", NOW)
    asked.fetch(PARIS, ["current"], NOW)
    queries = [request.args for request, _ in httpserver.log]
    assert [query["include"] for query in queries] == ["current,hours", "current"]
    assert {query["unitGroup"] for query in queries} == {"metric"}
    assert {query["contentType"] for query in queries} == {"json"}
    assert all("datetimeEpoch" in query["elements"].split(",") for query in queries)


def test_past_days_are_asked_for_by_their_dates(httpserver: HTTPServer, asked: VisualCrossing) -> None:
    answer(httpserver, "2025-03-07/2025-03-07", recorded(f"{PAST}.json"))
    day = date(2025, 3, 7)
    assert len(asked.normalise_days(asked.fetch_days(PARIS, day, day, NOW))) == 24
    assert [request.args["include"] for request, _ in httpserver.log] == ["hours"]
    assert asked.cost(10) == 240
    assert asked.cost(asked.days_per_call) < 1000


def test_the_last_whole_day_is_over_in_every_zone() -> None:
    # At 00:00 UTC of the 20th it is still noon of the 19th at UTC−12.
    assert SOURCE.last_day(date(2026, 11, 20)) == date(2026, 11, 18)


@pytest.mark.parametrize(
    ("status", "body", "kind", "sentence"),
    [
        (400, recorded("vc_error__400-location.txt"), UsageError, "400: Bad API Request:Invalid location parameter"),
        (401, f"No account found with API key '{KEY}'", KeyRefusedError, "check VISUAL_CROSSING_API_KEY"),
        (429, recorded("vc_error__429-daily.txt"), RateLimitedError, "429: Maximum daily cost exceeded"),
        (500, "", UnreachableError, "has a fault of its own"),
    ],
)
def test_errors_are_plain_texts(
    httpserver: HTTPServer,
    asked: VisualCrossing,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: str,
    kind: type[MeteoError],
    sentence: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    answer(httpserver, "today", body, status)
    with pytest.raises(kind, match=sentence) as caught:
        asked.fetch(PARIS, ["current"], NOW)
    assert KEY not in str(caught.value)
    ours = [record.getMessage() for record in caplog.records if record.name != "werkzeug"]
    assert not any(KEY in line for line in ours)


def test_without_a_key_it_names_the_setting() -> None:
    with pytest.raises(UsageError, match="set VISUAL_CROSSING_API_KEY"):
        SOURCE.ready()
