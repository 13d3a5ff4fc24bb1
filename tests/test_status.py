"""`./meteo status` on the real servers: one screen, for people and machines, also while the page is down."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from contextlib import suppress

import tiers
from paging import simulate, stack_index

from conftest import METEO, Tenant

DAY = "2013-03-30"
HOPS = ["produce", "consume", "export", "aggregate", "serve"]


def test_it_tells_what_runs_and_how_far_each_tier_is(tenant: Tenant) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    tiers.export(tenant)
    simulate(tenant)
    extra = {"METEO_STACK_FILE": str(stack_index(tenant, {}))}
    facts = json.loads(tenant.meteo("status", "--json", extra=extra))
    servers = {service["name"]: service for service in facts["services"]}
    for name in ("kafka", "postgres", "namenode", "resourcemanager", "hbase-master"):
        assert servers[name]["state"] == "RUNNING"
        assert servers[name]["healthy"], name
        assert servers[name]["since"] is not None
    state = facts["pipeline"]
    assert [hop["name"] for hop in state["hops"]] == HOPS
    assert state["counts"]["rows"] == records
    assert sum(state["lag"].values()) == 1
    assert state["counts"]["days_changed"] == 1
    assert [each["station_id"] for each in state["stations"]] == ["replay:EWR", "replay:JFK", "replay:LGA"]
    shown = tenant.meteo("status", extra=extra)
    assert state["sentence"].endswith("consume stands still.")
    assert shown.splitlines()[0].endswith("consume stands still.")
    assert f"{records} rows, 1 record behind (lag)" in shown
    assert all(name in shown for name in HOPS)
    assert "kafka" in shown


def test_it_tells_which_server_is_away(tenant: Tenant) -> None:
    away = {
        "DATABASE_URL": "postgresql://meteo@127.0.0.1:9/weatherdb",
        "BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "HDFS_URL": "http://127.0.0.1:9",
        "HBASE_PORT": "9",
        "METEO_STACK_FILE": str(stack_index(tenant, {})),
    }
    started = time.monotonic()
    shown = tenant.meteo("status", extra=away)
    assert time.monotonic() - started < 40, "each server is waited for 5 s at most, side by side"
    assert shown.count("stands still") >= 5
    for server in ("Kafka", "PostgreSQL", "HBase"):
        assert f"{server} at 127.0.0.1:9" in shown
    assert "Traceback" not in shown
    facts = json.loads(tenant.meteo("status", "--json", extra=away))
    assert facts["pipeline"]["hop"] == "produce"


def test_it_watches_until_it_is_interrupted(tenant: Tenant) -> None:
    own, theirs = pty.openpty()
    environment = {**tenant.environment, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    process = subprocess.Popen([METEO, "status", "--watch"], env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    end = time.monotonic() + 60
    while shown.count(b"produce") < 2 and time.monotonic() < end:
        shown += os.read(own, 65536)
    process.send_signal(signal.SIGINT)
    # Read on: who writes to a terminal that nobody reads waits for ever.
    with suppress(OSError):
        while rest := os.read(own, 65536):
            shown += rest
    assert process.wait(15) == 130
    os.close(own)
    assert shown.count(b"produce") >= 2, "it shows the screen again and again"
    assert b"Traceback" not in shown
