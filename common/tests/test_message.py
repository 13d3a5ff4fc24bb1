"""The message's contract: what decodes, what does not and why, and what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from meteo_common.errors import RefusedError
from meteo_common.failpoints import FAILPOINTS
from meteo_common.message import (
    FORECAST_LIMITS,
    INDEX_LIMITS,
    LIMITS,
    OTHER_INDEX_LIMITS,
    AirQuality,
    ForecastStep,
    Message,
    Observation,
    Sun,
    decode,
    encode,
)

AT = datetime(2026, 11, 20, 10, tzinfo=UTC)


def whole() -> Message:
    """Return a message with everything in it."""
    return Message(
        schema_version=1,
        normaliser_version=1,
        source="openweather",
        data_origin="api",
        station_id="openweather:2988507",
        city="Zürich 🌧",
        observed_at=AT,
        collected_at=AT + timedelta(seconds=3, milliseconds=120),
        observation=Observation(temperature_celsius=7.1, precipitation_1h_mm=0.0, condition='rain\t"\\\n'),
        country="FR",
        latitude=48.85,
        longitude=2.35,
        air_quality=AirQuality("openweather", AT, 2, {"pm2_5": 3.5, "so2": None}),
        sun=Sun(AT - timedelta(hours=3), None),
        forecast=[ForecastStep(AT + timedelta(hours=3), 3, 6.0, 0.4)],
        quality=["wind_speed_mps:out_of_range"],
        raw={"current": {"main": {"temp": 280.25}, "list": [None, True, -1, 1e-7]}},
    )


def changed(**changes: Any) -> bytes:
    message = json.loads(encode(whole()))
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = message
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else target[parent]
        target[name] = value
    return json.dumps(message).encode()


def test_a_message_comes_back_as_it_was_sent() -> None:
    assert decode(encode(whole())) == whole()
    assert b'"observed_at":"2026-11-20T10:00:00Z"' in encode(whole())


def test_an_instant_of_another_offset_is_the_same_instant() -> None:
    paris = AT.astimezone(timezone(timedelta(hours=1))).isoformat()
    assert decode(changed(observed_at=paris)) == whole()


def test_added_fields_are_accepted_and_optional_ones_may_be_absent() -> None:
    assert decode(changed(added={"x": 1}, observation__added=1)) == whole()
    required = {name: value for name, value in json.loads(encode(whole())).items() if name not in OPTIONAL}
    assert decode(json.dumps(required).encode()).forecast == []


OPTIONAL = ("country", "latitude", "longitude", "air_quality", "sun", "forecast", "quality", "raw")

EVERY_LIMIT = {
    **{f"observation__{name}": limits for name, limits in LIMITS.items()},
    **{f"forecast__0__{name}": limits for name, limits in FORECAST_LIMITS.items()},
    "latitude": (-90, 90),
    "longitude": (-180, 180),
    "air_quality__index": INDEX_LIMITS["openweather"],
}


@pytest.mark.parametrize("path", EVERY_LIMIT)
def test_every_limit_includes_its_ends(path: str) -> None:
    low, high = EVERY_LIMIT[path]
    for value in (low, high, None):
        decode(changed(**{path: value}))
    for value in (low - 0.001, high + 0.001):
        with pytest.raises(RefusedError, match=path.split("__")[0]):
            decode(changed(**{path: value}))


def test_other_scales_have_their_own_limit() -> None:
    low, high = OTHER_INDEX_LIMITS
    for value in (low, high):
        decode(changed(air_quality__scale="us-epa", air_quality__index=value))
    with pytest.raises(RefusedError, match="index 1001 is outside 0…1000 of the scale us-epa"):
        decode(changed(air_quality__scale="us-epa", air_quality__index=1001))


def test_every_measure_has_a_limit() -> None:
    """A measure that is added without one would let impossible values in."""
    measures = {field.name for field in msgspec.structs.fields(Observation)} - {"condition"}
    assert measures == set(LIMITS)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the record has no value"),
        (b"", "the record's value is empty"),
        (b"rain", "not JSON: JSON is malformed: invalid character (byte 0)"),
        (b"[]", "not a valid message: Expected `object`, got `array`"),
        (b"\xff", "not UTF-8"),
        (changed(raw={"x": "@"}).replace(b"@", rb"\ud800"), "contains half of a surrogate pair, which is no character"),
        (changed(raw={"x": "@"}).replace(b"@", rb"\u0000"), r"contains \u0000, which JSONB cannot hold"),
        (changed(schema_version=2), "not a valid message: schema_version 2 is unknown (this version knows 1)"),
        (changed(source="other"), "station_id openweather:2988507 does not begin with its source other"),
        (changed(observed_at="1939-12-31T23:59:59Z"), "observed_at is before 1940"),
        (changed(observed_at="2026-11-21T10:00:04Z"), "observed_at is more than 24 h after collected_at"),
        (changed(sun__sunset="9999-12-31T23:00:00Z"), "sunset is outside the years 2 to 9998"),
        (changed(data_origin="invented"), "Invalid enum value 'invented' - at `$.data_origin`"),
        (changed(city=""), "Expected `str` of length >= 1 - at `$.city`"),
    ],
)
def test_a_record_is_refused_with_its_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(RefusedError) as raised:
        decode(value)
    assert reason in str(raised.value)


def test_the_ends_of_time_are_included() -> None:
    decode(changed(observed_at="1940-01-01T00:00:00Z", collected_at="1940-01-01T00:00:00Z"))
    decode(changed(observed_at="2026-11-21T10:00:03.120Z"))


def test_an_escaped_backslash_is_not_an_escape() -> None:
    assert decode(changed(raw={"x": r"\u0000 \ud800"})).raw == {"x": r"\u0000 \ud800"}


def test_a_failpoint_kills_at_its_time_and_costs_nothing_else() -> None:
    program = f"""
from meteo_common.failpoints import reach
for number in range(3):
    print(number, flush=True)
    reach({FAILPOINTS[0]!r})
"""
    ran = {
        value: subprocess.run(
            [sys.executable, "-c", program], env={"METEO_FAILPOINT": value}, capture_output=True, text=True, check=False
        )
        for value in ("", FAILPOINTS[0], f"{FAILPOINTS[0]}:2", FAILPOINTS[1])
    }
    assert [(one.returncode, one.stdout.split()) for one in ran.values()] == [
        (0, ["0", "1", "2"]),
        (-9, ["0"]),
        (-9, ["0", "1"]),
        (0, ["0", "1", "2"]),
    ]
