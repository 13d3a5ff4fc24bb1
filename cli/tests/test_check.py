"""What `check` says of servers that are away, of what a stack lacks, and of metrics that are not what they were."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from meteo_cli.probes import SERVERS, Outcome, Probe, Target, outcomes
from meteo_cli.scrapes import PROBES, others
from meteo_cli.stack import Stack, StackService
from meteo_common.settings import Settings

METEO = Path(sys.executable).parent / "meteo"
NOBODY = 1
"""A port on which nothing listens."""
AWAY = {
    "DATABASE_URL": f"postgresql://127.0.0.1:{NOBODY}/weatherdb",
    "BOOTSTRAP_SERVERS": f"127.0.0.1:{NOBODY}",
    "HDFS_URL": f"http://127.0.0.1:{NOBODY}",
    "HBASE_PORT": str(NOBODY),
}


def check(home: Path, services: dict[str, dict[str, Any]], **settings: str) -> tuple[int, dict[str, Any], str]:
    """Run `meteo check --json` for a stack of these services: exit code, report, and what it said of errors."""
    directory = home / "stacks" / "meteo"
    directory.mkdir(parents=True)
    index = {"name": "meteo", "port_offset": 0, "secrets_file": "secrets.yml", "services": services}
    (directory / "stack.json").write_text(json.dumps(index))
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    environment.pop("METEO_STACK", None)
    environment |= {"METEO_HOME": str(home), "METEO_PROJECT": str(home), **AWAY, **settings}
    ran = subprocess.run(
        [METEO, "check", "--json"], env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def test_each_server_that_is_away_has_its_sentence_and_all_are_probed(tmp_path: Path) -> None:
    ports = {"http": NOBODY, "metrics": NOBODY, "page": NOBODY}
    names = {name for probe in SERVERS for name in probe.needs}
    code, report, said = check(tmp_path, {name: {"ports": ports, "health": {"tcp": NOBODY}} for name in names})
    found = {each["name"]: each for each in report["probes"]}
    assert found.keys() == {probe.name for probe in (*SERVERS, *PROBES)}
    wrong = {name for name, each in found.items() if each["state"] == "failed"}
    assert wrong >= {probe.name for probe in SERVERS}
    for name, sentence in {
        "kafka": f"Kafka at 127.0.0.1:{NOBODY} (BOOTSTRAP_SERVERS) cannot be reached",
        "postgres": f"PostgreSQL at 127.0.0.1:{NOBODY} (DATABASE_URL) cannot be reached",
        "hdfs": f"HDFS at http://127.0.0.1:{NOBODY} (HDFS_URL) cannot be reached",
        "yarn": "resourcemanager does not answer at",
        "hbase": "HBase was left alone",
        "page": "./meteo logs page says why",
        "grafana": "grafana is not well",
        "metrics of namenode": "namenode does not answer at",
    }.items():
        assert sentence in found[name]["sentence"]
    assert (code, report["ok"]) == (1, False)
    assert said == f"error: {report['sentence']}\n"
    assert report["sentence"].startswith(f"{len(wrong)} of {len(wrong)} probes failed: kafka, postgres, hdfs, yarn, ")


def test_what_a_stack_does_not_have_is_said_and_no_failure(tmp_path: Path) -> None:
    services = {name: {"ports": {}} for name in ("kafka", "hbase-master", "hbase-thrift", "namenode", "datanode")}
    code, report, _ = check(tmp_path, services, HBASE_ENABLED="false", BOOTSTRAP_SERVERS="127.0.0.1:1")
    found = {each["name"]: (each["state"], each["sentence"]) for each in report["probes"]}
    assert found["yarn"] == ("absent", "This stack was put up without resourcemanager and nodemanager.")
    assert found["postgres"] == ("absent", "This stack was put up without postgres.")
    assert found["hbase"] == ("absent", "HBASE_ENABLED is off.")
    assert found["metrics of kafka"] == ("absent", "kafka was put up without metrics.")
    assert found["metrics of producer"] == ("absent", "This stack was put up without producer.")
    assert {name for name, (state, _) in found.items() if state == "failed"} == {"kafka", "hdfs"}
    assert code == 1


def test_hbase_that_is_away_has_its_sentence(tmp_path: Path) -> None:
    _, report, _ = check(tmp_path, {name: {"ports": {"http": NOBODY}} for name in ("hbase-master", "hbase-thrift")})
    found = {each["name"]: each["sentence"] for each in report["probes"]}
    assert found["hdfs"] == "This stack was put up without namenode and datanode."
    assert f"HBase at 127.0.0.1:{NOBODY} (HBASE_HOST, HBASE_PORT) cannot be used (Could not" in found["hbase"]


@pytest.fixture
def scraped(httpserver: HTTPServer, tmp_path: Path) -> Callable[..., dict[str, Outcome]]:
    """A function that reads the metrics of a stack in which one server stands for all; by the probes' names."""
    ports = dict.fromkeys(("http", "metrics", "page"), httpserver.port)

    def read(*names: str, more: bool = False) -> dict[str, Outcome]:
        services = [StackService(name, ports, [], {}, None) for name in names]
        target = Target(Stack("meteo", 0, services, tmp_path, []), Settings())
        probes = [*PROBES, *(others(target) if more else ())]
        return {each.name: each for each in outcomes(probes, target) if each.state != "absent"}

    return read


def test_a_metric_that_is_missing_is_named(httpserver: HTTPServer, scraped: Callable[..., dict[str, Outcome]]) -> None:
    text = '# HELP x y\nmeteo_outbox_messages 3.0\njvm_metrics_mem_heap_used_m{hostname="a",b="c d"} 1.5 17\npg_up 0\n'
    httpserver.expect_request("/metrics").respond_with_data(text)
    httpserver.expect_request("/prom").respond_with_data(text)
    httpserver.expect_request("/prometheus").respond_with_data("down", status=503)
    found = scraped("producer", "consumer", "datanode", "hbase-thrift", "postgres-exporter")
    assert found["metrics of producer"].sentence == "3 samples at /metrics."
    assert found["metrics of datanode"].state == "ok"
    assert (
        found["metrics of consumer"].sentence
        == "consumer answers at /metrics without meteo_consumer_batch_seconds_count; ./meteo logs consumer."
    )
    assert "cannot read PostgreSQL (pg_up is 0)" in found["metrics of postgres-exporter"].sentence
    assert "hbase-thrift answers 503" in found["metrics of hbase-thrift"].sentence
    states = {name: each.state for name, each in found.items()}
    assert list(states.values()).count("failed") == 3


def test_what_prometheus_scrapes_besides_is_read_too(
    httpserver: HTTPServer, scraped: Callable[..., dict[str, Outcome]]
) -> None:
    own, other, empty = (httpserver.url_for(path) for path in ("/metrics", "/other", "/empty"))
    targets = [
        {"scrapeUrl": url.replace("localhost", "127.0.0.1"), "labels": {"job": job}}
        for url, job in ((own, "prometheus"), (other, "radio"), (empty, "silent"))
    ]
    httpserver.expect_request("/api/v1/targets").respond_with_json({"data": {"activeTargets": targets}})
    httpserver.expect_request("/metrics").respond_with_data("prometheus_notifications_alertmanagers_discovered 1\n")
    httpserver.expect_request("/other").respond_with_data("radio_up 1\n")
    httpserver.expect_request("/empty").respond_with_data("# nothing\n")
    found = scraped("prometheus", more=True)
    assert {name: each.state for name, each in found.items()} == {
        "metrics of prometheus": "ok",
        "metrics of radio": "ok",
        "metrics of silent": "failed",
    }
    assert "without metrics; start it, or correct prometheus_more_targets" in found["metrics of silent"].sentence


def test_a_fault_of_a_library_is_a_sentence_too(tmp_path: Path) -> None:
    def fail(_: Target) -> str:
        raise ZeroDivisionError("by nought\nand more")

    target = Target(Stack("meteo", 0, [], tmp_path, []), Settings())
    [first, second] = outcomes([Probe("one", (), fail), Probe("two", (), lambda _: "Done.")], target)
    assert first.sentence == "one failed in an unexpected way (ZeroDivisionError: by nought)."
    assert (first.state, second.state, second.sentence) == ("failed", "ok", "Done.")
