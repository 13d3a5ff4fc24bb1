"""The peer `json`: the daily aggregates in steps of `JSON key, tab, JSON value`, read and written by `json` alone.

    cat weather_*.json | python json_steps.py mapper ZONE | LC_ALL=C sort | python json_steps.py reducer ZONE

So do frameworks that take any value between their steps by default. The formulas are the platform's own. Generous: it
validates nothing, and only the fields that the formulas need go from step to step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

from meteo_hadoop.formulas import aggregates, line_of
from meteo_hadoop.local_time import local_time

MEASURED = (
    "temperature_celsius",
    "humidity_percent",
    "pressure_hpa",
    "wind_speed_mps",
    "wind_direction_degrees",
    "precipitation_1h_mm",
)
KEPT = ("normaliser_version", "source", "city", "country", "collected_at", "air_quality")


def mapper(zone: str) -> None:
    """Write `[day, station_id]` and the message's fields for each row."""
    time = local_time(zone)
    for line in sys.stdin:
        row = json.loads(line)
        message = row["value"]
        day, observed_at = time.place(row["date_time"])
        value = {name: message[name] for name in KEPT}
        value["at"] = observed_at
        value["place"] = [row.get("topic_generation", 1), row["partition"], row["msg_offset"]]
        value["observation"] = {name: message["observation"][name] for name in MEASURED}
        value["forecast"] = [
            step
            for step in message["forecast"]
            if step["hours"] == 3 and time.day_of(datetime.fromisoformat(step["valid_at"])) == day
        ]
        sys.stdout.write(f"{json.dumps([day, message['station_id']])}\t{json.dumps(value)}\n")


def reducer(zone: str) -> None:
    """Write the aggregates of each key."""
    time = local_time(zone)
    for (day, station_id), members in groupby(_records(), key=itemgetter(0)):
        winners: dict[str, Any] = {}
        for _, value in members:
            held = winners.get(value["at"])
            if held is None or _order(held) < _order(value):
                winners[value["at"]] = value
        records = [(at, _message(winners[at])) for at in sorted(winners)]
        sys.stdout.write(line_of(aggregates(day, station_id, records, time)).decode() + "\n")


def _records() -> Iterator[tuple[Any, Any]]:
    for line in sys.stdin:
        key, value = line.split("\t")
        yield json.loads(key), json.loads(value)


def _order(value: dict[str, Any]) -> tuple[Any, ...]:
    return datetime.fromisoformat(value["collected_at"]), value["normaliser_version"], *value["place"]


def _message(value: dict[str, Any]) -> Any:
    air = value["air_quality"]
    return SimpleNamespace(
        city=value["city"],
        country=value["country"],
        source=value["source"],
        observation=SimpleNamespace(**value["observation"]),
        air_quality=air and SimpleNamespace(**air),
        forecast=[SimpleNamespace(**step) for step in value["forecast"]],
    )


if __name__ == "__main__":
    {"mapper": mapper, "reducer": reducer}[sys.argv[1]](sys.argv[2])
