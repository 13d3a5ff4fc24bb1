"""What tests do with a tenant: send it records, run and kill its commands, and count what its tiers hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import requests
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError

from conftest import METEO, Tenant
from meteo_common.message import encode
from meteo_common.settings import Settings
from meteo_consumer.consume import consume_until_idle
from meteo_hadoop.aggregate import aggregate_once
from meteo_hadoop.export import export_once
from meteo_hadoop.reconcile import reconcile_tiers
from meteo_hadoop.webhdfs import FileSystem
from meteo_producer.produce import play
from meteo_producer.replay import Replay
from meteo_producer.source import Selection

T = TypeVar("T")


def publish(tenant: Tenant, first: str, last: str) -> int:
    """Send these days of the recorded year and return how many records they are."""
    recording = Replay(tenant.settings, Selection(date.fromisoformat(first), date.fromisoformat(last), ()))
    return play(tenant.settings, recording)


def recorded_message(day: str = "2013-03-30") -> dict[str, Any]:
    """Return the first message of a recorded day as plain data, to be spoiled."""
    recording = Replay(Settings(), Selection(date.fromisoformat(day), date.fromisoformat(day), ()))
    message: dict[str, Any] = json.loads(encode(next(iter(recording))))
    return message


def send(
    tenant: Tenant, values: Sequence[bytes | None], partition: int = 0, *, key: bytes | None = None, **options: Any
) -> None:
    """Send raw bytes to one partition, in their order."""
    producer = KafkaProducer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","), **options)
    try:
        for value in values:
            producer.send(tenant.settings.topic_name, value=value, key=key, partition=partition)
        producer.flush(30)
    finally:
        producer.close(timeout=10)


def consume(tenant: Tenant) -> None:
    """Take everything, in this process: for what comes before the command under test."""
    consume_until_idle(tenant.settings)


def export(tenant: Tenant) -> None:
    """Export everything, in this process."""
    export_once(tenant.settings)


def aggregate(tenant: Tenant) -> None:
    """Aggregate the changed days, in this process."""
    aggregate_once(tenant.settings, "local")


def run(
    tenant: Tenant, *arguments: str, extra: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, whatever it is; its two outputs stay apart."""
    return subprocess.run(
        [METEO, *arguments],
        env={**tenant.environment, **(extra or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(
    tenant: Tenant, *arguments: str, extra: Mapping[str, str] | None = None, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start the command line in a session of its own, by which all of its processes are known."""
    output = log.open("ab") if log else subprocess.DEVNULL
    return subprocess.Popen(
        [METEO, *arguments],
        env={**tenant.environment, **(extra or {})},
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def sentence(ran: subprocess.CompletedProcess[str], code: int) -> str:
    """Return the one sentence with which a command that exits with `code` says why."""
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: "), line
    assert line.endswith((".", ")")), line
    return line.removeprefix("error: ")


def eventually(what: str, probe: Callable[[], T], seconds: float = 30, pause: float = 0.05) -> T:
    """Return the first true answer of `probe`; fails when there is none in time."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(pause)
    return answer


def answers(probe: Callable[[], bool]) -> bool:
    """Return what `probe` says; False while its server is not back yet."""
    try:
        return probe()
    except (psycopg2.OperationalError, psycopg2.InterfaceError, KafkaError):
        return False


def broker_answers(tenant: Tenant) -> bool:
    """Say whether Kafka has the tenant's topic."""

    def probe() -> bool:
        with closing(KafkaAdminClient(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as admin:
            return tenant.settings.topic_name in admin.list_topics()

    return answers(probe)


def set_space_quota(tenant: Tenant, size: int | None) -> None:
    """Let the tenant's directory take this many bytes; None: a petabyte."""
    base = f"{tenant.settings.hdfs_url}/webhdfs/v1"
    # Whoever runs the NameNode is HDFS's superuser.
    root = requests.get(f"{base}/?op=GETFILESTATUS", timeout=10).json()["FileStatus"]["owner"]
    quota = size or 1 << 50
    asked: dict[str, str | int] = {
        "op": "SETQUOTA",
        "namespacequota": (1 << 63) - 1,
        "storagespacequota": quota,
        "user.name": root,
    }
    answer = requests.put(f"{base}{tenant.settings.hdfs_base_path}", params=asked, timeout=30)
    assert answer.ok, answer.text


def set_safe_mode(tenant: Tenant, owner: str, step: str) -> None:
    """Do as an operator does; WebHDFS has no operation for it. `owner`: as whom HDFS runs."""
    settings = tenant.settings
    class_path = f"{settings.hadoop_conf_dir}:{settings.hadoop_classpath_jars}/*"
    command = ["java", "-cp", class_path, "org.apache.hadoop.hdfs.tools.DFSAdmin", "-safemode", step]
    environment = {**os.environ, "HADOOP_USER_NAME": owner}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)


def members(session: int) -> list[int]:
    """Return the living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text("utf-8").rpartition(") ")
        except OSError:
            continue
        state, _, _, number = rest.split()[:4]
        if int(number) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill (-9) the command's own process; True if it was still at work. What it had started ends by itself."""
    process.send_signal(signal.SIGKILL)
    killed = process.wait(10) == -signal.SIGKILL
    assert_alone(process)
    return killed


def assert_alone(process: subprocess.Popen[bytes]) -> None:
    """Fail if a process of an ended command outlives it."""
    eventually(f"the end of all processes of {process.args}", lambda: not members(process.pid), 8)


def read_lines(tenant: Tenant) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (day of the directory, file, row) of every line that a reader of HDFS finds."""
    filesystem, base = FileSystem(tenant.settings), tenant.settings.hdfs_base_path
    return [
        (directory.name.removeprefix("dt="), entry.name, json.loads(line))
        for directory in filesystem.list(base)
        for entry in filesystem.list(f"{base}/{directory.name}")
        if entry.name.startswith("weather_")
        for line in filesystem.read(f"{base}/{directory.name}/{entry.name}").splitlines()
    ]


def read_days(tenant: Tenant) -> set[str]:
    """Return the days that have aggregates."""
    filesystem, base = FileSystem(tenant.settings), tenant.settings.hdfs_base_path
    return {
        directory.name.removeprefix("dt=")
        for directory in filesystem.list(base)
        if filesystem.length(f"{base}/{directory.name}/aggregates.jsonl") is not None
    }


def read_aggregates(tenant: Tenant) -> dict[str, bytes]:
    """Return each day's aggregates.jsonl."""
    filesystem, base = FileSystem(tenant.settings), tenant.settings.hdfs_base_path
    return {
        directory.name.removeprefix("dt="): filesystem.read(f"{base}/{directory.name}/aggregates.jsonl")
        for directory in filesystem.list(base)
    }


def assert_whole(tenant: Tenant, records: int, expected: Mapping[str, bytes] | None = None) -> None:
    """Fail unless every one of `records` is once in PostgreSQL, once in HDFS, and in the aggregates and HBase."""
    rows = tenant.query("SELECT topic_generation, partition, msg_offset FROM weather")
    assert len(rows) == len(set(rows)) == records
    lines = [row for _, _, row in read_lines(tenant)]
    assert Counter((row.get("topic_generation", 1), row["partition"], row["msg_offset"]) for row in lines) == Counter(
        rows
    )
    if expected is not None:
        assert read_aggregates(tenant) == expected
    assert_clean(tenant)


def is_clean(tenant: Tenant) -> bool:
    """Say whether nothing is pending or wrong at this moment."""
    return all(day.state == "clean" for day in reconcile_tiers(tenant.settings).days)


def assert_clean(tenant: Tenant) -> None:
    """Fail unless all tiers agree to the byte and nothing is pending."""
    report = reconcile_tiers(tenant.settings, deep=True)
    assert report.mismatches == []
    assert [day for day in report.days if day.state != "clean"] == []
