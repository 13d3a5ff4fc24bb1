"""The typed decoder and the JSON Schema with its x- rules accept and refuse the same records."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meteo_common.errors import RefusedError
from meteo_common.message import decode
from meteo_common.schema import message_schema, violations

WHOLE: dict[str, Any] = {
    "schema_version": 1,
    "normaliser_version": 1,
    "source": "openweather",
    "data_origin": "api",
    "station_id": "openweather:2988507",
    "city": "Zürich",
    "observed_at": "2026-11-20T10:00:00Z",
    "collected_at": "2026-11-20T10:00:03.120Z",
    "observation": {
        "temperature_celsius": 7.1,
        "humidity_percent": 81,
        "precipitation_1h_mm": 0.0,
        "condition": "rain",
    },
    "country": "FR",
    "latitude": 48.85,
    "longitude": 2.35,
    "air_quality": {
        "scale": "openweather",
        "index": 2,
        "observed_at": "2026-11-20T09:00:00Z",
        "components_ugm3": {"pm2_5": 3.5, "so2": None},
    },
    "sun": {"sunrise": "2026-11-20T07:00:00Z", "sunset": None},
    "forecast": [{"valid_at": "2026-11-20T13:00:00Z", "hours": 3, "temperature_celsius": 6.0, "precipitation_mm": 0.4}],
    "quality": ["wind_speed_mps:out_of_range"],
    "raw": {"current": {"main": {"temp": 280.25}, "list": [None, True, -1, 1e-7]}},
}


class Verbatim(str):
    """JSON text as it stands."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object whose names may come twice."""


def text_of(value: Any) -> str:
    """Return a value as JSON text."""
    if isinstance(value, Verbatim):
        return str(value)
    if isinstance(value, Pairs | dict):
        pairs = value if isinstance(value, Pairs) else value.items()
        return "{" + ", ".join(f"{json.dumps(name)}: {text_of(each)}" for name, each in pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def agree(value: bytes) -> bool:
    """Return whether decoder and schema accept it; fails when they differ."""
    try:
        decode(value)
        reason = None
    except RefusedError as error:
        reason = str(error)
    found = violations(value)
    assert (reason is None) == (not found), (value, reason, found)
    return reason is None


SPELLINGS = """
    1e400 -1e400 1e308 1.8e308 1e-400 -0 -0.0 1.0 2.00 1e0 1E2 0.1e1 1e400000 01 +1 1. .5 --1 0x1 1_0 NaN Infinity
    -Infinity 90.00000000000000000001 60.0000001 18446744073709551616
"""
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [-90, 60, -110, 80, 0, 100, 300, 1100, 115, 140, 360, 200_000, 450, 1000, 1, 5, 24, 2**31 - 1, 2**31]
    ).flatmap(lambda limit: st.sampled_from([limit, limit - 1, limit + 1, limit + 0.001, limit - 0.001, float(limit)])),
    st.sampled_from(
        (*SPELLINGS.split(), "1" + "0" * 308, "1" + "0" * 309, "9" * 400, "9" * 4300, "9" * 4301, "-" + "9" * 4300)
    ).map(Verbatim),
)
INSTANT_PARTS = st.tuples(
    st.sampled_from(["2026-11-20", "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "2026-04-31", "0000-01-01"])
    | st.sampled_from(
        ["0001-01-01", "0001-12-31", "0002-01-01", "9998-12-31", "9999-01-01", "9999-12-31", "1939-12-31"]
    )
    | st.sampled_from(["1940-01-01", "2026-00-10", "2026-13-01", "2026-1-1", "20261120", "２026-11-20", "٢026-11-20"])
    | st.dates().map(str),
    st.sampled_from(["T", "T", "T", "t", " ", "_", "", "T ", "\n"]),
    st.sampled_from(
        ["10:00:00", "23:59:59", "23:59:60", "24:00:00", "00:00:00", "10:60:00", "10:00", "1:00:00", "10:00:0１"]
    )
    | st.times().map(lambda time: time.isoformat("seconds")),
    st.sampled_from(["", ".5", ".", ".123456", ".9999995", ".9999994", ".99999949999", ",5", ".1234567890123", ".５"]),
    st.sampled_from(
        [
            "Z",
            "Z",
            "Z",
            "z",
            "",
            "+00:00",
            "-00:00",
            "+0100",
            "+01",
            "+23:59",
            "-23:59",
            "+24:00",
            "+01:60",
            "Z ",
            "Z\n",
        ]
    )
    | st.builds("{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 25), st.integers(0, 61)),
)
INSTANTS = INSTANT_PARTS.map("".join) | st.sampled_from(
    [
        "2026-11-21T10:00:00Z",
        "2026-11-21T10:00:03.120Z",
        "2026-11-21T10:00:03.1200004Z",
        "2026-11-21T10:00:03.1200005Z",
        "",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=5),
    st.text(string.ascii_letters + "-:._,+# é\n", max_size=8),
    st.sampled_from(
        ["openweather", "replay", "openweather:", "openweather:2988507\n", "openweather:é", "open-meteo:1.5,-2"]
    )
    | st.sampled_from(
        ["", "api", "replay\n", "us-epa", "a" * 201, "openweather:" + "a" * 188, "openweather:" + "a" * 189]
    ),
    st.sampled_from(
        [r'"\u0000"', r'"a\u0000b"', r'"\ud800"', r'"\udc00x"', r'"\ud83c\udf27"', r'"\\u0000"', r'"\\ud800"']
    ).map(Verbatim),
    st.sampled_from(['"\x01"', '"\t"', r'"\x"', r'"\u12"', "'a'", '"\x7f"', "\ufeff1", "tru", "nulll", "/**/1"]).map(
        Verbatim
    ),
)
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS | INSTANTS
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.lists(st.tuples(st.sampled_from(["a", "b", "\u0000"]), inner), max_size=3).map(Pairs)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything in a value, itself first."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, child in children for place in places(child, (*path, name)))]


def put(message: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """Return the message with the value at a path changed."""
    if not path:
        return change(message)
    copy = Pairs(message) if isinstance(message, Pairs) else deepcopy(message)
    if isinstance(copy, Pairs):
        return Pairs((name, put(value, path[1:], change) if name == path[0] else value) for name, value in copy)
    copy[path[0]] = put(copy[path[0]], path[1:], change)
    return copy


PLACES = places(WHOLE)[1:]
INSTANT_PLACES = [path for path in PLACES if str(path[-1]).endswith(("_at", "rise", "set"))]
OBJECT_PLACES = [(), ("observation",), ("air_quality",), ("air_quality", "components_ugm3"), ("forecast", 0), ("raw",)]
NAMES = st.sampled_from(sorted({str(path[-1]) for path in PLACES})) | st.text(max_size=4)


@st.composite
def mutations(draw: st.DrawFn) -> Any:
    """A valid message with one to three changes."""
    message: Any = WHOLE
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["value", "value", "value", "instant", "instant", "missing", "added", "twice"]))
        try:
            if kind == "value":
                value = draw(VALUES)
                message = put(message, draw(st.sampled_from(PLACES)), lambda _, value=value: value)
            elif kind == "instant":
                value = draw(INSTANTS)
                message = put(message, draw(st.sampled_from(INSTANT_PLACES)), lambda _, value=value: value)
            elif kind == "missing":
                *path, name = draw(st.sampled_from(PLACES))
                message = put(message, tuple(path), lambda parent, name=name: _without(parent, name))
            else:
                entry = (draw(NAMES), draw(VALUES))
                before = kind == "twice" and draw(st.booleans())
                message = put(
                    message, draw(st.sampled_from(OBJECT_PLACES)), lambda parent, e=entry, b=before: _with(parent, e, b)
                )
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change has taken the place away
    return message


def _without(parent: Any, name: Any) -> Any:
    if isinstance(parent, list) and not isinstance(parent, Pairs):
        return parent[:name] + parent[name + 1 :]
    return Pairs((key, value) for key, value in _pairs(parent) if key != name)


def _with(parent: Any, entry: tuple[str, Any], before: bool) -> Any:
    return Pairs([entry, *_pairs(parent)] if before else [*_pairs(parent), entry])


def _pairs(parent: Any) -> Any:
    return parent if isinstance(parent, Pairs) else parent.items()


@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_decoder_and_schema_agree_on_spoiled_messages(message: Any) -> None:
    agree(text_of(message).encode("utf-8", "surrogatepass"))


@settings(max_examples=1000, deadline=None)
@given(INSTANTS, INSTANTS)
@example("2026-11-21T10:00:03.1200004Z", "2026-11-20T10:00:03.120Z")
@example("2026-11-21T10:00:03.1200005Z", "2026-11-20T10:00:03.120Z")
@example("9998-12-31T23:59:59.9999994Z", "9998-12-31T23:59:59.9999995Z")
def test_decoder_and_schema_agree_on_times(observed_at: str, collected_at: str) -> None:
    agree(text_of({**WHOLE, "observed_at": observed_at, "collected_at": collected_at}).encode())


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=30), st.integers(0, 2000), st.integers(0, 40))
def test_decoder_and_schema_agree_on_spoiled_bytes(replacement: bytes, start: int, length: int) -> None:
    value = text_of(WHOLE).encode()
    agree(value[:start] + replacement + value[start + length :])


@pytest.mark.parametrize("depth", [10, 400, 20_000])
@pytest.mark.parametrize("field", ["raw", "added"])
def test_decoder_and_schema_agree_on_depth(field: str, depth: int) -> None:
    nested = Verbatim('{"a": ' * depth + "1" + "}" * depth)
    assert agree(text_of({**WHOLE, field: nested}).encode()) == (depth < 1000)


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"added": {"x": [1e300]}}, True),
        ({"added": Verbatim("1e400")}, True),
        ({"raw": {"x": Verbatim("1e400")}}, False),
        ({"raw": {"x": Verbatim("9" * 4300)}}, True),
        ({"raw": {"x": Verbatim("9" * 4301)}}, False),
        ({"normaliser_version": 2**31 - 1}, True),
        ({"normaliser_version": 2**31}, False),
        ({"normaliser_version": Verbatim("1.0")}, False),
        ({"latitude": Verbatim("-0")}, True),
        ({"latitude": Verbatim("90.0000000000000000001")}, True),
        ({"observed_at": "2026-11-20 10:00:00+0100"}, True),
        ({"observed_at": "2026-11-20t10:00:00z"}, True),
        ({"observed_at": "2026-12-31T23:59:60Z", "collected_at": "2027-01-01T00:00:00Z"}, False),
        ({"observed_at": "２026-11-20T10:00:00Z"}, False),
        ({"station_id": "openweather:2988507\n"}, False),
        ({"source": "replay"}, False),
        ({"schema_version": 2}, False),
        ({"air_quality": None, "sun": None, "country": None}, True),
        ({"air_quality": {**WHOLE["air_quality"], "index": 6}}, False),
        ({"air_quality": {**WHOLE["air_quality"], "index": 6, "scale": "us-epa"}}, True),
        ({"air_quality": Pairs([("scale", "us-epa"), *WHOLE["air_quality"].items()])}, True),
        ({"sun": Pairs([("sunset", "noon"), ("sunset", None)])}, False),
        ({"raw": Pairs([("x", Verbatim(r'"\u0000"')), ("x", 1)])}, False),
    ],
)
def test_what_each_rule_decides(change: dict[str, Any], valid: bool) -> None:
    assert agree(text_of({**WHOLE, **change}).encode()) == valid


def test_every_value_of_a_name_that_comes_twice_counts() -> None:
    whole = text_of(WHOLE)
    assert agree(f'{{"city": "Paris", {whole[1:]}'.encode())
    assert not agree(f'{{"city": "", {whole[1:]}'.encode())
    assert not agree(f'{{"observation": {{"humidity_percent": 101}}, {whole[1:]}'.encode())


def test_a_byte_order_mark_and_other_encodings_are_no_message() -> None:
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        assert not agree(text_of(WHOLE).encode(encoding))


def test_the_schema_is_one_for_any_validator() -> None:
    """It is a valid schema, whose patterns any dialect reads; without the x- rules it refuses less, never more."""
    schema = message_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    plain = jsonschema.Draft202012Validator(schema)
    assert plain.is_valid(WHOLE)
    assert not plain.is_valid({**WHOLE, "latitude": 91})
    assert not plain.is_valid({**WHOLE, "observed_at": "2026-02-29T00:00:00Z"})
    assert plain.is_valid({**WHOLE, "source": "replay"})
    named = set(re.findall(r'"(x-[a-z-]+)"', json.dumps(schema))) - {"x-rules"}
    assert named == set(schema["x-rules"])
