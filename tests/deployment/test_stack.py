"""A stack of its own is deployed, changed, stopped and started again."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import happybase
import psycopg2
import pytest
import requests
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from . import bundles
from .conftest import Deployment, alive, flat
from .made import MARK, Made

pytestmark = pytest.mark.deployment
SERVERS = {
    *("kafka", "postgres", "namenode", "datanode", "resourcemanager", "nodemanager", "hbase-master", "hbase-thrift"),
}
TOPICS = [
    {"name": name, "partitions": 3, "replication": 1, "config": {"cleanup.policy": "delete"}}
    for name in ("weather-api", "kept")
]
SERVICES = {"producer", "consumer", "export", "aggregate", "page"}
MONITORING = {"prometheus", "alertmanager", "node-exporter", "postgres-exporter"}
PLANTED_URL = "http://watcher:p%40ss-word@127.0.0.1:9"
PLANTED_HOOK = "http://127.0.0.1:9/hooks/T0K3N-of-the-hook"


def test_a_fresh_host_is_shown_what_would_run_and_stays_fresh(stack: Deployment) -> None:
    seen = stack.foresee(kafka_topics=TOPICS)
    assert seen.code == 0, seen.output
    assert seen.changed > len(SERVERS | SERVICES | MONITORING)
    assert "\n+exec " in seen.output
    assert not stack.directory.exists()


def test_the_first_run_starts_everything(stack: Deployment) -> None:
    run = stack.up(kafka_topics=TOPICS)
    assert run.code == 0, run.output
    assert set(stack.processes()) == SERVERS | SERVICES | MONITORING
    assert (stack.directory / "settings.env").stat().st_mode & 0o777 == 0o600
    assert (stack.directory / "secrets.yml").stat().st_mode & 0o777 == 0o600


def test_no_password_shows(stack: Deployment) -> None:
    password = stack.settings()["DATABASE_URL"].split(":")[2].split("@")[0]
    assert password not in (stack.directory / "stack.json").read_text(encoding="utf-8")
    assert not [line for line in alive(stack.directory) if password in line]
    for log in (stack.directory / "logs").glob("*.log"):
        assert password not in log.read_text(encoding="utf-8", errors="replace"), log


def test_the_second_run_changes_nothing(stack: Deployment) -> None:
    before = stack.processes()
    run = stack.up(kafka_topics=TOPICS)
    assert (run.code, run.changed) == (0, 0), run.output
    assert stack.processes() == before


def test_a_running_host_is_shown_what_would_change_and_stays_as_it_is(stack: Deployment) -> None:
    before = stack.processes()
    seen = stack.foresee(kafka_topics=TOPICS, prometheus_retention_time="3d")
    assert (seen.code, seen.changed) == (0, 1), seen.output
    assert "--storage.tsdb.retention.time=3d" in seen.output
    assert stack.processes() == before


LINE = re.compile(r"^(\S.{27}) (ok|failed|absent) +(?:\d+\.\d s +)?(\S.*)$", re.MULTILINE)


def checked(output: str) -> dict[str, tuple[str, str]]:
    """Return what each line of a check says: state and sentence, by the probe's name."""
    return {name.rstrip(): (state, sentence) for name, state, sentence in LINE.findall(output)}


def test_a_check_uses_everything_and_leaves_nothing(stack: Deployment) -> None:
    made = Made(stack.settings())
    # Of a check that was killed yesterday, and of one that is at work.
    left, young = (f"{MARK}{int(time.time()) - age}_0123456789ab" for age in (86_400, 0))
    made.put(left)
    made.put(young)
    run = stack.playbook("check.yml")
    found = checked(run.output)
    assert run.code == 0, run.output
    assert {state for state, _ in found.values()} == {"ok", "absent"}
    assert {name for name, (state, _) in found.items() if state == "absent"} <= {"grafana", "kafka-ui", "pgadmin"}
    assert found.keys() >= {"kafka", "postgres", "hdfs", "yarn", "hbase", "page"}
    assert sum(name.startswith("metrics of ") for name in found) == len(SERVERS | SERVICES | MONITORING) - 1
    assert made.names() == {"kafka": {young}, "postgres": {young}, "hdfs": {f"_{young}_0"}, "hbase": {young}}
    made.take_away(young)
    assert made.names() == {"kafka": set(), "postgres": set(), "hdfs": set(), "hbase": set()}


def test_a_check_names_the_server_that_is_away(stack: Deployment) -> None:
    stack.supervisor().stopProcess("hbase-thrift", True)
    try:
        said = stack.meteo("check", code=1)
    finally:
        stack.supervisor().startProcess("hbase-thrift", True)
    found = checked(said)
    assert said.endswith("error: Not everything works; see the lines above.\n"), said
    assert {name for name, (state, _) in found.items() if state == "failed"} == {"hbase", "metrics of hbase-thrift"}
    assert "(HBASE_HOST, HBASE_PORT) cannot be used" in found["hbase"][1]
    assert "2 of 22 probes failed: hbase, metrics of hbase-thrift." in said
    assert "Traceback" not in said


def test_a_changed_city_restarts_only_the_producer(stack: Deployment) -> None:
    before = stack.processes()
    run = stack.playbook("site.yml", {"CITY": "Lyon,FR@45.76,4.84"}, kafka_topics=TOPICS)
    assert run.code == 0, run.output
    after = stack.processes()
    assert {name for name in before if before[name] != after.get(name)} == {"producer"}


def test_a_support_bundle_holds_everything_but_the_secrets(stack: Deployment, tmp_path: Path) -> None:
    given = {"CITY": "Lyon,FR@45.76,4.84", "OPENWEATHER_API_KEY": "0f-planted-key", "OPEN_METEO_URL": PLANTED_URL}
    run = stack.playbook("site.yml", given, kafka_topics=TOPICS, alertmanager_webhook_url=PLANTED_HOOK)
    assert run.code == 0, run.output
    before = stack.processes()
    said = stack.meteo("support-bundle", tmp_path / "bundle.tar.gz")
    assert "changed=0" in said
    assert (tmp_path / "bundle.tar.gz").stat().st_mode & 0o777 == 0o600
    assert stack.processes() == before
    texts = bundles.unpack(tmp_path / "bundle.tar.gz")
    secrets = yaml.safe_load((stack.directory / "secrets.yml").read_text(encoding="utf-8"))
    planted = [given["OPENWEATHER_API_KEY"], "p%40ss-word", "p@ss-word", "T0K3N-of-the-hook"]
    assert bundles.holders(texts, [*secrets.values(), *planted]) == []
    # They are there, each as a mask.
    assert texts["configuration/secrets.yml"].splitlines() == [f"{name}: ********" for name in secrets]
    assert "DATABASE_URL='postgresql://********@" in texts["configuration/settings.env"]
    producer = texts["configuration/services/producer/run"]
    assert "export OPENWEATHER_API_KEY=********" in producer
    assert "export OPEN_METEO_URL=http://********@127.0.0.1:9" in producer
    assert '"url": "********"' in texts["configuration/services/alertmanager/alertmanager.yml"]
    for name in SERVERS | SERVICES | MONITORING:
        assert texts[f"logs/{name}.log"], name
    assert json.loads(texts["stack.json"])["services"].keys() == before.keys()
    state = json.loads(texts["status/status.json"])
    assert {each["name"]: each["state"] for each in state["services"]} == dict.fromkeys(before, "RUNNING")
    assert {"settings", "ports"} <= {each["check"] for each in json.loads(texts["status/doctor.json"])["findings"]}
    assert json.loads(texts["alerts/alerts.json"])["status"] == "success"
    assert "kafka-clients-" in texts["versions/jars.txt"]
    assert "psycopg2" in texts["versions/python.txt"]
    for said in ("openjdk", "postgres (PostgreSQL)", "prometheus, version", "alertmanager, version"):
        assert said in texts["versions/servers.txt"], texts["versions/servers.txt"]


def test_a_support_bundle_replaces_no_file(stack: Deployment, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    said = stack.meteo("support-bundle", tmp_path / "mine", code=1)
    assert "mine is there already; name another file, or remove it." in flat(said)
    assert (tmp_path / "mine").read_text() == "kept"
    said = stack.meteo("support-bundle", tmp_path / "none" / "b.tar.gz", code=1)
    assert "cannot be written (No such file or directory)" in flat(said)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_taken_port_names_its_holder(stack: Deployment) -> None:
    run = Deployment("other", stack.offset).up()
    assert run.code != 0
    kafka = stack.processes()["kafka"]
    assert f"which kafka needs (kafka), is taken by java (process {kafka})" in flat(run.output)
    assert "METEO_PORT_OFFSET" in run.output
    assert not (stack.directory.parent / "other").exists()


def test_an_old_java_gets_its_sentence(stack: Deployment) -> None:
    run = stack.up(preflight_java=99)
    assert run.code != 0
    assert "expected Java 99 or newer" in flat(run.output)


@pytest.fixture
def written(stack: Deployment) -> dict[str, str]:
    """A row, a record, a file and a cell, then the stack stopped."""
    at = stack.settings()
    with psycopg2.connect(at["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (word text)")
        cursor.execute("INSERT INTO kept VALUES ('row')")
    connection.close()
    producer = KafkaProducer(bootstrap_servers=at["BOOTSTRAP_SERVERS"])
    producer.send("kept", b"record", partition=0).get(30)
    producer.close()
    requests.put(
        f"{at['HDFS_URL']}/webhdfs/v1{at['HDFS_BASE_PATH']}/kept?op=CREATE&user.name={at['HDFS_USER']}",
        data=b"file",
        timeout=30,
    ).raise_for_status()
    table = happybase.Connection(at["HBASE_HOST"], int(at["HBASE_PORT"]))
    table.create_table("kept", {"f": {}})
    table.table("kept").put(b"k", {b"f:c": b"cell"})
    table.close()
    run = stack.down()
    assert run.code == 0, run.output
    assert not alive(stack.directory)
    return at


def test_stopping_and_starting_keeps_all_data(stack: Deployment, written: dict[str, str]) -> None:
    run = stack.up(kafka_topics=TOPICS, services_enabled=False)
    assert run.code == 0, run.output
    assert stack.settings() == written
    with psycopg2.connect(written["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT word FROM kept")
        assert cursor.fetchall() == [("row",)]
    connection.close()
    consumer = KafkaConsumer(bootstrap_servers=written["BOOTSTRAP_SERVERS"], consumer_timeout_ms=20_000)
    consumer.assign([TopicPartition("kept", 0)])
    consumer.seek_to_beginning()
    assert next(iter(consumer)).value == b"record"
    consumer.close()
    address = f"{written['HDFS_URL']}/webhdfs/v1{written['HDFS_BASE_PATH']}/kept?op=OPEN"
    assert requests.get(address, timeout=30).content == b"file"
    table = happybase.Connection(written["HBASE_HOST"], int(written["HBASE_PORT"]))
    assert table.table("kept").row(b"k") == {b"f:c": b"cell"}
    table.close()


def test_services_can_be_switched_off(stack: Deployment) -> None:
    assert set(stack.processes()) == SERVERS | MONITORING


def test_a_killed_supervisor_leaves_nothing_behind(stack: Deployment) -> None:
    supervisor = int((stack.directory / "run" / "supervisord.pid").read_text(encoding="ascii"))
    os.kill(supervisor, signal.SIGKILL)
    assert alive(stack.directory)
    run = stack.down()
    assert run.code == 0, run.output
    assert not alive(stack.directory)


def test_a_support_bundle_is_made_while_nothing_runs_and_changes_nothing(stack: Deployment, tmp_path: Path) -> None:
    before = files(stack.directory)
    stack.meteo("support-bundle", tmp_path / "bundle.tar.gz", "--log-mb", "1")
    assert files(stack.directory) == before
    assert not alive(stack.directory)
    texts = bundles.unpack(tmp_path / "bundle.tar.gz")
    secrets = yaml.safe_load((stack.directory / "secrets.yml").read_text(encoding="utf-8"))
    assert bundles.holders(texts, secrets.values()) == []
    assert {each["healthy"] for each in json.loads(texts["status/status.json"])["services"]} == {False}
    assert "alerts/alerts.json" not in texts
    assert "/api/v1/alerts: " in texts["contents.txt"]
    assert max(len(text.encode()) for name, text in texts.items() if name.startswith("logs/")) <= 1_000_000
    assert "Kafka Server started" in texts["logs/kafka.log"]


def test_data_without_its_passwords_is_refused(stack: Deployment) -> None:
    assert not alive(stack.directory)
    secrets, elsewhere = stack.directory / "secrets.yml", stack.directory / "secrets.elsewhere"
    secrets.rename(elsewhere)
    try:
        run = stack.up()
    finally:
        elsewhere.rename(secrets)
    assert run.code != 0
    assert "has no password file" in flat(run.output)
    assert "Restore it from a backup" in flat(run.output)


def test_stopping_what_does_not_run_says_so(stack: Deployment) -> None:
    run = stack.down()
    assert (run.code, run.changed) == (0, 0)
    assert "Nothing of the stack deploy was running." in flat(run.output)


def files(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file; but SQLite puts in order what a killed producer left, for whoever reads it."""
    found = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("producer.sqlite")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}
