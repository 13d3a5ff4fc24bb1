"""Days' files as the export writes them, on the local disk: recorded answers, their times, places and values varied."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from benchmarks.servers import PARTITIONS
from benchmarks.workload import SEED, STEP, small_answers
from meteo_common.message import encode

ZONE = "Europe/Paris"
DAYS = 24
FIRST = datetime(2026, 3, 19, 23, tzinfo=UTC)
"""Midnight in Paris; on the tenth of the days summer time begins."""
POLLS = DAYS * (timedelta(days=1) // STEP)
TWICE = 0.01
"""The share of polls that were made twice, so that there is a winner to find."""
FORECAST_EVERY = 6
"""Each so many polls have a forecast and the air quality: the platform asks for them once an hour."""
Fields = dict[str, Any]


def write_days(folder: Path, number: int) -> dict[str, int]:
    """Write `number` rows into folders of 24 days, one file for each day and partition; return bytes by path.

    Whatever the number, there are as many days and files: it is the stations that become more.
    """
    sizes: dict[str, int] = {}
    ends = Counter[int]()
    for day, rows in groupby(islice(_rows(stations_of(number)), number), key=itemgetter(0)):
        files: dict[int, list[str]] = defaultdict(list)
        begins = Counter(ends)
        for _, partition, text in rows:
            files[partition].append(text % ends[partition])
            ends[partition] += 1
        for partition, lines in files.items():
            path = folder / f"dt={day}" / f"weather_p{partition}_{begins[partition]}-{ends[partition]}.json"
            path.parent.mkdir(exist_ok=True)
            sizes[str(path)] = path.write_bytes("".join(lines).encode())
    return sizes


def stations_of(number: int) -> int:
    """Return how many stations are polled for so many rows."""
    return max(1, -(-number // POLLS))


def _rows(stations: int) -> Iterator[tuple[str, int, str]]:
    """Yield (local day, partition, line with a place for the offset), in the order of time."""
    chance = random.Random(SEED)  # noqa: S311
    zone = ZoneInfo(ZONE)
    source, answers = small_answers()
    # Ordered once: what is changed later stays in its place.
    message = _ordered(msgspec.json.decode(encode(source.normalise(answers))))
    raw = message["raw"]["current"]
    prefix = f"{source.name}:"
    for turn in range(POLLS):
        for station in range(stations):
            at = FIRST + turn * STEP + timedelta(seconds=station)
            seconds = chance.randrange(1, 200)
            message["station_id"] = f"{prefix}{3_000_000 + station}"
            message["city"] = f"Place {station}"
            message["observed_at"] = _text(at)
            _vary(message, raw, chance)
            _expect(message, at, chance, asked=(turn + station) % FORECAST_EVERY == 0)
            day = at.astimezone(zone).date().isoformat()
            for again in range(2 if chance.random() < TWICE else 1):
                message["collected_at"] = _text(at + timedelta(seconds=seconds + 200 * again))
                yield day, station % PARTITIONS, _line(station % PARTITIONS, message)
                message["observation"]["temperature_celsius"] = round(chance.uniform(-20, 40), 2)


def _vary(message: Fields, raw: Fields, chance: random.Random) -> None:
    """Give a message values of its own, some of them not said."""
    rain = round(chance.expovariate(1.0), 2) if chance.random() < 0.3 else 0.0
    direction = float(chance.randrange(360))
    temperature = round(chance.uniform(-20, 40), 2)
    message["observation"] |= {
        "temperature_celsius": temperature,
        "humidity_percent": chance.randrange(20, 100) if chance.random() < 0.98 else None,
        "pressure_hpa": round(chance.uniform(980, 1040), 1),
        "wind_speed_mps": round(chance.uniform(0, 20), 2),
        "wind_direction_degrees": direction if chance.random() < 0.98 else None,
        "precipitation_1h_mm": rain if chance.random() < 0.98 else None,
    }
    raw["main"]["temp"], raw["wind"]["deg"], raw["rain"]["1h"] = temperature, int(direction), rain


def _expect(message: Fields, at: datetime, chance: random.Random, *, asked: bool) -> None:
    """Give a message the forecast's next two steps and the air quality, or neither."""
    message["forecast"], message["air_quality"] = [], None
    if not asked:
        return
    hour = at.replace(minute=0, second=0)
    next_step = hour - timedelta(hours=hour.hour % 3) + timedelta(hours=3)
    message["forecast"] = [
        {
            "hours": 3,
            "valid_at": _text(next_step + timedelta(hours=hours)),
            "precipitation_mm": round(chance.expovariate(1.0), 1),
            "temperature_celsius": round(chance.uniform(-20, 40), 1),
        }
        for hours in (0, 3)
    ]
    message["air_quality"] = {
        "index": chance.randrange(1, 6),
        "scale": "openweather",
        "observed_at": _text(hour),
        "components_ugm3": {"pm2_5": round(chance.uniform(0, 60), 2)},
    }


def _line(partition: int, message: Fields) -> str:
    """Return a line as the export writes it, `%d` in place of its offset."""
    value = msgspec.json.format(msgspec.json.encode(message), indent=0).decode().replace("%", "%%")
    return (
        f'{{"date_time": "{message["observed_at"]}", "partition": {partition}, "msg_offset": %d, "value": {value}}}\n'
    )


def _ordered(value: Any) -> Any:
    """Return the value as JSONB shows it: shorter keys first, then by their bytes."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (len(key.encode()), key.encode()))}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _text(at: datetime) -> str:
    return f"{at.isoformat()[:19]}Z"
