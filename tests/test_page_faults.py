"""The page while servers and services are away, hang, or come back: it says so in a sentence, and judges each hop."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import running
import tiers
from paging import Gate, Page, simulate, start_page
from psycopg2.extensions import parse_dsn
from running import Running
from test_clocks import clock
from test_services import stopped

from conftest import Tenant

STATION = "replay:JFK"
DAY = "2013-03-30"
SECOND = ("--every", "1s")


@pytest.fixture
def start(tenant: Tenant, tmp_path: Path) -> Iterator[Any]:
    """A function that starts the tenant's page; what still runs at the end is killed."""
    pages: list[Page] = []

    def start(services: dict[str, Running] | None = None, **extra: str) -> Page:
        pages.append(start_page(tenant, tmp_path / f"page{len(pages)}.log", services, extra))
        return pages[-1]

    yield start
    for page in pages:
        page.service.kill()


@pytest.fixture
def launch(tenant: Tenant, tmp_path: Path) -> Iterator[Any]:
    """A function that starts another service of the tenant; what still runs at the end is killed."""
    started: list[Running] = []

    def launch(*arguments: str, extra: dict[str, str] | None = None) -> Running:
        log = tmp_path / f"{arguments[0]}{len(started)}.log"
        started.append(running.start(tenant, *arguments, log=log, extra=extra))
        return started[-1]

    yield launch
    for service in started:
        service.kill()


def fill(tenant: Tenant) -> None:
    """Take one recorded day through every tier."""
    tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)


def database_gate(tenant: Tenant) -> tuple[Gate, str]:
    """Return a gate to PostgreSQL, and the DATABASE_URL that leads through it."""
    url = tenant.settings.database_url.get_secret_value()
    parts = parse_dsn(url)
    gate = Gate(parts["host"], int(parts["port"])).open()
    return gate, url.replace(f":{parts['port']}/", f":{gate.port}/")


def says(page: Page, server: str) -> dict[str, Any]:
    """Return what the state says of a server."""
    return next(each for each in page.state()["servers"] if each["name"] == server)


def problem(page: Page, path: str, status: int) -> str:
    """Return the sentence of an answer that must be a problem."""
    answer = page.get(path)
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    return detail


def test_postgresql_goes_and_comes_back(tenant: Tenant, start: Any) -> None:
    fill(tenant)
    gate, url = database_gate(tenant)
    page = start(DATABASE_URL=url)
    page.until("all well", lambda state: state["stations"] and all(each["up"] for each in state["servers"]))
    assert page.get("/readyz").status_code == 200
    gate.shut()
    state = page.until(
        "PostgreSQL away, and nothing else",
        lambda state: (
            _hop(state, "consume")["state"] == "stopped"
            and [each["name"] for each in state["servers"] if not each["up"]] == ["postgresql"]
        ),
    )
    assert "PostgreSQL" in _hop(state, "consume")["sentence"]
    assert len(state["stations"]) == 3, "what was known stays known"
    assert "PostgreSQL" in problem(page, "/api/stations", 503)
    assert "PostgreSQL" in problem(page, f"/api/stations/{STATION}/observations", 503)
    assert page.get(f"/api/stations/{STATION}/aggregates").json()["aggregates"], "HBase is there"
    assert (page.get("/").status_code, page.get("/healthz").status_code) == (200, 200)
    ready = page.get("/readyz")
    assert ready.status_code == 503
    assert "PostgreSQL" in ready.json()["waiting_for"]
    assert 'meteo_pipeline_server_up{server="postgresql"} 0.0' in page.get("/metrics").text
    gate.open()
    page.until("PostgreSQL back", lambda state: all(each["up"] for each in state["servers"]))
    assert len(page.get("/api/stations").json()["stations"]) == 3


def test_a_server_that_hangs_delays_nothing_else(tenant: Tenant, start: Any) -> None:
    fill(tenant)
    gate, url = database_gate(tenant)
    page = start(DATABASE_URL=url)
    page.until("a state", lambda state: state["stations"])
    gate.hold()
    page.until("PostgreSQL hangs", lambda state: _hop(state, "consume")["state"] == "stopped")
    started = time.monotonic()
    assert page.get("/").ok
    assert page.get("/metrics").ok
    assert says(page, "hdfs")["up"]
    # What hangs is given up after 5 s.
    assert time.monotonic() - started < 4
    page.service.stop()  # within 10 s, while its readers still hang
    gate.shut()


def test_hbase_goes_and_comes_back(tenant: Tenant, start: Any) -> None:
    fill(tenant)
    gate = Gate(tenant.settings.hbase_host, tenant.settings.hbase_port).open()
    page = start(HBASE_PORT=str(gate.port))
    assert page.until_hop("serve", "ok")["sentence"].startswith("HBase has")
    gate.shut()
    hop = page.until_hop("serve", "stopped")
    assert "HBase" in hop["sentence"]
    assert "./meteo logs hbase-thrift" in hop["remedy"]
    assert page.hop("export")["state"] == page.hop("aggregate")["state"] == "ok"
    assert "HBase" in problem(page, f"/api/stations/{STATION}/aggregates", 503)
    assert page.get(f"/api/stations/{STATION}/observations").ok
    gate.open()
    page.until_hop("serve", "ok")


def test_hdfs_goes_and_comes_back(tenant: Tenant, start: Any) -> None:
    fill(tenant)
    host, _, port = tenant.settings.hdfs_url.removeprefix("http://").rpartition(":")
    gate = Gate(host, int(port)).open()
    page = start(HDFS_URL=f"http://127.0.0.1:{gate.port}")
    page.until_hop("export", "ok")
    gate.shut()
    state = page.until("HDFS away", lambda state: _hop(state, "export")["state"] == "stopped")
    assert "HDFS" in _hop(state, "export")["sentence"]
    assert _hop(state, "aggregate")["state"] == "stopped"
    assert state["hop"] in {"produce", "export"}
    assert page.get(f"/api/stations/{STATION}/aggregates").ok, "HBase has them"
    gate.open()
    page.until_hop("export", "ok")


def test_kafka_goes_and_comes_back(stack: Path, tenant: Tenant, start: Any) -> None:
    fill(tenant)
    page = start()
    page.until_hop("consume", "ok")
    with stopped(stack, "kafka"):
        state = page.until("Kafka away", lambda state: _hop(state, "consume")["state"] == "stopped", 60)
        assert "Kafka" in _hop(state, "consume")["sentence"]
        assert _hop(state, "produce")["state"] == "stopped"
        assert _hop(state, "export")["state"] == "ok"
        assert len(page.get("/api/stations").json()["stations"]) == 3
    page.until_hop("consume", "ok", 90)


def test_consume_stands_still_without_a_consumer_and_goes_on_with_one(tenant: Tenant, start: Any, launch: Any) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    consumer = launch("consume")
    page = start({"consumer": consumer})
    page.until("all taken", lambda state: state["counts"].get("rows") == records)
    page.until_hop("consume", "ok")
    os.kill(consumer.process.pid, signal.SIGSTOP)
    simulate(tenant)
    page.until("a record waits", lambda state: sum(state["lag"].values()) == 1)
    hop = page.until_hop("consume", "stopped")
    assert hop["sentence"] == "The service consumer does not answer; 1 record behind."
    assert "./meteo restart consumer" in hop["remedy"]
    assert "meteo_pipeline_lag_records" in page.get("/metrics").text
    os.kill(consumer.process.pid, signal.SIGCONT)
    page.until_hop("consume", "ok")
    assert page.state()["counts"]["rows"] == records + 1
    consumer.stop()
    assert "does not answer; 0 records behind" in page.until_hop("consume", "stopped")["sentence"]


def test_records_that_nobody_takes(tenant: Tenant, start: Any) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    page = start()
    hop = page.until_hop("consume", "stopped")
    assert hop["sentence"].startswith(f"No consumer is deployed, and {records} records wait")
    assert "./meteo consume --until-idle" in hop["remedy"]
    tiers.consume(tenant)
    page.until_hop("consume", "ok")
    hop = page.until_hop("export", "stopped")
    assert hop["sentence"].startswith(f"{records} rows to export")
    tiers.export(tenant)
    page.until_hop("export", "ok")
    assert "1 day to aggregate" in page.until_hop("aggregate", "stopped")["sentence"]
    tiers.aggregate(tenant)
    page.until_hop("aggregate", "ok")
    page.until_hop("serve", "ok")


def test_cycles_that_fail_make_a_hop_late_and_then_stand_still(tenant: Tenant, start: Any, launch: Any) -> None:
    """The export's clock is real, the page's is fast: to it the last cycle was minutes ago."""
    fill(tenant)
    export = launch("export", "--every", "60s")
    tiers.eventually("a cycle", lambda: export.metric("meteo_cycle_last_success_timestamp_seconds") > 0)
    assert export.metric("meteo_cycle_interval_seconds") == 60
    for ahead, state in ((0, "ok"), (240, "late"), (900, "stopped")):
        page = start({"export": export}, **clock(f"+{ahead}s"))
        hop = page.until_hop("export", state)
        assert "one is due every 60 s" in hop["sentence"]
        page.service.kill()


def test_the_weather_is_fresh_only_when_it_was_collected_lately(tenant: Tenant, start: Any, launch: Any) -> None:
    fill(tenant)
    producer = launch("produce", "--source", "simulation", extra={"PRODUCE_EVERY": "60s", "CITY": "Oslo,NO@59.9,10.7"})
    services = {
        "producer": producer,
        "consumer": launch("consume"),
        "export": launch("export", *SECOND),
        "aggregate": launch("aggregate", *SECOND),
    }
    page = start(services)
    state = page.until("fresh", lambda state: state["fresh"], 60)
    assert state["sentence"].startswith("The weather is fresh: collected")
    assert (state["hop"], state["why"], state["remedy"]) == (None, "", "")
    assert state["poll_interval_seconds"] == 60
    assert state["reconciliation"]["mismatches"] == 0
    assert "meteo_pipeline_fresh 1.0" in page.get("/metrics").text
    producer.kill()
    state = page.until("not fresh", lambda state: not state["fresh"])
    assert state["hop"] == "produce"
    assert "produce stands still" in state["sentence"]
    assert "meteo_pipeline_fresh 0.0" in page.get("/metrics").text


def test_a_replayed_or_backfilled_message_makes_nothing_fresh(tenant: Tenant, start: Any) -> None:
    now = datetime.now(UTC)
    message = json.loads(encode_recorded())
    past = {
        **message,
        "source": "open-meteo",
        "station_id": "open-meteo:1,2",
        "data_origin": "api",
        "observed_at": (now - timedelta(days=40)).isoformat(),
        "collected_at": now.isoformat(),
    }
    tiers.send(tenant, [json.dumps(each).encode() for each in (message, past)])
    tiers.consume(tenant)
    page = start()
    state = page.until("two stations", lambda state: len(state["stations"]) == 2)
    assert [each["current"] for each in state["stations"]] == [False, False]
    assert "meteo_newest_collection_timestamp_seconds{" not in page.get("/metrics").text


def test_the_answer_to_row_time_is_told_for_current_weather_alone(tenant: Tenant, launch: Any) -> None:
    tiers.publish(tenant, DAY, DAY)
    consumer = launch("consume")
    tiers.eventually("rows", lambda: consumer.metric("meteo_consumer_records_total", outcome="row") == 72)
    assert consumer.metric("meteo_answer_to_row_seconds_count") == 0
    simulate(tenant)
    tiers.eventually("a row", lambda: consumer.metric("meteo_consumer_records_total", outcome="row") == 73)
    tiers.eventually("told", lambda: consumer.metric("meteo_answer_to_row_seconds_count") == 1)
    assert 0 < consumer.metric("meteo_answer_to_row_seconds_sum") < 30


def test_a_service_that_waits_is_healthy_and_not_ready(tenant: Tenant, launch: Any) -> None:
    gate, url = database_gate(tenant)
    consumer = launch("consume", extra={"DATABASE_URL": url})
    tiers.eventually("ready", lambda: consumer.get("/readyz").status_code == 200)
    gate.shut()
    simulate(tenant)
    tiers.eventually("not ready", lambda: consumer.get("/readyz").status_code == 503)
    assert "PostgreSQL" in consumer.get("/readyz").json()["waiting_for"]
    assert consumer.get("/healthz").status_code == 200
    gate.open()
    tiers.eventually("ready again", lambda: consumer.get("/readyz").status_code == 200, 60)


def encode_recorded() -> bytes:
    """Return a recorded message's bytes."""
    return json.dumps(tiers.recorded_message(DAY)).encode()


def _hop(state: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(hop for hop in state["hops"] if hop["name"] == name)
    return found
