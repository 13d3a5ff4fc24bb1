"""The engine yarn: byte-identical with local on a real cluster, and what it says when something is wrong."""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from weather_rows import PARIS, random_rows

from meteo_common.errors import TerminalError, TransientError, UnreachableError, UsageError
from meteo_common.settings import Settings, load_settings
from meteo_hadoop import bundle
from meteo_hadoop.climate import climate_job
from meteo_hadoop.daily import daily_job
from meteo_hadoop.job import Job
from meteo_hadoop.local import LocalEngine
from meteo_hadoop.source import FileVanishedError, Source
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.yarn import YarnEngine
from meteo_hadoop.yarn_client import YarnClient, _Output

DAYS = {date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 26)}


@pytest.fixture
def files(settings: Settings) -> Iterator[list[str]]:
    """3,000 rows in 12 files of 3 folders, some rows in a wrong folder, one line no row; gone after the test."""
    base = f"/tmp/_test_{uuid.uuid4().hex}"
    filesystem = FileSystem(settings)
    contents: dict[str, list[bytes]] = {}
    for number, line in enumerate(random_rows(seed=11, number=3000)):
        contents.setdefault(f"{base}/f{number % 3}/weather_{number % 12}.json", []).append(line)
    contents[f"{base}/f0/weather_0.json"].append(b"nonsense")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item: filesystem.publish(item[0], [b"\n".join(item[1]) + b"\n"]), contents.items()))
    yield list(contents)
    YarnEngine(settings)._delete(base)


@pytest.mark.stack
@pytest.mark.parametrize("job", [daily_job(PARIS, DAYS), climate_job(PARIS)], ids=lambda job: job.name)
def test_yarn_and_local_are_byte_identical(settings: Settings, files: list[str], job: Job) -> None:
    local = LocalEngine(Source(settings.hdfs_url, settings.hdfs_user)).run(job, files)
    # Several maps of the small files, and several reducers.
    splits = {"mapreduce.input.fileinputformat.split.maxsize": "500000", "mapreduce.job.ubertask.enable": "false"}
    yarn = YarnEngine(settings, reducers=2, properties=splits).run(job, files)
    assert yarn.lines == local.lines
    assert yarn.counters == local.counters
    assert yarn.counters["bad_json"] == 1
    assert _leftovers(settings) == []


@pytest.mark.stack
def test_a_file_that_vanished_is_told(settings: Settings, files: list[str]) -> None:
    with pytest.raises(FileVanishedError, match="no longer in HDFS"):
        YarnEngine(settings).run(daily_job(PARIS, None), [*files, f"{files[0]}.gone"])


@pytest.mark.stack
def test_a_job_that_fails_says_where_to_look(settings: Settings, files: list[str]) -> None:
    engine = YarnEngine(settings, python="no-such-python", properties={"mapreduce.map.maxattempts": "1"})
    with pytest.raises(TerminalError, match=r"^application_\d+_\d+ \(http://\S+\) failed on YARN: .*failedMaps:1"):
        engine.run(daily_job(PARIS, None), files)
    assert _leftovers(settings) == []


@pytest.mark.stack
def test_what_killed_runs_left_is_swept_away(settings: Settings) -> None:
    filesystem, now = FileSystem(settings), int(time.time())
    old, young = (f"_meteo_daily_{at}_{uuid.uuid4().hex}" for at in (now - 90_000, now - 80_000))
    for name in (old, f"{old}_history", young):
        filesystem.publish(f"/tmp/{name}/deep/file", [b"x"])
    engine = YarnEngine(settings)
    with engine._outputs(daily_job(PARIS, None)):
        found = {name for name in _leftovers(settings) if name.startswith((old, young))}
    engine._delete(f"/tmp/{young}")
    assert found == {young}


@pytest.mark.stack
def test_a_task_that_fails_shows_its_traceback(settings: Settings, files: list[str]) -> None:
    # What the node cannot compute: a zone whose rules do not travel with the job.
    job = replace(daily_job(PARIS, None), parameters={"zone": "Nowhere/Else"}, zones=())
    engine = YarnEngine(settings, properties={"mapreduce.map.maxattempts": "1"})
    with pytest.raises(TerminalError, match=r"^application_\d+_\d+ \(http://\S+\) failed on YARN: ") as caught:
        engine.run(job, files)
    said = str(caught.value)
    assert "\n" not in said
    assert re.search(r"Its attempt_\d+_\d+_m_0+_0 ended with: .*local_time.py\", line \d+, in __init__ \| ", said)
    assert said.endswith("ZoneInfoNotFoundError: 'No time zone found with key Nowhere/Else'")
    assert _leftovers(settings) == []


@pytest.mark.stack
def test_a_node_needs_nothing_but_python(settings: Settings, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    job = climate_job(PARIS)
    local = LocalEngine(Source(settings.hdfs_url, settings.hdfs_user)).run(job, files)
    # As on a machine that msgspec's compiled part does not fit; -S -E leaves out what is installed on the node.
    packed = bundle._files
    monkeypatch.setattr(bundle, "_files", lambda name: [file for file in packed(name) if file.suffix == ".py"])
    yarn = YarnEngine(settings, python="python3 -S -E").run(job, files)
    assert (yarn.lines, yarn.counters) == (local.lines, local.counters)


FAIL_ONCE = """import os, runpy, sys
attempt = os.environ["mapreduce_task_attempt_id"]
if attempt.endswith("_0"):
    # In the middle of its work: half of what it read is written, and counted.
    sys.stderr.write("reporter:counter:meteo,lines,1000\\n")
    from itertools import islice
    for line in islice(sys.stdin.buffer, 50):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()
    raise SystemExit("the first attempt of each task fails")
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.stack
@pytest.mark.parametrize("job", [daily_job(PARIS, DAYS), climate_job(PARIS)], ids=lambda job: job.name)
def test_attempts_that_are_repeated_change_nothing(settings: Settings, files: list[str], job: Job) -> None:
    local = LocalEngine(Source(settings.hdfs_url, settings.hdfs_user)).run(job, files)
    properties = {
        "mapreduce.input.fileinputformat.split.maxsize": "1500000",
        "mapreduce.job.ubertask.enable": "false",
        "mapreduce.map.speculative": "true",
        "mapreduce.reduce.speculative": "true",
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        script = Path(folder, "fail_once.py")
        script.write_text(FAIL_ONCE)
        script.chmod(0o644)
        yarn = YarnEngine(settings, reducers=2, properties=properties, python=f"python3 {script}").run(job, files)
    assert yarn.lines == local.lines
    assert yarn.counters == local.counters
    assert _leftovers(settings) == []


@pytest.mark.stack
def test_an_absent_resource_manager_is_told(settings: Settings, files: list[str], tmp_path: Path) -> None:
    assert settings.hadoop_conf_dir is not None
    for file in settings.hadoop_conf_dir.iterdir():
        text = file.read_text("utf-8")
        (tmp_path / file.name).write_text(
            text.replace("</configuration>", "<property><name>yarn.resourcemanager.address</name>"
                "<value>127.0.0.1:1</value></property></configuration>")
        )  # fmt: skip
    engine = YarnEngine(settings.model_copy(update={"hadoop_conf_dir": tmp_path}))
    with pytest.raises(UnreachableError, match=r"YARN cannot be reached"):
        engine.run(daily_job(PARIS, None), files)


@pytest.mark.parametrize(
    ("megabytes", "split", "reducers"), [(28, 64, 1), (511, 64, 1), (1024, 128, 3), (7168, 256, 8)]
)
def test_what_is_large_has_larger_splits(megabytes: int, split: int, reducers: int) -> None:
    settings = load_settings(hadoop_conf_dir=Path("conf"), hadoop_classpath_jars=Path("jars"))
    engine = YarnEngine(settings, sizes={"/w/a": megabytes << 19, "/w/b": megabytes << 19})
    said = engine._configuration(daily_job(PARIS, None), ["/w/a", "/w/b"], "/tmp/x")
    for name, value in (("input.fileinputformat.split.maxsize", split << 20), ("job.reduces", reducers)):
        assert f"<name>mapreduce.{name}</name><value>{value}</value>" in said


def test_without_settings_it_says_which() -> None:
    with pytest.raises(UsageError, match="HADOOP_CONF_DIR and HADOOP_CLASSPATH_JARS"):
        YarnEngine(load_settings().model_copy(update={"hadoop_conf_dir": None}))


def test_counters_are_read_from_the_client(tmp_path: Path) -> None:
    output = _Output()
    for line in (
        "INFO YarnClientImpl: Submitted application application_1_0001",
        "INFO Job: The url to track the job: http://rm:8088/proxy/application_1_0001/",
        "INFO Job: Job job_1_0001 running in uber mode : false",
        "INFO Job: Job job_1_0001 completed successfully",
        "INFO Job: Counters: 3",
        "\tFile System Counters",
        "\t\tlines=7",
        "\tmeteo",
        "\t\tbad_json=1",
        "\t\tlines=42",
        "\tShuffle Errors",
        "\t\tBAD_ID=0",
    ):
        output.take(line)
    assert output.counters == {"bad_json": 1, "lines": 42}
    assert output.running
    assert output.finished


def test_a_starved_application_is_told() -> None:
    output = _Output()
    output.take("INFO YarnClientImpl: Submitted application application_1_0001")
    output.given_up = True
    error = output.error(143)
    assert isinstance(error, UnreachableError)
    assert "application_1_0001 but given it no container" in str(error)


SLOW = """#!/bin/sh
echo "INFO YarnClientImpl: Submitted application application_1_0001"
echo "INFO Job: The url to track the job: http://rm:8088/proxy/application_1_0001/"
echo "INFO Job: Job job_1_0001 running in uber mode : false"
for percent in 1 2 3 4 5 6; do sleep 0.3; echo "INFO Job:  map $percent% reduce 0%"; done
echo "INFO RetryInvocationHandler: java.net.ConnectException" # no sign of life
exec sleep 60
"""


def test_an_application_that_does_not_get_on_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(SLOW)
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    killed: list[str] = []
    client = YarnClient(tmp_path, tmp_path, "hdfs", progress_wait=3)
    monkeypatch.setattr(client, "_application", lambda action, application, _: killed.append(f"{action} {application}"))
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"application_1_0001 \(http://rm:8088/\S+\) has run for 3 s without"):
        client.run([], tmp_path)
    # It got on for 1.8 s before it stood still.
    assert 4.8 <= time.monotonic() - begun < 30
    assert killed == ["-kill application_1_0001"]


def _leftovers(settings: Settings) -> list[str]:
    return [entry.name for entry in FileSystem(settings).list("/tmp") if entry.name.startswith("_meteo_")]


def test_the_end_that_the_client_missed_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = (
        "Application Report : \n\tState : FINISHED\n\tFinal-State : FAILED\n"
        "\tDiagnostics : Task failed task_1_m_000000\nJob failed as tasks failed. failedMaps:1\n\n\tUnmanaged : false\n"
    )
    client = YarnClient(tmp_path, tmp_path, "hdfs")
    monkeypatch.setattr(client, "_application", lambda *_: report)
    output = _Output()
    output.take("INFO YarnClientImpl: Submitted application application_1_0001")
    client._ask(output, tmp_path)
    error = output.error(5)
    assert isinstance(error, TerminalError)
    assert str(error).endswith("Task failed task_1_m_000000 | Job failed as tasks failed. failedMaps:1")
    output.ended = "SUCCEEDED"
    assert isinstance(output.error(5), TransientError)


STRAGGLE = """import os, runpy, sys, time
attempt = os.environ["mapreduce_task_attempt_id"]
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "attempts"), "a") as file:
    file.write(attempt + "\\n")
if attempt.endswith("_m_000000_0"):
    time.sleep(300)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.stack
def test_a_speculative_attempt_changes_nothing(settings: Settings, files: list[str]) -> None:
    job = daily_job(PARIS, DAYS)
    local = LocalEngine(Source(settings.hdfs_url, settings.hdfs_user)).run(job, files)
    properties = {
        "mapreduce.input.fileinputformat.split.maxsize": "500000",
        "mapreduce.job.ubertask.enable": "false",
        "mapreduce.map.speculative": "true",
        # By default it looks every 15 s, and only where there are many tasks.
        "mapreduce.job.speculative.retry-after-no-speculate": "500",
        "mapreduce.job.speculative.minimum-allowed-tasks": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the nodes' user writes there
        script, attempts = Path(folder, "straggle.py"), Path(folder, "attempts")
        script.write_text(STRAGGLE)
        script.chmod(0o644)
        yarn = YarnEngine(settings, properties=properties, python=f"python3 {script}").run(job, files)
        tried = [line.rpartition("_m_")[2] for line in attempts.read_text().splitlines() if "_m_" in line]
    assert "000000_1" in tried
    assert (yarn.lines, yarn.counters) == (local.lines, local.counters)
