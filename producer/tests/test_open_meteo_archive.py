"""The archive's answers: which hours become messages, on which day, and that each can be understood alone."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from archived import archive, clock
from pytest_httpserver import HTTPServer
from recordings import NOW, PARIS, answers
from werkzeug import Request, Response

from meteo_common.errors import RefusedError
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.open_meteo_archive import VARIABLES, OpenMeteoArchive
from meteo_producer.source import checked


def provider(zone: str = "Europe/Paris", url: str = "http://127.0.0.1:9") -> OpenMeteoArchive:
    return OpenMeteoArchive(Settings.model_validate({"weather_timezone": zone, "open_meteo_archive_url": url}), Api())


@pytest.mark.parametrize(
    ("zone", "day", "asked", "hours", "begins"),
    [
        ("Europe/Paris", "2025-03-30", ("2025-03-29", "2025-03-30"), 23, "2025-03-29T23:00:00+00:00"),
        ("Europe/Paris", "2025-10-26", ("2025-10-25", "2025-10-26"), 25, "2025-10-25T22:00:00+00:00"),
        ("Europe/Paris", "2025-07-01", ("2025-06-30", "2025-07-01"), 24, "2025-06-30T22:00:00+00:00"),
        ("America/New_York", "2025-11-02", ("2025-11-02", "2025-11-03"), 25, "2025-11-02T04:00:00+00:00"),
        ("Asia/Kolkata", "2025-07-01", ("2025-06-30", "2025-07-01"), 24, "2025-06-30T19:00:00+00:00"),
        ("UTC", "2025-07-01", ("2025-07-01", "2025-07-01"), 24, "2025-07-01T00:00:00+00:00"),
    ],
)
def test_a_local_day_comes_out_whole_and_alone(
    httpserver: HTTPServer, zone: str, day: str, asked: tuple[str, str], hours: int, begins: str
) -> None:
    def answer(request: Request) -> Response:
        assert (request.args["start_date"], request.args["end_date"]) == asked
        assert request.args["timezone"] == "GMT"
        assert len(request.args["hourly"].split(",")) == 10
        return Response(msgspec.json.encode(archive(*asked)), content_type="application/json")

    httpserver.expect_request("/v1/archive").respond_with_handler(answer)
    history, own = provider(zone, httpserver.url_for("")), date.fromisoformat(day)
    found = history.normalise_days(history.fetch_days(PARIS, own, own, NOW))
    assert Counter(day for day, _ in found) == {own: hours}
    assert found[0][1].observed_at.isoformat() == begins
    instants = [message.observed_at for _, message in found]
    assert instants == [instants[0] + timedelta(hours=hour) for hour in range(hours)]


def test_an_hour_is_a_message_of_the_live_station() -> None:
    body = archive(
        "2025-06-30", "2025-07-01", precipitation=[0.4] * 48, weather_code=[3] * 48, wind_speed_10m=[5.5] * 48
    )
    day, message = provider().normalise_days(answers({"archive": body}))[3]
    assert (day, message.source, message.station_id) == (date(2025, 7, 1), "open-meteo", "open-meteo:48.85,2.35")
    assert message.observed_at == datetime(2025, 7, 1, 1, tzinfo=UTC)
    assert message.observation.temperature_celsius == 0.25
    assert message.observation.precipitation_1h_mm == 0.4
    assert message.observation.wind_speed_mps == 5.5
    assert message.observation.condition == "overcast"
    assert message.observation.visibility_metres is None
    assert (message.collected_at, message.forecast, message.air_quality) == (NOW, [], None)
    assert message.raw["archive"]["hourly"]["time"] == ["2025-07-01T01:00"]


def test_a_kept_hour_is_understood_again_by_itself() -> None:
    source = OpenMeteo(Settings(), Api())
    for _, message in provider().normalise_days(answers({"archive": archive("2025-06-30", "2025-07-01")})):
        assert source.normalise(answers(checked(message).raw)) == message


@pytest.mark.parametrize(("known", "days"), [(48, [30, 1]), (47, [30]), (24, [30]), (23, [])])
def test_a_day_whose_end_is_not_there_yet_is_left_out(known: int, days: list[int]) -> None:
    """From 2025-06-29T22:00 on, which is the first hour of 30 June in Paris."""
    body = archive("2025-06-30", "2025-07-01")
    for name in VARIABLES:
        body["hourly"][name][known:] = [None] * (48 - known)
    body["hourly"]["time"] = clock(datetime(2025, 6, 29, 22), 48)  # noqa: DTZ001 - the provider's text has no zone
    found = provider().normalise_days(answers({"archive": body}))
    assert sorted({day.day for day, _ in found}, reverse=True) == days


def test_an_hour_without_values_is_no_message_and_its_day_is_whole() -> None:
    body = archive("2025-06-30", "2025-07-01")
    for name in VARIABLES:
        body["hourly"][name][30] = None
    assert len(provider().normalise_days(answers({"archive": body}))) == 23


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "the answer has no hourly values"),
        ([1, 2], "the answer is an array"),
        (archive("2025-06-30", "2025-07-01", time=["noon"] * 48), "hourly.time is 'noon'"),
        (archive("2025-06-30", "2025-07-01", temperature_2m=["warm"] * 48), "current.temperature_2m is a text"),
        (archive("2025-06-30", "2025-07-01", temperature_2m={"a": 1}), "hourly.temperature_2m is an object"),
    ],
)
def test_what_is_no_answer_is_refused(body: Any, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        provider().normalise_days(answers({"archive": body}))


def test_a_call_of_13_days_weighs_one() -> None:
    history = provider()
    assert [history.cost(days) for days in (1, history.days_per_call, 27)] == [1.0, 1.0, 2.0]
    assert history.last_day(date(2025, 7, 3)) == date(2025, 7, 1)
