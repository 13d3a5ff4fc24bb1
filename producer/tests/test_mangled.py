"""Any JSON, however mangled, gives a valid message or a named refusal, never another exception."""

from __future__ import annotations

import copy
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mangling import (
    JSON,
    Bodies,
    Mangling,
    at,
    check_any_json,
    check_mutations,
    normalise,
    places_in,
    valid_or_refused,
)
from recordings import NOW, PARIS, answers, load, understood

from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.simulation import Simulation
from meteo_producer.source import FEEDS, Answers, Source, checked
from meteo_producer.sources import SOURCES
from meteo_producer.visual_crossing import VisualCrossing


def trimmed(body: Any, rows: int) -> Any:
    """Return the body with at most `rows` entries in each array, so that mutations meet all of it."""
    if isinstance(body, dict):
        return {key: trimmed(value, rows) for key, value in body.items()}
    return [trimmed(value, rows) for value in body[:rows]] if isinstance(body, list) else body


LIVE = trimmed(load("visual-crossing", "vc__essamatefelsherif__sample-02__0-fdcd1"), 4)
PAST = trimmed(load("visual-crossing", "vc__essamatefelsherif__sample-01__0-83e96"), 2)
AIR = load("open-meteo", "om_forecast__home-assistant__air-quality-current")
SIMULATED = Simulation(Settings(), Api()).fetch(PARIS, FEEDS, NOW).bodies

GIVEN: dict[str, tuple[Source, Bodies]] = {
    "open-meteo": (
        OpenMeteo(Settings(), Api()),
        {
            "current": load("open-meteo", "om_forecast__MagicMirrorOrg__weather-openmeteo-current__0-d84f3"),
            "air_pollution": AIR | {"current": AIR["current"] | {"european_aqi": 40, "pm10": 3.0}},
        },
    ),
    "openweather": (
        OpenWeather(Settings(), Api()),
        {
            "current": load("openweather", "owm_current__programmatordev__MockResponse__2-f495f"),
            "forecast": load("openweather", "owm_forecast__programmatordev__MockResponse__3-51243"),
            "air_pollution": load("openweather", "owm_air__programmatordev__MockResponse__4-470dd"),
        },
    ),
    "visual-crossing": (VisualCrossing(Settings(), Api()), {"current": LIVE}),
    "visual-crossing, an hour": (VisualCrossing(Settings(), Api()), {"timeline": trimmed(PAST, 1)}),
    "simulation": (Simulation(Settings(), Api()), SIMULATED),
}
CHOSEN = tuple(GIVEN)
# Any other source with the first of its recorded answers that becomes a message.
GIVEN |= {
    name: (source, {"current": understood(source, name)[0]})
    for name, source in ((name, make(Settings(), Api())) for name, make in SOURCES.items())
    if name not in GIVEN
}


def normalise_days(given: Answers) -> None:
    source = VisualCrossing(Settings(), Api())
    for day, message in valid_or_refused(lambda: source.normalise_days(given)) or []:
        assert isinstance(day, date)
        if kept := valid_or_refused(lambda message=message: checked(message)):  # type: ignore[misc]
            again = source.normalise(Answers(given.place, given.collected_at, kept.raw, given.units))
            assert again.observed_at == kept.observed_at
            assert again.observation == kept.observation


@pytest.mark.parametrize("name", CHOSEN)
def test_it_is_valid_before_it_is_mangled(name: str) -> None:
    source, bodies = GIVEN[name]
    message = checked(source.normalise(answers(bodies)))
    assert message.quality == []
    assert message.sun is not None
    assert bool(message.forecast) == (name != "visual-crossing, an hour")
    assert bool(message.air_quality) == ("visual" not in name)


@pytest.mark.parametrize("name", GIVEN)
def test_mutations(name: str) -> None:
    check_mutations(*GIVEN[name])


@pytest.mark.parametrize("name", GIVEN)
def test_any_json_as_a_body(name: str) -> None:
    check_any_json(*GIVEN[name])


@pytest.mark.parametrize("name", GIVEN)
def test_the_wrong_providers_answer(name: str) -> None:
    """Each part of each provider's answers in each place of another's."""
    source, own = GIVEN[name]
    for _, others in GIVEN.values():
        for body in others.values():
            for part in own:
                normalise(source, answers({part: body}))
                normalise(source, answers(own | {part: body}))


@pytest.mark.parametrize("seconds", [253402300799, -62135596800, 1e12])
@pytest.mark.parametrize(("name", "part"), [(name, part) for name in GIVEN for part in GIVEN[name][1]])
def test_times_at_the_ends_of_the_calendar(name: str, part: str, seconds: float) -> None:
    source, bodies = GIVEN[name]
    for path in places_in(bodies[part]):
        if path and isinstance(path[-1], str) and isinstance(at(bodies[part], path), int):
            changed = copy.deepcopy(bodies)
            at(changed[part], path[:-1])[path[-1]] = seconds
            normalise(source, answers(changed))


@settings(max_examples=200, deadline=None)
@given(Mangling({"timeline": PAST}).mutations(), st.sampled_from(["metric", "us", "uk", "base", None]))
def test_past_days(bodies: Bodies, units: str | None) -> None:
    normalise_days(answers(bodies, units))


@settings(max_examples=80, deadline=None)
@given(JSON)
def test_any_json_as_past_days(body: Any) -> None:
    normalise_days(answers({"timeline": body}))
    normalise_days(answers({"timeline": PAST | {"days": body}}))
    normalise_days(answers({"timeline": PAST | {"days": [PAST["days"][0] | {"hours": body}]}}))
