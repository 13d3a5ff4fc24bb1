"""Rows of a day's files, made for a test, and what they come to by a computation of its own."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from meteo_hadoop.daily import daily_job
from meteo_hadoop.job import Job, gather, reduce_groups

PARIS = "Europe/Paris"
Fields = dict[str, Any]


def row(at: str, *, station: str = "test:A", observation: Fields | None = None, **given: Any) -> bytes:
    """Return a line; `given` are fields of the row (partition, msg_offset, topic_generation) or of the message."""
    place = {name: given.pop(name) for name in ("partition", "msg_offset", "topic_generation") if name in given}
    message = {
        "schema_version": 1,
        "normaliser_version": 1,
        "source": station.partition(":")[0],
        "data_origin": "simulated",
        "station_id": station,
        "city": "Paris",
        "country": "FR",
        "latitude": 48.85,
        "observed_at": at,
        "collected_at": at,
        "observation": observation or {},
        "air_quality": None,
        "forecast": [],
        "raw": {"current": {"tab": "\t", "newline": "\n", "nested": [1, {"a": None}]}},
    } | given
    return json.dumps({"date_time": at, "partition": 0, "msg_offset": 0, "value": message} | place).encode()


def compute(lines: Iterable[bytes], job: Job | None = None) -> tuple[list[Fields], dict[str, int]]:
    """Return the parsed aggregates of the lines, and the counters."""
    job = job or daily_job(PARIS, None)
    counters: dict[str, int] = {}

    def count(name: str, number: int) -> None:
        counters[name] = counters.get(name, 0) + number

    return [json.loads(line) for _, line in reduce_groups(job, gather(job, lines, count))], counters


def only(lines: Iterable[bytes], zone: str = PARIS) -> Fields:
    """Return the aggregates of lines that are of one station and day."""
    (fields,), counters = compute(lines, daily_job(zone, None))
    assert not [name for name in counters if name.startswith("bad_")]
    return fields


def random_rows(seed: int, number: int, days: int = 3, start: str = "2026-10-24T00:00:00Z") -> list[bytes]:
    """Return rows around the end of summer time, with duplicates, gaps, mixed scales and overlapping forecasts."""
    chance = random.Random(seed)  # noqa: S311
    first = datetime.fromisoformat(start)

    def maybe(value: float) -> float | None:
        return None if chance.random() < 0.3 else value

    def text(instant: datetime) -> str:
        return instant.isoformat().replace("+00:00", "Z")

    rows = []
    for offset in range(number):
        at = first + timedelta(
            seconds=600 * chance.randrange(days * 144), microseconds=chance.choice([0, 0, 0, 120000])
        )
        hour = at.replace(minute=0, second=0, microsecond=0)
        rows.append(
            row(
                text(at),
                station=f"test:{chance.choice('ABC')}",
                collected_at=text(at + timedelta(seconds=chance.randrange(3), milliseconds=chance.choice([0, 120]))),
                normaliser_version=chance.choice([1, 1, 2]),
                partition=chance.randrange(2),
                msg_offset=offset,
                topic_generation=chance.choice([1, 1, 2]),
                city=chance.choice(["Paris", "Zürich", "東京"]),
                observation={
                    "temperature_celsius": maybe(chance.uniform(-20, 40)),
                    "humidity_percent": maybe(chance.randrange(101)),
                    "pressure_hpa": maybe(chance.uniform(950, 1050)),
                    "wind_speed_mps": maybe(chance.choice([0, chance.uniform(0, 30)])),
                    "wind_direction_degrees": maybe(chance.choice([0, 90, 180, 270, chance.uniform(0, 359)])),
                    "precipitation_1h_mm": maybe(chance.choice([0.0, chance.uniform(0, 9)])),
                },
                air_quality={
                    "scale": chance.choice(["openweather", "openweather", "european"]),
                    "observed_at": text(hour - timedelta(hours=chance.randrange(2))),
                    "index": maybe(chance.randrange(1, 6)),
                }
                if chance.random() < 0.5
                else None,
                forecast=[
                    {
                        "valid_at": text(hour + timedelta(hours=3 * step)),
                        "hours": chance.choice([1, 3, 3]),
                        "precipitation_mm": maybe(chance.uniform(0, 5)),
                    }
                    for step in range(chance.randrange(4))
                ],
            )
        )
    return rows


def expected(lines: Iterable[bytes], zone: str = PARIS) -> list[Fields]:
    """Return the aggregates as the design's sentences say, with no thought of speed; floats summed as they come."""
    local = ZoneInfo(zone)
    instant = datetime.fromisoformat
    winners: dict[tuple[str, datetime], tuple[tuple[Any, ...], Fields]] = {}
    for line in lines:
        item = json.loads(line)
        message = item["value"]
        key = (message["station_id"], instant(item["date_time"]))
        order = (
            instant(message["collected_at"]),
            message["normaliser_version"],
            item.get("topic_generation", 1),
            item["partition"],
            item["msg_offset"],
        )
        if key not in winners or winners[key][0] < order:
            winners[key] = (order, message)
    days: dict[tuple[str, str], list[tuple[datetime, Fields]]] = {}
    for (station, at), (_, message) in sorted(winners.items(), key=lambda winner: winner[0]):
        days.setdefault((at.astimezone(local).date().isoformat(), station), []).append((at, message))
    return [_fields(day, station, messages, local) for (day, station), messages in sorted(days.items())]


def _fields(day: str, station: str, messages: list[tuple[datetime, Fields]], local: ZoneInfo) -> Fields:
    def all_of(name: str) -> list[float]:
        return [m["observation"][name] for _, m in messages if m["observation"].get(name) is not None]

    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    hours, steps, indices = {}, {}, {}
    scale = None
    for at, message in messages:
        if (amount := message["observation"].get("precipitation_1h_mm")) is not None:
            here = at.astimezone(local)
            hours[(here.utcoffset(), here.date(), here.hour)] = amount
        for step in message["forecast"]:
            valid = datetime.fromisoformat(step["valid_at"])
            if (
                step["hours"] == 3
                and step["precipitation_mm"] is not None
                and valid.astimezone(local).date().isoformat() == day
            ):
                steps[valid] = step["precipitation_mm"]
        if message["air_quality"] and message["air_quality"]["index"] is not None:
            scale = message["air_quality"]["scale"]
            indices[datetime.fromisoformat(message["air_quality"]["observed_at"])] = (
                scale,
                message["air_quality"]["index"],
            )
    temperatures = all_of("temperature_celsius")
    last = messages[-1][1]
    return {
        "aggregate_version": 1,
        "date": day,
        "station_id": station,
        "city": last["city"],
        "country": last["country"],
        "source": last["source"],
        "observations": len(messages),
        "temperature_avg_celsius": mean(temperatures),
        "temperature_min_celsius": min(temperatures, default=None),
        "temperature_max_celsius": max(temperatures, default=None),
        "precipitation_1h_sum_mm": sum(hours.values()) if hours else None,
        "precipitation_3h_sum_mm": sum(steps.values()) if steps else None,
        "aqi_avg": mean([index for own, index in indices.values() if own == scale]),
        "aqi_scale": scale,
        "humidity_avg_percent": mean(all_of("humidity_percent")),
        "pressure_avg_hpa": mean(all_of("pressure_hpa")),
        "wind_speed_avg_mps": mean(all_of("wind_speed_mps")),
        "wind_direction_mean_degrees": _direction([m["observation"] for _, m in messages]),
        "first_observed_at": messages[0][0].astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "last_observed_at": messages[-1][0].astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def _direction(observations: list[Fields]) -> float | None:
    wind, total = 0j, 0.0
    for item in observations:
        speed, direction = item.get("wind_speed_mps"), item.get("wind_direction_degrees")
        if speed is not None and direction is not None:
            wind += speed * complex(math.cos(math.radians(direction)), math.sin(math.radians(direction)))
            total += speed
    if total == 0 or abs(wind) < 1e-9 * total:
        return None
    return math.degrees(math.atan2(wind.imag, wind.real)) % 360


def assert_close(found: list[Fields], wanted: list[Fields]) -> None:
    """Compare field by field: numbers to 1e-9, angles modulo 360, everything else exactly, the order of fields too."""
    assert [list(item) for item in found] == [list(item) for item in wanted]
    for one, other in zip(found, wanted, strict=True):
        for name, value in other.items():
            if isinstance(value, float) and one[name] is not None:
                apart = abs(one[name] - value)
                if name == "wind_direction_mean_degrees":
                    apart = min(apart, 360 - apart)
                assert apart <= 1e-9 * max(1.0, abs(value)), (name, one, other)
            else:
                assert one[name] == value, (name, one, other)
