"""Each benchmark runs, in places of its own that it removes again, and writes the ratios that it promises.

No figure is asserted: on a busy machine any may be had.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import posixpath
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import happybase
import psycopg2
import pytest
from kafka import KafkaAdminClient

from meteo_common.errors import TerminalError
from meteo_common.settings import Settings
from meteo_hadoop.engines import YARN_FROM_BYTES
from meteo_hadoop.webhdfs import FileSystem

ROOT = Path(__file__).parents[1]
METEO = Path(sys.executable).parent / "meteo"
RATIOS = {
    "aggregate": {"ratio_to_duckdb", "ratio_to_json_steps"},
    "export": {"ratio_to_pipe", "ratio_to_rows"},
    "growth": {"yarn_over_local_20", "yarn_over_local_2000"},
    "hbase": {"ratio_to_single_puts"},
    "indexes": {"ratio_of_station_to_record", "ratio_of_quality_to_station"},
    "ingest": {"ratio_to_limits", "ratio_to_insert", "ratio_of_two_to_one"},
    "latency": {"p99_over_floor"},
    "produce": {"ratio_to_client"},
}
SMALL = {
    "aggregate": "2000",
    "export": "2000",
    "growth": "2000",
    "hbase": "2400",
    "indexes": "2000",
    "ingest": "2000",
    "latency": "200",
    "produce": "1",
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([METEO, "bench", *arguments], capture_output=True, text=True, timeout=240, check=False)


def left_behind(settings: Settings) -> set[str]:
    """Databases and topics, directories of HDFS and tables of HBase that benchmarks made."""
    connection = psycopg2.connect(settings.database_url.get_secret_value())
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'bench\\_%'")
        databases = {str(name) for (name,) in cursor.fetchall()}
    connection.close()
    admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers.split(","))
    topics = {topic for topic in admin.list_topics() if topic.startswith("bench-")}
    admin.close()
    entries = FileSystem(settings).list(posixpath.dirname(settings.hdfs_base_path))
    directories = {entry.name for entry in entries if entry.name.startswith("bench_")}
    with closing(happybase.Connection(settings.hbase_host, settings.hbase_port)) as hbase:
        tables = {name.decode() for name in hbase.tables() if name.startswith(b"bench_")}
    directories |= {entry.name for entry in FileSystem(settings).list("/tmp") if entry.name.startswith("_bench_")}
    return databases | topics | directories | tables


@pytest.mark.parametrize("name", RATIOS)
def test_benchmark_writes_its_ratios(name: str, settings: Settings, tmp_path: Path) -> None:
    before = left_behind(settings)
    file = tmp_path / "result.json"
    ran = bench(name, "--runs", "1", "--messages", SMALL[name], "--without-peer", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(file.read_text("utf-8"))
    assert result["bench"] == name
    assert set(result) == {"bench", "machine", "runs", "figures", "ratios", "notes"}
    assert len(result["runs"]) == 1
    assert RATIOS[name] <= set(result["ratios"])
    for ratio in result["ratios"].values():
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    assert left_behind(settings) <= before


def test_aggregate_on_yarn_is_compared_with_a_job_that_only_passes_lines_on(settings: Settings, tmp_path: Path) -> None:
    before = left_behind(settings)
    file = tmp_path / "result.json"
    ran = bench("aggregate", "--engine", "yarn", "--runs", "1", "--messages", "2000", "--json", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads(file.read_text("utf-8"))
    assert result["bench"] == "aggregate-yarn"
    assert result["ratios"]["ratio_to_identity"]["median"] > 0
    assert left_behind(settings) <= before


def test_days_are_written_as_the_export_writes_them(settings: Settings, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT))
    write_days = importlib.import_module("benchmarks.days").write_days
    sizes = write_days(tmp_path, 500)
    connection = psycopg2.connect(settings.database_url.get_secret_value())
    with connection.cursor() as cursor:
        for path in sizes:
            for line in Path(path).read_text("utf-8").splitlines():
                head, _, value = line.partition(', "value": ')
                assert list(json.loads(f"{head}}}")) == ["date_time", "partition", "msg_offset"]
                cursor.execute("SELECT %s::jsonb::text", [value[:-1]])
                assert cursor.fetchone() == (value[:-1],)
    connection.close()


@pytest.mark.parametrize(
    ("field", "value"), [("observations", 4), ("aqi_avg", None), ("city", "Rome"), ("wind_direction_mean_degrees", 1.0)]
)
def test_arms_that_compute_something_else_are_refused(field: str, value: object) -> None:
    sys.path.insert(0, str(ROOT))
    check = importlib.import_module("benchmarks.same").check
    right = {"date": "2026-03-20", "station_id": "a:1", "observations": 3, "aqi_avg": 2.5, "city": "Oslo"}
    right["wind_direction_mean_degrees"] = 359.9999999999
    check("other", [right | {"aqi_avg": 2.5 + 1e-12, "wind_direction_mean_degrees": 1e-10}], [right])
    with pytest.raises(TerminalError, match=f"other returned {field} "):
        check("other", [right | {field: value}], [right])
    with pytest.raises(TerminalError, match="returned 0 lines"):
        check("other", [], [right])


def test_unknown_benchmark_is_told_which_there_are() -> None:
    ran = bench("nothing")
    assert ran.returncode == 2
    assert ran.stderr.strip() == f"error: The benchmark 'nothing' is unknown; expected one of {', '.join(RATIOS)}."


def test_readme_says_from_what_size_on_yarn_is_chosen() -> None:
    assert f"YARN from {YARN_FROM_BYTES >> 30} GB on" in (ROOT / "README.md").read_text("utf-8")


def test_page_says_what_the_result_files_say() -> None:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    assert report.PAGE.read_text("utf-8") == report.page(), "run benchmarks/report.py"
    picture = report.growth_picture
    if picture.RESULT.is_file():
        assert picture.TARGET.read_text("utf-8") == picture.svg(), "run benchmarks/report.py"
