"""The producer killed, stopped and without Kafka: what it has in its outbox reaches the topic; repeats stay repeats."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import campaign
import pytest
import tiers
import weather_host
from figures import Campaigns, Figures
from pytest_httpserver import HTTPServer
from servers import Servers
from weather_host import PLACES, OpenWeatherTime, WeatherHost

from conftest import Tenant
from meteo_common.failpoints import FAILPOINTS


@pytest.fixture
def host(httpserver: HTTPServer) -> WeatherHost:
    return WeatherHost(httpserver)


def finish(tenant: Tenant, host: WeatherHost) -> tuple[set[OpenWeatherTime], set[OpenWeatherTime]]:
    """Take all; return which answers are in the topic not at all, and more than once. The table must tell the same."""
    assert weather_host.outbox(tenant) == []
    found = weather_host.in_topic(tenant)
    assert found.keys() <= set(host.given)
    tiers.consume(tenant)
    assert weather_host.in_table(tenant) == found
    return set(host.given) - found.keys(), {answer for answer, times in found.items() if times > 1}


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("producer.")])
def test_a_producer_killed_at_a_named_place_loses_nothing_that_it_kept(
    servers: Servers, host: WeatherHost, tmp_path: Path, name: str
) -> None:
    tenant = servers.tenant()
    killed = host.produce(tenant, tmp_path / "killed.log", {"METEO_FAILPOINT": f"{name}:{PLACES + 1}"})
    assert killed.process.wait(60) == -signal.SIGKILL
    answered, kept, arrived = list(host.given), weather_host.outbox(tenant), weather_host.in_topic(tenant)
    again = host.produce(tenant, tmp_path / "again.log")
    tiers.eventually("another round", lambda: len(host.given) >= len(answered) + PLACES)
    again.stop()
    lost, repeated = finish(tenant, host)
    if name == "producer.after_answer":
        assert kept == []
        assert lost == {answered[-1]}
    else:
        assert kept == [answered[-1]]
        assert lost == set()
    assert repeated == set(kept) & arrived.keys()
    if name != "producer.after_send":
        # Between send and acknowledgement it may be either.
        assert bool(repeated) == (name == "producer.after_ack")


def test_what_is_answered_while_kafka_is_away_survives_a_stop_and_arrives(
    servers: Servers, host: WeatherHost, tmp_path: Path
) -> None:
    tenant = servers.tenant()
    producer = host.produce(tenant, tmp_path / "first.log")
    tiers.eventually("a round", lambda: len(weather_host.in_topic(tenant)) >= PLACES)
    with servers.without("kafka"):
        tiers.eventually("a message waits", lambda: weather_host.outbox(tenant))
        producer.stop()
        kept = weather_host.outbox(tenant)
        producer = host.produce(tenant, tmp_path / "second.log")
        tiers.eventually("two more rounds wait", lambda: len(weather_host.outbox(tenant)) >= len(kept) + 2 * PLACES)
        assert weather_host.outbox(tenant)[: len(kept)] == kept
        tiers.eventually("it says what it waits for", producer.waits)
    tiers.eventually("the outbox is empty", lambda: not weather_host.outbox(tenant), 90)
    producer.stop()
    lost, _ = finish(tenant, host)
    assert lost == set()


@pytest.mark.campaign
def test_a_producer_killed_at_random_moments_loses_nothing_that_it_kept(
    servers: Servers, host: WeatherHost, tmp_path: Path, campaigns: Campaigns
) -> None:
    """Ten answers of 0.08 s each a second: it is hardly ever idle."""
    tenant, chance = servers.tenant(), campaign.seeded()
    host.delay = 0.08
    begun = time.monotonic()
    kills = campaigns.size(3, 50)
    waiting: set[OpenWeatherTime] = set()
    for number in range(kills):
        producer = host.produce(tenant, tmp_path / f"{number}.log")
        time.sleep(chance.uniform(0, 2))
        producer.kill()
        waiting.update(weather_host.outbox(tenant))
    answered = len(host.given)
    producer = host.produce(tenant, tmp_path / "last.log")
    tiers.eventually("a round", lambda: len(host.given) >= answered + PLACES)
    producer.stop()
    lost, repeated = finish(tenant, host)
    assert lost <= set(host.last.values()) - waiting
    assert repeated <= waiting
    rows = weather_host.in_table(tenant).total()
    kept_and_lost = len(lost & waiting)
    seconds = time.monotonic() - begun
    campaigns.found.append(
        Figures("producer killed", kills, len(host.given), rows, 0, len(repeated), kept_and_lost, None, seconds)
    )
