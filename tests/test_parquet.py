"""Past days as Parquet: read by DuckDB and pandas, equal to the aggregates, written again for late rows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import tiers

from conftest import Tenant
from meteo_common.failpoints import FAILPOINTS
from meteo_hadoop.parquet import parquet_days
from meteo_hadoop.webhdfs import FileSystem

DAY = "2013-03-30"
SLICE = ("2013-03-29", "2013-03-31")


def download(tenant: Tenant, folder: Path) -> str:
    """Copy all Parquet files and return a pattern of their paths."""
    days = parquet_days(FileSystem(tenant.settings), tenant.settings)
    for day in days.listed():
        path = folder / f"dt={day}" / "weather.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(days.filesystem.read(days.path(day, path.name)))
    return str(folder / "*" / "weather.parquet")


def grow(tenant: Tenant, *days: str) -> int:
    records = tiers.publish(tenant, *(days or SLICE))
    tiers.consume(tenant)
    tiers.export(tenant)
    return records


def aggregates(tenant: Tenant) -> list[dict[str, Any]]:
    content = tiers.read_aggregates(tenant)
    return [row for day in sorted(content) for row in map(json.loads, content[day].splitlines())]


def assert_equal(tenant: Tenant, pattern: str) -> None:
    """Fail unless DuckDB computes from the Parquet what the aggregation computed from the rows."""
    expected = aggregates(tenant)
    found = duckdb.sql(
        f"""SELECT dt::VARCHAR AS date, station_id, count(*), avg(temperature_celsius), min(temperature_celsius),
                max(temperature_celsius), avg(pressure_hpa), avg(wind_speed_mps)
            FROM read_parquet('{pattern}', hive_partitioning = true) GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    fields = ("temperature_avg_celsius", "temperature_min_celsius", "temperature_max_celsius")
    fields += ("pressure_avg_hpa", "wind_speed_avg_mps")
    assert [row[:3] for row in found] == [(row["date"], row["station_id"], row["observations"]) for row in expected]
    for row, line in zip(found, expected, strict=True):
        assert list(row[3:]) == pytest.approx([line[name] for name in fields], abs=1e-9, nan_ok=False)


def test_analysts_read_typed_columns_that_agree_with_the_aggregates(tenant: Tenant, tmp_path: Path) -> None:
    grow(tenant)
    grow(tenant)
    told = tenant.meteo("export", "--compact")
    tiers.aggregate(tenant)
    assert f"wrote the Parquet of {len(tiers.read_days(tenant))} days" in told
    pattern = download(tenant, tmp_path)
    assert_equal(tenant, pattern)
    types = {name: kind for name, kind, *_ in duckdb.sql(f"DESCRIBE SELECT * FROM '{pattern}'").fetchall()}
    assert types["observed_at"] == types["sunrise"] == "TIMESTAMP WITH TIME ZONE"
    assert types["temperature_celsius"] == types["air_quality_index"] == "DOUBLE"
    assert types["station_id"] == types["condition"] == "VARCHAR"
    assert types["quality"] == "VARCHAR[]"
    frame = pd.read_parquet(tmp_path / f"dt={DAY}" / "weather.parquet")
    assert str(frame["observed_at"].dtype) == "datetime64[us, UTC]"
    assert frame["temperature_celsius"].dtype == "float64"
    assert frame[["station_id", "observed_at"]].apply(tuple, axis=1).is_monotonic_increasing
    assert not frame.duplicated(["station_id", "observed_at"]).any()
    local = frame["observed_at"].dt.tz_convert(tenant.settings.weather_timezone)
    assert set(local.dt.date.map(str)) == {DAY}
    # Every field that the winner's message has.
    winner = frame[frame["station_id"] == "replay:JFK"].iloc[0]
    ((value,),) = tenant.query(
        "SELECT value FROM weather WHERE partition = %s AND msg_offset = %s",
        int(winner["partition"]),
        int(winner["msg_offset"]),
    )
    assert isinstance(value, dict)
    for name, measured in value["observation"].items():
        assert winner[name] == measured or (pd.isna(winner[name]) and measured is None), name
    assert winner["observed_at"] == pd.Timestamp(value["observed_at"])
    assert tenant.meteo("export", "--compact").endswith("wrote the Parquet of 0 days\n")


def test_late_rows_and_better_messages_make_it_anew(tenant: Tenant, tmp_path: Path) -> None:
    grow(tenant, DAY, DAY)
    tenant.meteo("export", "--compact")
    message = tiers.recorded_message(DAY)
    message["collected_at"] = "2013-06-01T00:00:00Z"
    message["observation"]["temperature_celsius"] = 39.5
    tiers.send(tenant, [json.dumps(message).encode()])
    late = {**message, "observed_at": "2013-03-30T12:34:56.789012Z", "air_quality": None}
    late["sun"] = {"sunrise": "2013-03-30T10:46:00Z", "sunset": None}
    tiers.send(tenant, [json.dumps(late).encode()])
    tiers.consume(tenant)
    tenant.meteo("export")  # without --compact: the day's Parquet was stale
    tiers.aggregate(tenant)
    pattern = download(tenant, tmp_path)
    assert_equal(tenant, pattern)
    query = f"SELECT epoch_us(observed_at), sunrise FROM '{pattern}' WHERE temperature_celsius = 39.5 ORDER BY 1"
    times = [pd.Timestamp(instant["observed_at"]) for instant in (message, late)]
    found = duckdb.sql(query).fetchall()
    assert [pd.Timestamp(microseconds, unit="us", tz="UTC") for microseconds, _ in found] == sorted(times)
    assert [sunrise is not None for _, sunrise in found].count(True) == 1


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("parquet.")])
def test_a_killed_writer_is_made_good_by_the_next_run(tenant: Tenant, tmp_path: Path, name: str) -> None:
    grow(tenant)
    process = tiers.start(tenant, "export", "--compact", extra={"METEO_FAILPOINT": name})
    assert process.wait(60) == -signal.SIGKILL
    tenant.meteo("export", "--compact")
    tiers.aggregate(tenant)
    assert_equal(tenant, download(tenant, tmp_path))


def test_pyarrow_is_imported_only_to_write() -> None:
    program = "import sys, meteo_hadoop.export, meteo_hadoop.compact; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
