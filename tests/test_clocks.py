"""Clocks that are half an hour off: what the services take and send does not depend on them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import campaign
import libfaketime
import tiers
import weather_host
from campaign import Feed, Group
from pytest_httpserver import HTTPServer
from running import Running
from servers import Servers
from weather_host import PLACES, WeatherHost

LIBRARY = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
OFF = {"+30m": timedelta(minutes=30), "-30m": timedelta(minutes=-30)}


def clock(offset: str) -> dict[str, str]:
    """Return what makes a process see another time of day; how long something takes stays as it is."""
    return {"LD_PRELOAD": str(LIBRARY), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def told(service: Running, event: str) -> datetime:
    """Return when a service says that something happened, by its own clock."""
    return next(datetime.fromisoformat(line["timestamp"]) for line in service.events() if line["event"] == event)


def test_consumers_whose_clocks_disagree_take_each_record_once(group: Group) -> None:
    for name, offset in zip(("fast", "slow"), OFF, strict=True):
        group.start(name, extra=clock(offset))
    group.wait_for_shares(1, 2)
    apart = told(group["fast"], "partitions") - told(group["slow"], "partitions")
    assert abs(apart - timedelta(hours=1)) < timedelta(minutes=5)
    feed = Feed(group.tenant, campaign.seeded(), poisoned=0.01)
    with feed.flowing(6_000, per_second=2_000):
        time.sleep(1)
        group["fast"].stop()
        tiers.eventually("the other takes over", lambda: group.held("slow") == {0, 1, 2})
    campaign.settle(group.tenant)
    group.stop()
    campaign.assert_each_once(group.tenant)


def test_a_producer_whose_clock_jumps_goes_on_asking_and_sending(
    servers: Servers, httpserver: HTTPServer, tmp_path: Path
) -> None:
    """Forth by half an hour, back by an hour: with the same state, and a budget that counts by the clock."""
    host, tenant = WeatherHost(httpserver), servers.tenant()
    for offset in OFF:
        asked, began = len(host.given), datetime.now(UTC)
        extra = {**clock(offset), "OPENWEATHER_BUDGET": "600/1m"}
        producer = host.produce(tenant, tmp_path / f"{offset}.log", extra)
        tiers.eventually("two rounds", lambda asked=asked: len(host.given) >= asked + 2 * PLACES)  # type: ignore[misc]
        producer.stop()
        assert abs(told(producer, "producing") - began - OFF[offset]) < timedelta(minutes=5)
    assert weather_host.outbox(tenant) == []
    assert weather_host.in_topic(tenant) == dict.fromkeys(host.given, 1)
    tiers.consume(tenant)
    assert weather_host.in_table(tenant) == weather_host.in_topic(tenant)
    observed = tenant.query("SELECT date_time FROM weather")
    assert {at.timestamp() for (at,) in observed} == set(host.given)  # type: ignore[attr-defined]
