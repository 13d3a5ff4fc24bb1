"""The recorded data set, against a computation of its own straight from the file."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from importlib import resources

import pytest

from meteo_common.errors import UsageError
from meteo_common.message import Message, decode, encode
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.replay import FILE, Replay
from meteo_producer.source import Selection


@pytest.fixture(scope="module")
def content() -> bytes:
    return gzip.decompress((resources.files("meteo_producer") / "data" / FILE).read_bytes())


@pytest.fixture(scope="module")
def messages() -> dict[tuple[str, datetime], Message]:
    played = list(Replay(Settings(), Selection()))
    assert played == sorted(played, key=lambda message: (message.observed_at, message.station_id))
    return {(message.station_id, message.observed_at): message for message in played}


def test_the_file_is_the_published_one(content: bytes) -> None:
    assert hashlib.sha256(content).hexdigest() == "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
    packed = (resources.files("meteo_producer") / "data" / FILE).read_bytes()
    assert packed[4:8] == bytes(4), "the time inside gzip is 0, so that packing it again gives the same bytes"


def test_every_row_is_a_message(content: bytes, messages: dict[tuple[str, datetime], Message]) -> None:
    rows = list(csv.DictReader(content.decode().splitlines()))
    assert len(rows) == len(messages) == 26_115
    for row in rows:
        observed_at = datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        message = messages[f"replay:{row['origin']}", observed_at]
        assert message.raw == {"current": row}
        assert message.collected_at - observed_at == timedelta(minutes=5)
        found = message.observation
        pairs = (
            ("temp", found.temperature_celsius, lambda value: (value - 32.0) / 1.8),
            ("humid", found.humidity_percent, float),
            ("pressure", found.pressure_hpa, float),
            ("wind_gust", found.wind_gust_mps, lambda value: value * 1609.344 / 3600),
            ("visib", found.visibility_metres, lambda value: value * 1609.344),
            ("precip", found.precipitation_1h_mm, lambda value: value * 25.4),
            ("wind_dir", found.wind_direction_degrees, lambda value: value % 360),
        )
        for column, value, expected in pairs:
            if row[column] == "NA":
                assert value is None
            else:
                assert value == pytest.approx(expected(float(row[column])), rel=1e-12, abs=1e-12)
        if row["wind_speed"] != "NA" and float(row["wind_speed"]) < 1000:
            assert found.wind_speed_mps == pytest.approx(float(row["wind_speed"]) * 1609.344 / 3600, rel=1e-12)


def test_the_impossible_wind_is_null_and_named(messages: dict[tuple[str, datetime], Message]) -> None:
    odd = [message for message in messages.values() if message.quality]
    assert [message.quality for message in odd] == [["wind_speed_mps:out_of_range"]]
    assert odd[0].observation.wind_speed_mps is None
    assert odd[0].raw["current"]["wind_speed"] == "1048.36058"


def test_the_doubled_local_hour_is_two_instants(messages: dict[tuple[str, datetime], Message]) -> None:
    for station in ("replay:EWR", "replay:JFK", "replay:LGA"):
        first, second = (messages[station, datetime(2013, 11, 3, hour, tzinfo=UTC)] for hour in (5, 6))
        assert first.raw["current"]["hour"] == second.raw["current"]["hour"] == "1"


def test_messages_keep_the_contract(messages: dict[tuple[str, datetime], Message]) -> None:
    for message in list(messages.values())[::500]:
        assert decode(encode(message)) == message
    assert Counter(message.city for message in messages.values()) == {"New York": 17412, "Newark": 8703}
    assert {(m.source, m.data_origin, m.country) for m in messages.values()} == {("replay", "replay", "US")}


def test_selection_is_by_the_platforms_day() -> None:
    day = Selection(date(2013, 7, 1), date(2013, 7, 1))
    paris = [message.observed_at for message in Replay(Settings(), day)]
    assert min(paris) == datetime(2013, 6, 30, 22, tzinfo=UTC)
    assert max(paris) == datetime(2013, 7, 1, 21, tzinfo=UTC)
    utc = [message.observed_at for message in Replay(Settings(weather_timezone="UTC"), day)]
    assert min(utc) == datetime(2013, 7, 1, tzinfo=UTC)


def test_selection_by_city_and_of_nothing() -> None:
    newark = Replay(Settings(), Selection(date(2013, 7, 1), date(2013, 7, 2), (Place("newark", "US"),)))
    assert {message.station_id for message in newark} == {"replay:EWR"}
    with pytest.raises(UsageError, match="it holds 2013-01-01 to 2013-12-31"):
        Replay(Settings(), Selection(date(2020, 1, 1)))
    with pytest.raises(UsageError, match="Newark,US"):
        Replay(Settings(), Selection(places=(Place("Paris", "FR"),)))
