"""The station climate: by hand, by an independent computation, and the same bytes on every engine."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from weather_rows import PARIS, compute, random_rows, row

from meteo_hadoop.bundle import pack
from meteo_hadoop.climate import SECTORS, SPEED_BOUNDS_MPS, climate_job, sector
from meteo_hadoop.job import gather, reduce_groups
from meteo_hadoop.local import LocalEngine

JOB = climate_job(PARIS)


def years(seed: int = 3, number: int = 3000) -> list[bytes]:
    """Rows of all months of two years, and many of a few days around the end of summer time; some twice."""
    chance = random.Random(seed)  # noqa: S311
    lines = random_rows(seed, number // 2)
    for offset in range(number // 2):
        at = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=chance.randrange(2 * 8760))
        wet, windy, known = (chance.random() < share for share in (0.3, 0.7, 0.9))
        lines.append(
            row(
                at.isoformat().replace("+00:00", "Z"),
                station=f"test:{chance.choice('ABD')}",
                msg_offset=10_000 + offset,
                observation={
                    "temperature_celsius": chance.uniform(-20, 40) if known else None,
                    "precipitation_1h_mm": chance.choice([0.0, 0.4, 0.5, 1.0, 3.3]) if wet else None,
                    "wind_speed_mps": chance.choice([0, 0.49, *SPEED_BOUNDS_MPS, chance.uniform(0, 30)]),
                    "wind_direction_degrees": chance.choice([0, 11.25, 348.75, 360, chance.uniform(0, 360)])
                    if windy
                    else None,
                },
            )
        )
    return lines


LINES = years()


def reference(lines: list[bytes]) -> bytes:
    return as_text(reduce_groups(JOB, gather(JOB, lines, lambda *_: None)))


def as_text(result: list[tuple[tuple[str, ...], bytes]]) -> bytes:
    return b"".join("\t".join(key).encode() + b"\t" + line + b"\n" for key, line in result)


def only(lines: list[bytes]) -> dict[str, Any]:
    (fields,), counters = compute(lines, JOB)
    assert counters == {"lines": len(lines)}
    return fields


def test_a_climate_worked_out_by_hand() -> None:
    def seen(at: str, **observation: float) -> bytes:
        return row(at, observation=observation)

    fields = only(
        [
            # Of January: a day of 10 °C on the mean, one of 20 °C in another year.
            seen("2025-01-10T10:00:00Z", temperature_celsius=5, precipitation_1h_mm=0.6, wind_speed_mps=3),
            seen("2025-01-10T11:00:00Z", temperature_celsius=15, precipitation_1h_mm=0.4, wind_speed_mps=0.2),
            seen("2026-01-10T11:00:00Z", temperature_celsius=20, precipitation_1h_mm=0.9),
            # 2026-01-31T23:00Z is February in Paris; its hour's last amount counts alone.
            seen("2026-01-31T23:00:00Z", precipitation_1h_mm=5, wind_speed_mps=2.1, wind_direction_degrees=348.75),
            seen("2026-01-31T23:10:00Z", precipitation_1h_mm=0.5, wind_speed_mps=20, wind_direction_degrees=11.25),
        ]
    )
    assert list(fields) == [
        *("climate_version", "station_id", "city", "country", "source", "first_date", "last_date"),
        *("days", "observations", "months", "wind_rose"),
    ]
    assert (fields["first_date"], fields["last_date"]) == ("2025-01-10", "2026-02-01")
    assert (fields["days"], fields["observations"]) == (3, 5)
    assert fields["months"] == [
        {
            "month": 1,
            "years": 2,
            "days": 2,
            "observations": 3,
            "temperature_avg_celsius": 15.0,
            "temperature_min_celsius": 5.0,
            "temperature_max_celsius": 20.0,
            "precipitation_days": 2,
            "rain_days": 1,
        },
        {
            "month": 2,
            "years": 1,
            "days": 1,
            "observations": 2,
            "temperature_avg_celsius": None,
            "temperature_min_celsius": None,
            "temperature_max_celsius": None,
            "precipitation_days": 1,
            "rain_days": 0,
        },
    ]
    rose = fields["wind_rose"]
    assert (rose["calm"], rose["without_direction"]) == (1, 1)
    blowing = {name: classes for name, classes in rose["sectors"].items() if any(classes)}
    assert blowing == {"N": [0, 1, 0, 0, 0, 0], "NNE": [0, 0, 0, 0, 0, 1]}


def test_place_names_are_those_of_the_last_observation() -> None:
    lines = [row("2026-11-20T10:00:00Z", city="Lutèce"), row("2026-11-21T10:00:00Z"), row("2026-11-19T10:00:00Z")]
    assert only(lines)["city"] == "Paris"
    assert only([*lines, row("2026-11-22T10:00:00Z", city="Париж", country=None)])["city"] == "Париж"


def test_sectors_include_their_first_edge() -> None:
    assert [sector(22.5 * number) for number in range(17)] == [*range(16), 0]
    assert [SECTORS[sector(degrees)] for degrees in (11.24, 11.25, 348.74, 348.75, 360)] == [
        *("N", "NNE", "NNW", "N", "N"),
    ]  # fmt: skip


def test_a_bad_line_is_counted_and_fails_nothing() -> None:
    found, counters = compute([b"nonsense", row("2026-11-20T10:00:00Z")], JOB)
    assert [item["observations"] for item in found] == [1]
    assert counters == {"lines": 2, "bad_json": 1}


class Memory:
    def __init__(self, lines: list[bytes], folders: int) -> None:
        self.files = {f"/w/f{n}/{n}.json": b"\n".join(lines[n::folders]) for n in range(folders)}

    def open(self, path: str) -> Any:
        yield self.files[path]


@pytest.mark.parametrize("processes", [1, 2])
def test_local_reads_each_file_once(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr("meteo_hadoop.local.POOL_FROM_SECONDS", 0.0)
    monkeypatch.setattr("meteo_hadoop.local.TASK_FILES", 2)
    memory, read = Memory(LINES, folders=7), list[int]()
    result = LocalEngine(memory, processes=processes, progress=read.append).run(JOB, list(memory.files))
    assert as_text(result.lines) == reference(LINES)
    assert (sum(read), result.counters) == (7, {"lines": len(LINES)})


@pytest.mark.parametrize("node", ["by hand", "packed", "packed, without msgspec"])
def test_piped_through_sort(tmp_path: Path, node: str) -> None:
    if node == "by hand":
        command, environment = [sys.executable, "-m", "meteo_hadoop.streaming"], dict(os.environ)
        options = ["climate", "--zone", PARIS]
    else:
        pack(JOB, tmp_path / "job.zip")
        subprocess.run([sys.executable, "-m", "zipfile", "-e", "job.zip", "job"], cwd=tmp_path, check=True)
        if node != "packed":
            for file in (tmp_path / "job/msgspec").glob("*.so"):
                file.unlink()
        # Isolated from this environment's packages and from the machine's time zones.
        command, environment = [sys.executable, "-S", "-E", str(tmp_path / "job")], {"PATH": os.environ["PATH"]}
        options = []

    def role(name: str, content: bytes) -> bytes:
        return subprocess.run(
            [*command, name, *options], input=content, capture_output=True, env=environment, check=True
        ).stdout

    shares = [LINES[first::3] for first in range(3)]
    mapped = b"".join(role("mapper", b"\n".join(share) + b"\n") for share in shares)
    ordered = subprocess.run(["sort"], input=mapped, capture_output=True, env={"LC_ALL": "C"}, check=True).stdout
    assert role("reducer", ordered) == reference(LINES)


DUCKDB = """
    SET timezone = 'Europe/Paris';
    CREATE TABLE winners AS
        SELECT instant, instant::DATE AS day, month(instant::DATE) AS month, value.station_id AS station,
            value.observation AS seen
        FROM (SELECT date_time::TIMESTAMPTZ AS instant, * FROM read_json(?, format = 'nd', columns = {
            date_time: 'VARCHAR', partition: 'INT', msg_offset: 'BIGINT', topic_generation: 'INT',
            value: 'STRUCT(station_id VARCHAR, collected_at VARCHAR, normaliser_version INT, observation STRUCT(
                temperature_celsius DOUBLE, precipitation_1h_mm DOUBLE, wind_speed_mps DOUBLE,
                wind_direction_degrees DOUBLE))'}))
        QUALIFY row_number() OVER (PARTITION BY value.station_id, instant ORDER BY
            value.collected_at::TIMESTAMPTZ DESC, value.normaliser_version DESC,
            coalesce(topic_generation, 1) DESC, partition DESC, msg_offset DESC) = 1;
    CREATE TABLE rain AS SELECT station, day, sum(mm) AS mm FROM (
        SELECT station, day, arg_max(seen.precipitation_1h_mm, instant) AS mm FROM winners
        WHERE seen.precipitation_1h_mm IS NOT NULL GROUP BY station, day, epoch(instant)::BIGINT // 3600
    ) GROUP BY ALL;
    CREATE TABLE days AS SELECT station, month, day, count(*) AS observations, fsum(seen.temperature_celsius)
            / count(seen.temperature_celsius) AS average, min(seen.temperature_celsius) AS lowest,
            max(seen.temperature_celsius) AS highest FROM winners GROUP BY ALL;
"""
MONTHS = """
    SELECT station, month, count(DISTINCT year(day)), count(*), sum(observations)::INT, fsum(average) / count(average),
        min(lowest), max(highest), count(mm), count(*) FILTER (mm >= 1.0)
    FROM days LEFT JOIN rain USING (station, day) GROUP BY ALL ORDER BY ALL
"""
# By distance from the middle of each sector, not by its edges.
ROSE = """
    SELECT station, (SELECT min(n) FROM range(16) AS t(n) WHERE abs((seen.wind_direction_degrees - 22.5 * n + 540) % 360
            - 180) < 11.25 OR (seen.wind_direction_degrees - 22.5 * n + 360) % 360 = 348.75) AS sector,
        CASE WHEN v < 2.1 THEN 0 WHEN v < 3.6 THEN 1 WHEN v < 5.7 THEN 2 WHEN v < 8.8 THEN 3 WHEN v < 11.1 THEN 4
            ELSE 5 END AS class, count(*)
    FROM (SELECT *, seen.wind_speed_mps AS v FROM winners)
    WHERE v >= 0.5 AND seen.wind_direction_degrees IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
STILL = """
    SELECT station, count(*) FILTER (seen.wind_speed_mps < 0.5),
        count(*) FILTER (seen.wind_speed_mps >= 0.5 AND seen.wind_direction_degrees IS NULL)
    FROM winners GROUP BY ALL ORDER BY ALL
"""


def test_duckdb_agrees(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b"\n".join(LINES) + b"\n")
    database = duckdb.connect()
    database.execute(DUCKDB.replace("?", f"'{tmp_path}/rows.json'"))
    found, _ = compute(LINES, JOB)
    months = [(item["station_id"], *month.values()) for item in found for month in item["months"]]
    wanted = database.execute(MONTHS).fetchall()
    assert len(months) > 30
    assert months == [
        tuple(pytest.approx(value, abs=1e-9) if isinstance(value, float) else value for value in line)
        for line in wanted
    ]
    rose = [
        (item["station_id"], number, speed, count)
        for item in found
        for number, name in enumerate(SECTORS)
        for speed, count in enumerate(item["wind_rose"]["sectors"][name])
        if count
    ]
    assert rose == database.execute(ROSE).fetchall()
    still = [(item["station_id"], item["wind_rose"]["calm"], item["wind_rose"]["without_direction"]) for item in found]
    assert still == database.execute(STILL).fetchall()


def test_days_are_those_of_the_local_calendar() -> None:
    fields = only([row("2025-12-31T23:00:00Z"), row("2026-01-01T22:59:59Z")])
    assert (fields["days"], fields["first_date"]) == (1, date(2026, 1, 1).isoformat())


def test_of_no_line_there_is_no_climate() -> None:
    assert compute([], JOB)[0] == []
    assert json.loads(json.dumps(SPEED_BOUNDS_MPS)) == sorted(set(SPEED_BOUNDS_MPS))
