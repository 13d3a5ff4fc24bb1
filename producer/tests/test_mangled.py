"""Any JSON, however mangled, gives a valid message or a named refusal, never another exception."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import answers, load

from meteo_common.errors import RefusedError
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.source import Source, checked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\x00", 1e308, -1, 10**40]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
OPEN_METEO = load("open-meteo", "om_forecast__MagicMirrorOrg__weather-openmeteo-current__0-d84f3")
OPENWEATHER = load("openweather", "owm_current__programmatordev__MockResponse__2-f495f")
FORECAST = load("openweather", "owm_forecast__programmatordev__MockResponse__3-51243")
AIR = load("openweather", "owm_air__programmatordev__MockResponse__4-470dd")


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places_in(inner, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = by
    return changed


def normalise(source: Source, bodies: dict[str, Any]) -> None:
    try:
        checked(source.normalise(answers(bodies)))
    except RefusedError as refusal:
        assert str(refusal)  # noqa: PT017 - a message is as good


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(places_in(OPEN_METEO)), JSON)
def test_open_meteo(path: tuple[Any, ...], value: Any) -> None:
    body = replaced(OPEN_METEO, path, value)
    normalise(OpenMeteo(Settings(), Api()), {"current": body, "air_pollution": body})


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(places_in({"current": OPENWEATHER, "forecast": FORECAST, "air_pollution": AIR})).filter(bool), JSON
)
def test_openweather(path: tuple[Any, ...], value: Any) -> None:
    whole = {"current": OPENWEATHER, "forecast": FORECAST, "air_pollution": AIR}
    normalise(OpenWeather(Settings(), Api()), replaced(whole, path, value))
