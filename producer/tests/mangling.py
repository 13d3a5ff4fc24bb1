"""Mangling answers: whatever a provider sends, a source makes a valid message of it or refuses it with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import PARIS, answers

from meteo_common.errors import RefusedError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_producer.source import Answers, Source, checked

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
                inner = at(whole, path[:-1])
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
                    inner[path[-1]] = copy.deepcopy(at(whole, other))
                else:
                    inner[path[-1]] = value
            except (KeyError, IndexError, TypeError, AttributeError):
                continue  # an earlier change took the place away
        return whole


def at(value: Any, path: tuple[Any, ...]) -> Any:
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


def normalise(source: Source, given: Answers) -> Message | None:
    """Return the message of these answers, None when they are refused; any other error is the source's fault."""
    return valid_or_refused(lambda: checked(source.normalise(given)))


def check_mutations(source: Source, bodies: Bodies) -> None:
    """Have a source read its answers, changed at up to four places each time."""

    @settings(max_examples=200, deadline=None)
    @given(Mangling(bodies).mutations(), st.sampled_from([PARIS, Place("Paris", "FR")]))
    def mangled(changed: Bodies, place: Place) -> None:
        normalise(source, answers(changed, place=place))

    mangled()


def check_any_json(source: Source, bodies: Bodies) -> None:
    """Have a source read any JSON in the place of each part of its answers."""

    @settings(max_examples=80, deadline=None)
    @given(st.sampled_from(sorted(bodies)), JSON)
    def mangled(part: str, body: Any) -> None:
        normalise(source, answers(bodies | {part: body}))
        normalise(source, answers({part: body}))

    mangled()
