"""The simulation: the same weather from the same seed, believable, and as fast as it is meant to be used."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from recordings import NOW, answers

from meteo_common.errors import RefusedError, UsageError
from meteo_common.message import LIMITS, Message, decode, encode
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.climate import Climate, Hour
from meteo_producer.simulation import FIELDS, SimulatedDays, Simulation, located
from meteo_producer.source import FEEDS, Answers, Selection, checked

PLACES = "Paris,FR;Singapore,SG@1.29,103.85;Tromsø,NO@69.65,18.96;Sydney,AU@-33.87,151.21;Pole,AQ@-90,0"
HOURS_OF_2025 = range(482136, 482136 + 8760)


def settings(city: str = "Paris,FR", **more: object) -> Settings:
    return Settings.model_validate({"city": city, **more})


def recording(first: str, last: str, **more: object) -> SimulatedDays:
    return SimulatedDays(settings(**more), Selection(date.fromisoformat(first), date.fromisoformat(last)))


def year(latitude: float, longitude: float, seed: int = 1) -> list[Hour]:
    climate = Climate(seed, latitude, longitude)
    return [climate.hour(number) for number in HOURS_OF_2025]


@pytest.fixture(scope="module")
def paris() -> list[Hour]:
    return year(48.85, 2.35)


def mean(hours: list[Hour], first_day: int, last_day: int) -> float:
    return statistics.fmean(hour.temperature for hour in hours[first_day * 24 : last_day * 24])


def test_records_are_what_encode_makes_of_their_messages() -> None:
    played = recording("2025-06-30", "2025-07-01", city=PLACES)
    for message, (key, value) in zip(played, played.records(), strict=True):
        assert encode(message) == value
        assert message.station_id.encode() == key
        assert checked(message) == message


def test_recordings_and_answers_say_the_same() -> None:
    source = Simulation(settings(), Api())
    for message in recording("2025-06-30", "2025-06-30", city=PLACES, produce_every="1h"):
        place = Place(message.city, str(message.country), message.latitude, message.longitude)
        assert source.normalise(Answers(place, message.collected_at, message.raw)) == message
        assert source.normalise(source.fetch(place, ["current"], message.collected_at)) == message


def test_every_step_of_the_days_of_the_zone() -> None:
    played = list(recording("2025-03-30", "2025-03-30", city="Paris,FR;Oslo,NO@59.9,10.7"))
    steps = 23 * 6  # the day on which the clocks change in Paris
    assert len(played) == len(recording("2025-03-30", "2025-03-30")) * 2 == steps * 2
    assert played[0].observed_at == datetime(2025, 3, 29, 23, tzinfo=UTC)
    assert played[-1].observed_at == datetime(2025, 3, 30, 21, 50, tzinfo=UTC)
    assert [message.city for message in played[:4]] == ["Paris", "Oslo", "Paris", "Oslo"]
    assert {message.collected_at - message.observed_at for message in played} == {timedelta(seconds=3)}
    assert {message.data_origin for message in played} == {"simulated"}
    assert played[0].station_id == "simulation:48.85,2.35"
    assert len(recording("2025-10-26", "2025-10-26", produce_every="1h")) == 25
    assert len(recording("2025-07-01", "2025-07-01", produce_every="7000s")) == 13  # the last step begins in the day


def test_the_same_seed_gives_the_same_weather_whatever_the_process_and_order() -> None:
    days = recording("2025-01-01", "2025-01-02")
    expected = [value for _, value in days.records()]
    assert [value for _, value in recording("2025-01-02", "2025-01-02").records()] == expected[144:]
    assert [value for _, value in recording("2025-01-01", "2025-01-02", simulation_seed=2).records()] != expected
    program = (
        "from datetime import date; from meteo_common.settings import Settings;"
        "from meteo_producer.simulation import SimulatedDays; from meteo_producer.source import Selection;"
        "import sys; days = Selection(date(2025, 1, 1), date(2025, 1, 2));"
        "sys.stdout.buffer.write(b'\\n'.join(v for _, v in SimulatedDays(Settings(), days).records()))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345", "CITY": "Paris,FR"}
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=True
    )
    assert other.stdout.split(b"\n") == expected
    backwards = Climate(1, 48.85, 2.35)
    hours = [backwards.hour(number) for number in reversed(HOURS_OF_2025[:500])]
    assert hours[::-1] == year(48.85, 2.35)[:500]


def test_summer_is_warm_and_days_are_warmer_than_nights(paris: list[Hour]) -> None:
    assert mean(paris, 181, 212) - mean(paris, 0, 31) > 10
    sydney = year(-33.87, 151.21)
    assert mean(sydney, 0, 31) - mean(sydney, 181, 212) > 6
    july = paris[181 * 24 : 212 * 24]
    by_clock = [statistics.fmean(hour.temperature for hour in july[clock::24]) for clock in range(24)]
    assert 13 <= by_clock.index(max(by_clock)) <= 16
    assert max(by_clock) - min(by_clock) > 4
    assert max(by_clock[0:6]) < min(by_clock[11:18])


def test_places_differ_and_neighbours_are_alike(paris: list[Hour]) -> None:
    means = [mean(year(latitude, longitude), 0, 365) for latitude, longitude in [(1.3, 103.9), (48.9, 2.4), (69.7, 19)]]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[2] > 20

    def correlation(other: list[Hour]) -> float:
        return statistics.correlation([hour.pressure for hour in paris], [hour.pressure for hour in other])

    assert correlation(year(50.85, 4.35)) > 0.8  # Brussels
    assert abs(correlation(year(40.7, -74.0))) < 0.5  # New York


def test_rain_comes_with_clouds_and_low_pressure(paris: list[Hour]) -> None:
    wet = [hour for hour in paris if hour.rain > 0.05]
    assert 0.05 < len(wet) / len(paris) < 0.25
    assert 300 < sum(hour.rain for hour in paris) < 1500
    assert min(hour.cloud for hour in wet) > 50
    assert statistics.fmean(hour.pressure for hour in wet) < statistics.fmean(hour.pressure for hour in paris) - 3
    storms = [hour for hour in paris if hour.storm]
    assert 5 < len(storms) < 100
    assert min(hour.temperature for hour in storms) > 15
    assert statistics.fmean(hour.gust for hour in storms) > statistics.fmean(hour.gust for hour in paris) + 5


def test_humidity_follows_temperature(paris: list[Hour]) -> None:
    dry = [(a, b) for a, b in pairwise(paris) if a.rain == b.rain == 0]
    warming = [b.humidity - a.humidity for a, b in dry if b.temperature - a.temperature > 1]
    assert statistics.fmean(warming) < -2


def test_pressure_does_not_jump(paris: list[Hour]) -> None:
    assert max(abs(b.pressure - a.pressure) for a, b in pairwise(paris)) < 4


def test_everything_is_within_limits_everywhere() -> None:
    for latitude in range(-90, 91, 15):
        climate = Climate(7, latitude, latitude * 1.9)
        for seconds in range(1735689600, 1735689600 + 365 * 86400, 25_000):
            for field, value in zip(FIELDS, climate.at(seconds), strict=True):
                assert LIMITS[field][0] <= value <= LIMITS[field][1], field


def test_the_last_hours_rain_sums_up_to_the_days() -> None:
    """Polled every 10 minutes, the last value of each hour is nearly that hour's rain."""
    climate = Climate(1, 48.85, 2.35)
    hours = range(482136 + 24 * 150, 482136 + 24 * 180)
    measured = sum(climate.at(number * 3600 + 3540)[9] for number in hours)
    fallen = sum(climate.hour(number + 1).rain for number in hours)
    assert fallen > 10
    assert measured == pytest.approx(fallen, rel=0.1)


@pytest.mark.parametrize(
    ("latitude", "longitude", "day", "rise", "down"),
    [
        (48.85, 2.35, "2025-06-21", "03:47", "19:58"),  # 05:47 and 21:58 in Paris by the almanac
        (48.85, 2.35, "2025-12-21", "07:41", "15:56"),
        (-33.87, 151.21, "2025-12-21", "18:41", "09:05"),
    ],
)
def test_the_sun_rises_when_it_does(latitude: float, longitude: float, day: str, rise: str, down: str) -> None:
    noon = int(datetime.fromisoformat(f"{day}T12:00+00:00").timestamp() - longitude * 240)
    for given, expected in zip(Climate(1, latitude, longitude).sun(noon), (rise, down), strict=True):
        assert given is not None
        clock = datetime.fromtimestamp(given, UTC)
        minutes = clock.hour * 60 + clock.minute - int(expected[:2]) * 60 - int(expected[3:])
        # The equation of time, up to 16 minutes, is left out.
        assert abs(minutes) <= 20


def test_polar_sun_is_null() -> None:
    source = Simulation(settings(), Api())
    tromso = Place("Tromsø", "NO", 69.65, 18.96)
    for day in (datetime(2025, 6, 21, 12, tzinfo=UTC), datetime(2025, 12, 21, 12, tzinfo=UTC)):
        sun = source.normalise(source.fetch(tromso, ["current"], day)).sun
        assert sun is not None
        assert (sun.sunrise, sun.sunset) == (None, None)


def test_it_needs_neither_network_nor_coordinates() -> None:
    source = Simulation(settings(), Api())
    source.ready()
    message = source.normalise(source.fetch(Place("Nowhere", "XX"), FEEDS, NOW))
    assert message.observed_at == NOW.replace(second=0)
    assert message.latitude is not None
    assert 40 <= message.latitude <= 60
    assert located(Place("Nowhere", "XX")) == located(Place("Nowhere", "XX")) != located(Place("Elsewhere", "XX"))
    assert located(Place("Here", "XX", 1.0, 2.0)) == Place("Here", "XX", 1.0, 2.0)


def test_the_forecast_comes_true() -> None:
    source = Simulation(settings(), Api())
    paris = Place("Paris", "FR", 48.85, 2.35)
    message = source.normalise(source.fetch(paris, FEEDS, NOW))
    assert len(message.forecast) == 40
    assert message.forecast[0].valid_at > message.observed_at
    for step in message.forecast:
        then = source.normalise(source.fetch(paris, ["current"], step.valid_at))
        assert step.temperature_celsius == then.observation.temperature_celsius
    rain = sum(step.precipitation_mm or 0.0 for step in message.forecast)
    climate = Climate(1, 48.85, 2.35)
    first = int(message.forecast[0].valid_at.timestamp()) // 3600 - 2
    assert rain == pytest.approx(sum(climate.hour(first + n).rain for n in range(120)), abs=2)
    assert message.air_quality is not None
    assert message.air_quality.index is not None
    assert 0 <= message.air_quality.index <= 100
    assert message.quality == []


def test_refusals() -> None:
    source = Simulation(settings(), Api())
    for bodies, reason in (
        ({}, "the answer has no time"),
        ({"current": {"time": 1795168800}}, "the answer holds no weather"),
        ({"current": {"time": 1795168800, "wind_speed_mps": "3"}}, "wind_speed_mps is a text"),
    ):
        with pytest.raises(RefusedError, match=reason):
            source.normalise(answers(bodies))
    message: Message = source.normalise(
        answers({"current": {"time": 1795168800, "pressure_hpa": 1.0, "temperature_celsius": 3}, "forecast": []})
    )
    assert message.quality == ["pressure_hpa:out_of_range", "forecast:refused"]


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(date(2025, 1, 1)), "give --from and --to"),
        (Selection(date(1900, 1, 1), date(1900, 1, 2)), "knows the days 1940-01-02 to 2199-12-31"),
    ],
)
def test_days_that_cannot_be_played(selection: Selection, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        SimulatedDays(settings(), selection)


def test_decoding_gives_the_message_back() -> None:
    _, value = next(recording("2025-01-01", "2025-01-01").records())
    assert encode(decode(value)) == value
    assert 1000 < len(value) < 1300
