"""Each benchmark runs, in places of its own that it removes again, and writes the ratios that it promises.

No figure is asserted: on a busy machine any may be had.
"""

from __future__ import annotations

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

from meteo_common.settings import Settings
from meteo_hadoop.webhdfs import FileSystem

ROOT = Path(__file__).parents[1]
METEO = Path(sys.executable).parent / "meteo"
RATIOS = {
    "export": {"ratio_to_pipe", "ratio_to_rows"},
    "hbase": {"ratio_to_single_puts"},
    "indexes": {"ratio_of_station_to_record", "ratio_of_quality_to_station"},
    "ingest": {"ratio_to_limits", "ratio_to_insert", "ratio_of_two_to_one"},
    "latency": {"p99_over_floor"},
    "produce": {"ratio_to_client"},
}
SMALL = {"export": "2000", "hbase": "2400", "indexes": "2000", "ingest": "2000", "latency": "200", "produce": "1"}


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


def test_unknown_benchmark_is_told_which_there_are() -> None:
    ran = bench("nothing")
    assert ran.returncode == 2
    assert ran.stderr.strip() == f"error: The benchmark 'nothing' is unknown; expected one of {', '.join(RATIOS)}."


def test_page_says_what_the_result_files_say() -> None:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    report = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(report)
    assert report.PAGE.read_text("utf-8") == report.page(), "run benchmarks/report.py"
