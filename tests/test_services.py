"""The long-running services as processes: they tell how they are, stop when asked, and outlive their servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import running
import tiers
from running import Running

from conftest import PARTITIONS, Tenant

DAY = "2013-03-30"
CONSUME = ("consume",)
EXPORT = ("export", "--every", "1s")
AGGREGATE = ("aggregate", "--every", "1s")


@pytest.fixture
def launch(tenant: Tenant, tmp_path: Path) -> Iterator[Any]:
    """A function that starts a service of the tenant; what still runs at the end is killed."""
    started: list[Running] = []

    def start(*arguments: str, extra: dict[str, str] | None = None) -> Running:
        log = tmp_path / f"{len(started)}.log"
        started.append(running.launch(tenant, *arguments, log=log, extra=extra))
        started[-1].wait_until_up()
        return started[-1]

    yield start
    for service in started:
        service.kill()


@contextmanager
def stopped(stack: Path, server: str) -> Iterator[None]:
    """Stop a server of the test stack, and have it back afterwards whatever happens."""

    def supervisorctl(verb: str) -> None:
        subprocess.run(
            [Path(sys.executable).parent / "supervisorctl", "-c", stack / "run" / "supervisor.conf", verb, server],
            check=verb == "stop",
            capture_output=True,
            timeout=90,
        )

    supervisorctl("stop")
    try:
        yield
    finally:
        supervisorctl("start")


def tells(service: Running, metrics: Sequence[str]) -> bool:
    """Say whether the service's metrics hold all of these."""
    answer = service.get("/metrics")
    return answer is not None and all(metric in answer.text for metric in metrics)


def rows(tenant: Tenant) -> int:
    """Count the rows; none as long as no service has come to make the tables: one is up before it asks a server."""
    if tenant.query("SELECT to_regclass('weather')") == [(None,)]:
        return 0
    ((number,),) = tenant.query("SELECT count(*) FROM weather")
    assert isinstance(number, int)
    return number


def test_services_carry_records_through_and_tell_how_they_are(tenant: Tenant, launch: Any) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    services = {name: launch(*argv) for name, argv in {"consumer": CONSUME, "export": EXPORT}.items()}
    tiers.eventually("all rows", lambda: rows(tenant) == records)
    services["aggregate"] = launch(*AGGREGATE)
    tiers.eventually("the aggregates", lambda: (DAY in tiers.read_days(tenant)) and tiers.is_clean(tenant), pause=0.5)
    expected = {
        "consumer": (f'meteo_consumer_records_total{{outcome="row"}} {records}.0', "meteo_consumer_lag_records"),
        "export": ('meteo_cycles_total{outcome="done"}', "meteo_cycle_last_success_timestamp_seconds"),
        "aggregate": ('meteo_cycles_total{outcome="done"}', "meteo_cycle_last_success_timestamp_seconds"),
    }
    for name, service in services.items():
        # A cycle ends with counting all tiers, some time after its results can be seen.
        tiers.eventually(f"{name}'s metrics", partial(tells, service, expected[name]))
        assert service.get("/healthz").json() == {
            "service": name,
            "healthy": True,
            "ready": True,
            "waiting_for": None,
        }
        assert service.get("/nothing").status_code == 404
        service.stop()
        events = service.events()
        assert all({"event", "level", "timestamp"} <= event.keys() and event["service"] == name for event in events)
        assert "stopping" in {event["event"] for event in events}
    tiers.assert_whole(tenant, records)


@pytest.mark.parametrize(
    ("argv", "away"),
    [
        (CONSUME, {"BOOTSTRAP_SERVERS": "127.0.0.1:1"}),
        (CONSUME, {"DATABASE_URL": "postgresql://meteo:x@127.0.0.1:1/weatherdb"}),
        (EXPORT, {"DATABASE_URL": "postgresql://meteo:x@127.0.0.1:1/weatherdb"}),
        (EXPORT, {"HDFS_URL": "http://127.0.0.1:1"}),
        (AGGREGATE, {"DATABASE_URL": "postgresql://meteo:x@127.0.0.1:1/weatherdb"}),
    ],
    ids=lambda it: it[0] if isinstance(it, tuple) else next(iter(it)),
)
def test_a_service_without_its_server_waits_says_so_and_stops_when_asked(
    launch: Any, argv: tuple[str, ...], away: dict[str, str]
) -> None:
    service = launch(*argv, extra=away)
    tiers.eventually("it says what it waits for", service.waits)
    before = len(service.events())
    time.sleep(2)
    events = service.events()
    # Each attempt is begun and has failed; at an interval of 1 s there are two or three.
    assert len(events) - before <= 6, events
    assert next(iter(away)) in json.dumps(events)
    service.stop()


def test_a_port_in_use_is_one_sentence(tenant: Tenant) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for argv in (CONSUME, EXPORT, AGGREGATE):
            told = tiers.sentence(tiers.run(tenant, *argv, extra={"METEO_METRICS_PORT": port}), 2)
            assert f"Port {port} for /metrics of" in told


@pytest.mark.parametrize("server", ["postgres", "kafka"])
def test_the_consumer_outlives_a_server(tenant: Tenant, stack: Path, launch: Any, server: str) -> None:
    consumer, other = launch(*CONSUME), launch(*CONSUME)
    records = tiers.publish(tenant, DAY, DAY)
    tiers.eventually("all rows", lambda: rows(tenant) == records)
    with stopped(stack, server):
        if server == "postgres":
            records += tiers.publish(tenant, DAY, "2013-04-05")
        tiers.eventually("it says what it waits for", consumer.waits, 60)
        before = len(consumer.events())
        time.sleep(3)
        # Each partition tries again after 1 s and 2 s.
        assert len(consumer.events()) - before <= 2 * PARTITIONS
        other.stop()
    if server == "kafka":
        tiers.eventually("Kafka", lambda: tiers.broker_answers(tenant), 60, 0.5)
        records += tiers.publish(tenant, DAY, "2013-04-05")
    tiers.eventually("all rows, without a hand's turn", lambda: tiers.answers(lambda: rows(tenant) == records), 90, 0.5)
    tiers.eventually("it waits for nothing", lambda: not consumer.waits())
    consumer.stop()
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


def test_a_second_consumer_joins_and_leaves(tenant: Tenant, launch: Any) -> None:
    consumers = [launch(*CONSUME), launch(*CONSUME)]
    records = 0

    def all_have_taken() -> bool:
        nonlocal records
        records += tiers.publish(tenant, DAY, DAY)
        return all(any(event["event"] == "taken" for event in consumer.events()) for consumer in consumers)

    tiers.eventually("both take their share", all_have_taken, 60, 1)
    consumers[0].stop()
    records += tiers.publish(tenant, DAY, DAY)
    tiers.eventually("all rows by the one that is left", lambda: rows(tenant) == records, 60)
    consumers[1].stop()
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)
