"""Every recorded answer becomes a valid message, or is refused with a reason that a person understands."""

from __future__ import annotations

import pytest
from recordings import FOLDER, PARIS, answers, asked_units, load, names, understood

from meteo_common.errors import RefusedError
from meteo_common.message import decode, encode
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather, read_air_quality, read_forecast
from meteo_producer.source import checked
from meteo_producer.sources import SOURCES

# Recorded without their request; in kelvin by their values (262 to 299).
IN_KELVIN = ("cmfcmf__FakeData", "freekode", "node-red", "ioBroker")

ONLY = "the answer has no current values, only "
REFUSED = {
    "om_forecast__Akkudoktor-EOS__weatherforecast-openmeteo-1__0-c3ee1": f"{ONLY}hourly",
    "om_forecast__home-assistant__air-quality-current": "the current values hold no weather (uv_index, ozone)",
    "om_forecast__open-meteo-ruby__response-wrapper-spec__1-79097": f"{ONLY}hourly",
    "om_forecast__open-meteo-ruby__response-wrapper-spec__2-2342f": f"{ONLY}daily",
    "om_forecast__tempi-marathon__air-quality__0-30150": f"{ONLY}hourly",
    "om_forecast__tempi-marathon__climate__0-c3e97": f"{ONLY}daily",
    "om_forecast__tempi-marathon__ensemble__0-233cf": f"{ONLY}hourly",
    "om_forecast__tempi-marathon__flood__0-e91f4": f"{ONLY}daily",
    "om_forecast__tempi-marathon__forecast__0-95a2d": f"{ONLY}hourly, daily",
    "om_forecast__tempi-marathon__historical__0-bbbf9": f"{ONLY}hourly",
    "om_forecast__tempi-marathon__marine__0-5df25": f"{ONLY}hourly",
    "om_forecast__tempi-marathon__seasonal__0-fae7f": f"{ONLY}daily",
    "om_error__cyanheads__design__1-61c88": (
        "the answer is the error 'Latitude must be in range of -90 to 90°. Given: 999.0.'"
    ),
    "om_error__ratelimit__overloaded": "the answer is the error 'The service is overloaded'",
    "owm_error__city-not-found__404": "the answer is the error 404: city not found",
    "owm_error__programmatordev__MockResponse__7-e2450": "the answer is the error 404: not found",
}

OPEN_METEO = OpenMeteo(Settings(), Api())
OPENWEATHER = OpenWeather(Settings(), Api())
CURRENT = "owm_current__xSAVIKx__by-city-name__0-93b78"


def units_of(name: str) -> str:
    return asked_units("openweather", name) or ("standard" if any(part in name for part in IN_KELVIN) else "metric")


def test_each_source_that_asks_somebody_has_recorded_answers_with_their_origin() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SOURCES) - {"simulation"}
    for folder in FOLDER.iterdir():
        origin = (folder / "ORIGIN.md").read_text("utf-8")
        assert [name for name in names(folder.name) if name not in origin] == []


@pytest.mark.parametrize("name", [path.name for path in FOLDER.iterdir()])
def test_answers_of_each_folder_are_understood(name: str) -> None:
    assert understood(SOURCES[name](Settings(), Api()), name)


@pytest.mark.parametrize("name", names("open-meteo", "om_"))
def test_open_meteo(name: str) -> None:
    given = answers({"current": load("open-meteo", name)})
    if name.startswith("om_error") or name in REFUSED:
        with pytest.raises(RefusedError) as refusal:
            OPEN_METEO.normalise(given)
        assert str(refusal.value) == REFUSED.get(name, str(refusal.value))
        return
    message = OPEN_METEO.normalise(given)
    assert decode(encode(message)) == message
    assert message.station_id == "open-meteo:48.85,2.35"
    assert message.raw == given.bodies
    assert message.quality == []


@pytest.mark.parametrize("name", names("openweather", "owm_current"))
def test_openweather_current(name: str) -> None:
    message = OPENWEATHER.normalise(answers({"current": load("openweather", name)}, units_of(name)))
    assert decode(encode(message)) == message
    assert message.quality == []
    assert message.observation.temperature_celsius is not None
    assert -5 < message.observation.temperature_celsius < 30
    assert message.observation.precipitation_1h_mm is not None
    assert message.sun is not None


@pytest.mark.parametrize("name", names("openweather", "owm_forecast"))
def test_openweather_forecast(name: str) -> None:
    body = load("openweather", name)
    given = answers({"current": load("openweather", CURRENT), "forecast": body})
    # The current answer is in °C, these forecasts may be in kelvin: the steps are read by themselves.
    steps = read_forecast(body, "K" if units_of(name) == "standard" else "°C")
    assert len(steps) == body["cnt"]
    assert all(step.temperature_celsius is not None and -30 < step.temperature_celsius < 30 for step in steps)
    message = checked(OPENWEATHER.normalise(given))
    assert len(message.forecast) == body["cnt"]


@pytest.mark.parametrize("name", names("openweather", "owm_air"))
def test_openweather_air_pollution(name: str) -> None:
    body = load("openweather", name)
    message = OPENWEATHER.normalise(answers({"current": load("openweather", CURRENT), "air_pollution": body}))
    assert decode(encode(message)) == message
    assert message.air_quality is not None
    assert message.air_quality.scale == "openweather"
    assert message.air_quality.index in {1, 2, 3}
    assert set(message.air_quality.components_ugm3) == {"co", "no", "no2", "o3", "so2", "pm2_5", "pm10", "nh3"}
    latest = max(body["list"], key=lambda entry: entry["dt"])
    assert message.air_quality.observed_at.timestamp() == latest["dt"]
    air, index = read_air_quality(body, message.air_quality.observed_at)
    assert air is not None
    assert index == latest["main"]["aqi"]


@pytest.mark.parametrize("name", names("openweather", "owm_error"))
def test_openweather_errors(name: str) -> None:
    with pytest.raises(RefusedError, match="the answer is the error"):
        OPENWEATHER.normalise(answers({"current": load("openweather", name)}))


def test_the_same_weather_in_three_units() -> None:
    imperial, standard, metric = (
        OPENWEATHER.normalise(answers({"current": load("openweather", name)}, asked_units("openweather", name)))
        for name in (
            "owm_current__xSAVIKx__by-city-id__0-817bb",
            "owm_current__xSAVIKx__by-city-id__1-d58f9",
            CURRENT,
        )
    )
    for message in (imperial, standard, metric):
        assert message.observation.temperature_celsius == pytest.approx(25.99, abs=0.01)
        assert message.observation.wind_speed_mps == pytest.approx(7.0, abs=0.01)


def test_city_without_id_is_known_by_its_coordinates() -> None:
    body = load("openweather", "owm_current__xSAVIKx__by-zip-code__0-ec8f2")
    message = OPENWEATHER.normalise(answers({"current": body}, "standard", Place("San Mateo", "US")))
    assert message.station_id == "openweather:37.57,-122.32"
    assert (message.latitude, message.longitude) == (37.5735, -122.3225)
    assert OPENWEATHER.normalise(answers({"current": body}, "standard", PARIS)).station_id == "openweather:48.85,2.35"


def test_the_normalisers_version_is_read_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meteo_common.message.NORMALISER_VERSION", 7)
    assert OPENWEATHER.normalise(answers({"current": load("openweather", CURRENT)})).normaliser_version == 7
