"""Any JSON, however mangled, gives a valid message or a named refusal, never another exception."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import date
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import NOW, PARIS, answers, load

from meteo_common.errors import RefusedError
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.simulation import Simulation
from meteo_producer.source import FEEDS, Answers, Source, checked
from meteo_producer.visual_crossing import VisualCrossing

T = TypeVar("T")
Bodies = dict[str, Any]

ODD: list[Any] = [
    "\x00", "\ud800", "", " ", "NaN", "1970-01-01T00:00", "9999-12-31T23:59", "0001-01-01", "24:00:00",
    1e308, -1e308, 1e-308, -0.0, float("inf"), float("nan"), -1, 0, 10**18, 10**40, -(10**40), 2**63,
    253402300799, -62135596800, True, [], {}, [None], [[]], {"": None},
]  # fmt: skip
"""What broke somebody's parser once: ends of calendars and of number types, what JSONB cannot hold, empty shapes."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


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


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places_in(inner, (*path, key)))]


class Mangling:
    """Strategies that change a body at some of its places."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        self.places = [path for path in places_in(whole) if path]

    def mutations(self) -> st.SearchStrategy[Any]:
        """Return bodies with 1 to 4 changes: replaced, deleted, wrapped, of another type, swapped with another."""
        kinds = st.sampled_from(["replace", "replace", "delete", "wrap", "unwrap", "retype", "swap"])
        change = st.tuples(kinds, st.sampled_from(self.places), st.sampled_from(self.places), JSON)
        return st.lists(change, min_size=1, max_size=4).map(self._changed)

    def _changed(self, changes: list[tuple[str, tuple[Any, ...], tuple[Any, ...], Any]]) -> Any:
        whole = copy.deepcopy(self.whole)
        for kind, path, other, value in changes:
            try:
                inner = _at(whole, path[:-1])
                old = inner[path[-1]]
                if kind == "delete":
                    del inner[path[-1]]
                elif kind == "wrap":
                    inner[path[-1]] = [old] if isinstance(value, int) else {"value": old}
                elif kind == "unwrap":
                    inner[path[-1]] = next(iter(old.values() if isinstance(old, dict) else old), None)
                elif kind == "retype":
                    inner[path[-1]] = _retyped(old)
                elif kind == "swap":
                    inner[path[-1]] = copy.deepcopy(_at(whole, other))
                else:
                    inner[path[-1]] = value
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # an earlier change took the place away
        return whole


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _retyped(value: Any) -> Any:
    if isinstance(value, str):
        return float(value) if value.replace(".", "", 1).isdigit() else [value]
    return str(value) if isinstance(value, int | float) else None


def valid_or_refused(work: Callable[[], T]) -> T | None:
    try:
        return work()
    except RefusedError as refusal:
        assert str(refusal)  # noqa: PT017 - a message is as good
        return None


def normalise(source: Source, given: Answers) -> None:
    valid_or_refused(lambda: checked(source.normalise(given)))


def normalise_days(given: Answers) -> None:
    source = VisualCrossing(Settings(), Api())
    for day, message in valid_or_refused(lambda: source.normalise_days(given)) or []:
        assert isinstance(day, date)
        if kept := valid_or_refused(lambda message=message: checked(message)):  # type: ignore[misc]
            again = source.normalise(Answers(given.place, given.collected_at, kept.raw, given.units))
            assert again.observed_at == kept.observed_at
            assert again.observation == kept.observation


@pytest.mark.parametrize("name", GIVEN)
def test_it_is_valid_before_it_is_mangled(name: str) -> None:
    source, bodies = GIVEN[name]
    message = checked(source.normalise(answers(bodies)))
    assert message.quality == []
    assert message.sun is not None
    assert bool(message.forecast) == (name != "visual-crossing, an hour")
    assert bool(message.air_quality) == ("visual" not in name)


@pytest.mark.parametrize("name", GIVEN)
def test_mutations(name: str) -> None:
    source, bodies = GIVEN[name]

    @settings(max_examples=200, deadline=None)
    @given(Mangling(bodies).mutations(), st.sampled_from([PARIS, Place("Paris", "FR")]))
    def mangled(changed: Bodies, place: Place) -> None:
        normalise(source, answers(changed, place=place))

    mangled()


@pytest.mark.parametrize("name", GIVEN)
def test_any_json_as_a_body(name: str) -> None:
    source, bodies = GIVEN[name]

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from(sorted(bodies)), JSON)
    def mangled(part: str, body: Any) -> None:
        normalise(source, answers(bodies | {part: body}))
        normalise(source, answers({part: body}))

    mangled()


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
        if path and isinstance(path[-1], str) and isinstance(_at(bodies[part], path), int):
            changed = copy.deepcopy(bodies)
            _at(changed[part], path[:-1])[path[-1]] = seconds
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
