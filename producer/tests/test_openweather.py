"""OpenWeather: the shapes of rain and snow, what is absent, the sun."""

from __future__ import annotations

from typing import Any

import pytest
from recordings import answers

from meteo_common.errors import RefusedError, UsageError
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.openweather import OpenWeather, read_forecast

SOURCE = OpenWeather(Settings(), Api())


def current(**more: Any) -> dict[str, Any]:
    return {"id": 2988507, "cod": 200, "dt": 1795168800, "main": {"temp": 7.1}, **more}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, 0.0),
        ({"rain": {"1h": 0.73}}, 0.73),
        ({"rain": {"1h": 0.17, "3h": 0.81}, "snow": {"1h": 0.14, "3h": 0.46}}, 0.31),
        ({"snow": {"1h": 0.2}}, 0.2),
        ({"rain": {"1h": 0}}, 0.0),
        ({"rain": {}}, None),
        ({"rain": None}, None),
        ({"rain": {}, "snow": {"1h": 0.5}}, 0.5),
        ({"rain": {"3h": 6}}, None),
        ({"rain": {"1h": 1}, "snow": {"3h": 0.05}}, None),
        ({"rain": 2.51}, 2.51),
    ],
)
def test_precipitation_of_the_last_hour(shape: dict[str, Any], expected: float | None) -> None:
    message = SOURCE.normalise(answers({"current": current(**shape)}))
    assert message.observation.precipitation_1h_mm == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({}, None),  # the exception for absent rain and snow is the current answer's alone
        ({"rain": {"3h": 0.6}}, 0.6),
        ({"rain": {"3h": 0.6}, "snow": {"3h": 0.5}}, 1.1),
        ({"snow": {}}, None),
        ({"rain": {"1h": 0.2}}, None),
        ({"rain": 1.5}, 1.5),
    ],
)
def test_precipitation_of_a_forecast_step(shape: dict[str, Any], expected: float | None) -> None:
    (step,) = read_forecast({"cod": "200", "list": [{"dt": 1795168800, "main": {"temp": 280.15}, **shape}]}, "K")
    assert step.precipitation_mm == expected
    assert step.temperature_celsius == pytest.approx(7.0)


def test_absent_is_null_not_zero() -> None:
    observation = SOURCE.normalise(answers({"current": current()})).observation
    assert observation.wind_gust_mps is None
    assert observation.visibility_metres is None
    assert observation.cloud_cover_percent is None


@pytest.mark.parametrize(
    ("system", "expected"),
    [({}, None), ({"sunrise": 0, "sunset": 0}, (None, None)), ({"sunrise": None, "sunset": None}, (None, None))],
)
def test_polar_sun_is_null(system: dict[str, Any], expected: tuple[None, None] | None) -> None:
    sun = SOURCE.normalise(answers({"current": current(sys=system)})).sun
    assert (sun and (sun.sunrise, sun.sunset)) == expected


def test_index_outside_its_scale_is_null() -> None:
    pollution = {"list": [{"dt": 1795168800, "main": {"aqi": 6}, "components": {"co": -9999, "no2": 4}}]}
    message = SOURCE.normalise(answers({"current": current(), "air_pollution": pollution}))
    assert message.air_quality is not None
    assert message.air_quality.index is None
    assert message.air_quality.components_ugm3 == {"co": None, "no2": 4.0}
    assert message.quality[0] == "air_quality.index:out_of_range"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (current(dt=None), r"the answer has no time \(dt\)"),
        (current(dt=10**30), "dt is 1e\\+30, expected a unix time"),
        (current(main={"temp": "warm"}), "temp is a text, expected a number"),
        (current(main=[]), "main is an array, expected an object"),
        (current(main=None), "the answer holds no weather"),
        (current(cod="404", message="city not found"), "the answer is the error 404: city not found"),
        ("Sunny", "the answer is a text, expected an object"),
    ],
)
def test_refusals(body: Any, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        SOURCE.normalise(answers({"current": body}))


def test_without_a_key_it_says_what_to_set() -> None:
    with pytest.raises(UsageError, match="set OPENWEATHER_API_KEY"):
        SOURCE.ready()
