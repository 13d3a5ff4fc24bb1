"""The recorded year through every stage, checked against computations that share no code with the product."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import happybase
import pytest

from conftest import Tenant, TenantMaker
from meteo_hadoop.webhdfs import FileSystem

ROWS = 26_115
PARIS = ZoneInfo("Europe/Paris")
STEPS = (("consume", "--until-idle"), ("export", "--once"), ("aggregate", "--changed"), ("reconcile", "--deep"))

# Straight from the CSV: units and limits as design and data set state them, in SQL alone.
RECORDED = """
    CREATE TABLE recorded AS SELECT origin, time_hour::TIMESTAMPTZ AS at,
        strftime(time_hour::TIMESTAMPTZ AT TIME ZONE 'Europe/Paris', '%Y-%m-%d') AS day,
        (temp - 32) / 1.8 AS temperature, humid AS humidity, pressure,
        CASE WHEN wind_speed * 0.44704 <= 115 THEN wind_speed * 0.44704 END AS speed,
        CASE WHEN wind_dir = 360 THEN 0 ELSE wind_dir END AS direction, precip * 25.4 AS rain
    FROM read_csv(?, nullstr = 'NA', types = {'temp': 'DOUBLE', 'humid': 'DOUBLE', 'pressure': 'DOUBLE',
        'wind_speed': 'DOUBLE', 'wind_dir': 'DOUBLE', 'precip': 'DOUBLE', 'time_hour': 'VARCHAR'})
"""
INDEPENDENT = """
    SELECT day, 'replay:' || origin, count(*), avg(temperature), min(temperature), max(temperature), sum(rain),
        avg(humidity), avg(pressure), avg(speed),
        sum(speed * sin(radians(direction))), sum(speed * cos(radians(direction))),
        sum(speed) FILTER (WHERE direction IS NOT NULL)
    FROM recorded GROUP BY ALL ORDER BY ALL
"""

CLIMATE_DAYS = """
    CREATE TABLE climate_days AS SELECT 'replay:' || origin AS station, month(day::DATE) AS month, day,
        count(*) AS number, avg(temperature) AS average, min(temperature) AS lowest, max(temperature) AS highest,
        sum(rain) AS rain
    FROM recorded GROUP BY ALL
"""
CLIMATE_MONTHS = """
    SELECT station, month, 1, count(*), sum(number)::INT, avg(average), min(lowest), max(highest),
        count(rain), count(*) FILTER (rain >= 1)
    FROM climate_days GROUP BY ALL ORDER BY ALL
"""
WINDS = """
    SELECT 'replay:' || origin, floor((direction + 11.25) / 22.5)::INT % 16 AS sector,
        list_sum([(speed >= bound)::INT FOR bound IN [2.1, 3.6, 5.7, 8.8, 11.1]]) AS class, count(*)
    FROM recorded WHERE speed >= 0.5 AND direction IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
STILL = """
    SELECT 'replay:' || origin, count(*) FILTER (speed < 0.5), count(*) FILTER (speed >= 0.5 AND direction IS NULL)
    FROM recorded GROUP BY ALL ORDER BY ALL
"""


def csv_path() -> str:
    folder = resources.files("meteo_producer") / "data"
    (path,) = [str(file) for file in folder.iterdir() if file.name.endswith(".csv.gz")]
    return path


def read_tier(tenant: Tenant) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, list[bytes]]]:
    """Return (day of the directory, file, row) of every line in HDFS, and each day's aggregates as lines."""
    filesystem, base = FileSystem(tenant.settings), tenant.settings.hdfs_base_path
    rows, aggregates = [], {}
    for directory in filesystem.list(base):
        day = directory.name.removeprefix("dt=")
        for entry in filesystem.list(f"{base}/{directory.name}"):
            path = f"{base}/{directory.name}/{entry.name}"
            if entry.name.startswith("weather_"):
                rows += [(day, entry.name, json.loads(line)) for line in filesystem.read(path).splitlines()]
            elif entry.name == "aggregates.jsonl":
                aggregates[day] = filesystem.read(path).splitlines()
    return rows, aggregates


@pytest.fixture(scope="module")
def replayed(make_tenant: TenantMaker) -> Tenant:
    tenant = make_tenant()
    tenant.meteo("produce", "--source", "replay")
    for step in STEPS:
        tenant.meteo(*step)
    return tenant


@pytest.fixture(scope="module")
def tier(replayed: Tenant) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, list[bytes]]]:
    return read_tier(replayed)


def test_every_row_is_in_exactly_one_file_of_its_paris_day(replayed: Tenant, tier: Any) -> None:
    rows, _ = tier
    assert len(rows) == ROWS
    records = Counter((row["partition"], row["msg_offset"]) for _, _, row in rows)
    assert set(records.values()) == {1}
    for day, _, row in rows:
        observed = datetime.fromisoformat(row["value"]["observed_at"])
        assert row["date_time"] == row["value"]["observed_at"]
        assert observed.astimezone(PARIS).date().isoformat() == day
    assert replayed.query("SELECT count(*), count(DISTINCT (partition, msg_offset)) FROM weather") == [(ROWS, ROWS)]


def test_there_are_365_days(tier: Any) -> None:
    _, aggregates = tier
    first = datetime(2013, 1, 1, tzinfo=UTC)
    assert sorted(aggregates) == [(first + timedelta(days=number)).date().isoformat() for number in range(365)]


def test_aggregates_equal_an_independent_computation_from_the_csv(tier: Any) -> None:
    _, aggregates = tier
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.execute(RECORDED, [csv_path()])
    expected = database.execute(INDEPENDENT).fetchall()
    found = [json.loads(line) for day in sorted(aggregates) for line in aggregates[day]]
    assert [(row["date"], row["station_id"], row["observations"]) for row in found] == [row[:3] for row in expected]
    assert sum(row["observations"] for row in found) == ROWS
    names = (
        "temperature_avg_celsius",
        "temperature_min_celsius",
        "temperature_max_celsius",
        "precipitation_1h_sum_mm",
        "humidity_avg_percent",
        "pressure_avg_hpa",
        "wind_speed_avg_mps",
    )
    for row, (*_, east, north, speed), values in zip(found, expected, (row[3:10] for row in expected), strict=True):
        for name, value in zip(names, values, strict=True):
            assert row[name] == pytest.approx(value, abs=1e-9), (row["date"], row["station_id"], name)
        if not speed or math.hypot(east, north) < 1e-9 * speed:
            assert row["wind_direction_mean_degrees"] is None
        else:
            difference = row["wind_direction_mean_degrees"] - math.degrees(math.atan2(east, north))
            assert abs((difference + 180) % 360 - 180) < 1e-9
            assert 0 <= row["wind_direction_mean_degrees"] < 360


def test_the_climate_equals_an_independent_computation_from_the_csv(replayed: Tenant) -> None:
    replayed.meteo("climate")
    content = FileSystem(replayed.settings).read(f"{replayed.settings.hdfs_base_path}_climate/climate.jsonl")
    found = [json.loads(line) for line in content.splitlines()]
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    database.execute(RECORDED, [csv_path()])
    database.execute(CLIMATE_DAYS)
    months = [(item["station_id"], *month.values()) for item in found for month in item["months"]]
    expected = database.execute(CLIMATE_MONTHS).fetchall()
    assert len(expected) == 3 * 12
    for month, wanted in zip(months, expected, strict=True):
        assert month == tuple(pytest.approx(value, abs=1e-9) if isinstance(value, float) else value for value in wanted)
    roses = {item["station_id"]: item["wind_rose"] for item in found}
    counted = [
        (station, sector, speed, number)
        for station, rose in roses.items()
        for sector, classes in enumerate(rose["sectors"].values())
        for speed, number in enumerate(classes)
        if number
    ]
    assert counted == database.execute(WINDS).fetchall()
    still = [(station, rose["calm"], rose["without_direction"]) for station, rose in roses.items()]
    assert still == database.execute(STILL).fetchall()


def test_hours_are_counted_by_their_utc_offset(tier: Any) -> None:
    """The CSV by itself: how many observations the short and the long day of Paris must have."""
    expected: dict[str, int] = defaultdict(int)
    with gzip.open(csv_path(), "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["time_hour"]).astimezone(PARIS)
            expected[at.date().isoformat()] += 1
    _, aggregates = tier
    for day in ("2013-03-31", "2013-10-27"):
        assert sum(json.loads(line)["observations"] for line in aggregates[day]) == expected[day]
    assert expected["2013-03-31"] == 3 * 23


def test_hbase_holds_the_aggregates(replayed: Tenant, tier: Any) -> None:
    _, aggregates = tier
    connection = happybase.Connection(replayed.settings.hbase_host, replayed.settings.hbase_port)
    try:
        stored = dict(connection.table(replayed.settings.hbase_table).scan())
    finally:
        connection.close()
    lines = [json.loads(line) for found in aggregates.values() for line in found]
    assert len(stored) == len(lines) == 3 * 365
    for row in lines:
        cells = stored[f"{row['station_id']}#{row['date']}".encode()]
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
        expected = {f"aggregates:{name}".encode(): texts[name].encode() for name in row if row[name] is not None}
        assert cells == expected


def test_yarn_and_local_are_byte_identical(replayed: Tenant, tier: Any) -> None:
    _, before = tier
    replayed.meteo("aggregate", "--all", "--engine", "yarn")
    _, after = read_tier(replayed)
    assert after == before
    assert "0 pending, 0 mismatches" in replayed.meteo("reconcile")


def test_doing_it_all_again_changes_no_aggregate(replayed: Tenant, tier: Any) -> None:
    _, before = tier
    replayed.meteo("produce", "--source", "replay")
    for step in STEPS:
        replayed.meteo(*step)
    rows, after = read_tier(replayed)
    assert after == before
    assert len(rows) == 2 * ROWS
