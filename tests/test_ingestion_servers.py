"""Servers that stop, starve, crawl or are full while records flow: the consumers wait, stay, go on alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import campaign
import pytest
import tiers
from campaign import Feed, Group, Watch
from figures import Campaigns
from servers import Servers

from conftest import Tenant

SESSION_SECONDS = 10
"""After this long without a heartbeat a consumer is out of its group."""
MEMORY = 400 << 20
"""What a consumer may hold, whatever waits."""


SLOW_ROWS = """
    CREATE FUNCTION slow_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END $$;
    CREATE TRIGGER slow_row BEFORE INSERT ON weather FOR EACH ROW EXECUTE FUNCTION slow_row();
"""


@contextmanager
def undisturbed(group: Group) -> Iterator[None]:
    """Fail if a partition comes or goes meanwhile."""
    before = group.rebalances()
    yield
    assert group.rebalances() == before


def two_consumers(group: Group) -> Feed:
    """Return a feed after two consumers have shared the partitions and taken the first records."""
    group.start_pair(static=True)
    feed = Feed(group.tenant, campaign.seeded(), poisoned=0.002)
    feed.send(300)
    campaign.settle(group.tenant)
    return feed


def copying(group: Group) -> bool:
    """Say whether a COPY is under way at this moment."""
    return bool(
        group.tenant.query(
            "SELECT 1 FROM pg_stat_progress_copy WHERE datname = current_database() AND bytes_processed > 0"
        )
    )


@contextmanager
def slow_rows(tenant: Tenant) -> Iterator[None]:
    """Make each row of weather take half a millisecond: a COPY lasts long enough to be met."""
    tenant.query(SLOW_ROWS)
    yield
    # A COPY that began first may hold what this wants: PostgreSQL then refuses one of them.
    drop = "DROP FUNCTION IF EXISTS slow_row CASCADE"
    tiers.eventually("PostgreSQL", lambda: tiers.answers(lambda: tenant.query(drop) == []))


def stop_and_start(servers: Servers, server: str, seconds: float) -> None:
    with servers.without(server):
        time.sleep(seconds)


FAULTS: dict[str, Callable[[Servers], None]] = {
    "kafka stopped": lambda servers: stop_and_start(servers, "kafka", 2),
    "kafka killed": lambda servers: servers.kill("kafka"),
    "postgres stopped": lambda servers: stop_and_start(servers, "postgres", 2),
    "postgres stopped amid a COPY": lambda servers: servers.kill("postgres", signal.SIGQUIT),
    "postgres killed": lambda servers: servers.kill("postgres"),
}


@pytest.mark.campaign
def test_servers_that_go_amid_the_stream_cost_and_double_nothing(
    servers: Servers, group: Group, campaigns: Campaigns
) -> None:
    feed = two_consumers(group)
    # In the short form those that leave the servers no time to put anything right.
    faults = list(FAULTS) * 6 if campaigns.long else [fault for fault in FAULTS if not fault.endswith("stopped")]
    with Watch(group.tenant) as watch:
        for fault in faults:
            print(fault)  # noqa: T201
            with feed.flowing(10_000, per_second=3_000):
                time.sleep(1)
                if fault.endswith("COPY"):
                    with slow_rows(group.tenant):
                        tiers.eventually("a COPY under way", lambda: copying(group), pause=0)
                        FAULTS[fault](servers)
                else:
                    FAULTS[fault](servers)
            campaign.settle(group.tenant, 90)
    tiers.eventually("they wait for nothing", lambda: not any(m.waits() for m in group.members.values()))
    group.stop()
    counted = campaign.assert_each_once(group.tenant)
    campaigns.note("servers stopped and killed", len(faults), feed.sent, counted, watch)


def test_an_absent_postgresql_is_waited_for_in_the_group(servers: Servers, group: Group) -> None:
    feed = two_consumers(group)
    with undisturbed(group):
        with servers.without("postgres"):
            feed.send(30_000)
            tiers.eventually("they say what they wait for", lambda: all(m.waits() for m in group.members.values()))
            time.sleep(SESSION_SECONDS + 1)
            assert all(member.memory() < MEMORY for member in group.members.values())
        campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)


def test_a_full_disk_of_postgresql_is_waited_for_in_the_group(servers: Servers, group: Group) -> None:
    with servers.small_disk(group.tenant, megabytes=96) as disk:
        feed = two_consumers(group)
        with undisturbed(group):
            ballast = fill(disk)
            feed.send(15_000)
            tiers.eventually("they say what they wait for", lambda: all(m.waits() for m in group.members.values()))
            assert "No space left on device" in group["a"].trouble()
            time.sleep(5)
            assert min(campaign.ends(group.tenant)[it] - at for it, at in campaign.positions(group.tenant).items()) > 0
            ballast.unlink()
            campaign.settle(group.tenant)
        tiers.eventually("they wait for nothing", lambda: not any(m.waits() for m in group.members.values()))
        group.stop()
        campaign.assert_each_once(group.tenant)


def fill(disk: Path) -> Path:
    """Return a file that leaves no room on this disk."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        space = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize)
    return ballast


def test_a_slow_postgresql_holds_up_its_partition_alone(group: Group) -> None:
    feed = two_consumers(group)
    with undisturbed(group):
        with campaign.held_position(group.tenant, 0):
            before = campaign.positions(group.tenant)
            feed.send(60_000)
            expected = {0: before[0], 1: before[1] + 20_000, 2: before[2] + 20_000}
            tiers.eventually("the other partitions", lambda: campaign.positions(group.tenant) == expected)
            time.sleep(SESSION_SECONDS + 1)
            assert all(member.memory() < MEMORY for member in group.members.values())
        campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)


def backends(group: Group) -> list[int]:
    found = group.tenant.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'meteo-consumer'"
    )
    return [int(str(pid)) for (pid,) in found]


def test_a_postgresql_that_stands_still_is_left_and_found_again(group: Group) -> None:
    """Longer than any time-out of a connection: what the sessions hold when they wake is fenced off."""
    feed = two_consumers(group)
    frozen = backends(group)
    assert len(frozen) == 3
    with undisturbed(group):
        try:
            for backend in frozen:
                os.kill(backend, signal.SIGSTOP)
            feed.send(30_000)
            time.sleep(30)
        finally:
            for backend in frozen:
                os.kill(backend, signal.SIGCONT)
        campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)
