"""Consumers of one group: each record is taken once whoever comes, goes, stands still or is slow."""

from __future__ import annotations

import random
import signal
import threading
import time
from datetime import UTC, datetime

import campaign
import pytest
import tiers
from campaign import Feed, Group, Watch
from figures import Campaigns

from meteo_consumer import writer
from meteo_consumer.consume import consume_until_idle

SESSION_SECONDS = 10
"""After this long without a heartbeat a consumer is out of its group."""


def test_a_partition_that_was_paused_flows_on_when_the_others_are_at_their_ends(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client once kept its fetched records back for ever. Writers that are full at once pause at every poll."""
    monkeypatch.setattr(writer, "BATCH_RECORDS", 100)
    Feed(group.tenant).send(15_000)
    taking = threading.Thread(target=consume_until_idle, args=(group.tenant.settings,), daemon=True)
    taking.start()
    taking.join(40)
    assert not taking.is_alive(), f"stands still at {campaign.positions(group.tenant)}"
    campaign.assert_each_once(group.tenant)


def test_a_restart_under_a_lasting_name_moves_no_partition(group: Group) -> None:
    group.start_pair(static=True)
    held = {name: group.held(name) for name in "ab"}
    feed = Feed(group.tenant)
    feed.send(300)
    campaign.settle(group.tenant)
    for end in ("kill", "stop"):
        rebalances = group["a"].metric("meteo_consumer_rebalances_total")
        getattr(group["b"], end)()
        # At once: the group keeps its place for 10 s.
        group.start("b", static=True)
        feed.send(300)
        campaign.settle(group.tenant)
        tiers.eventually("its own partitions", lambda: group.held("b") == held["b"])
        assert group["a"].metric("meteo_consumer_rebalances_total") == rebalances
    campaign.assert_each_once(group.tenant)


def test_two_consumers_under_one_name_are_told_apart(group: Group) -> None:
    group.start("a", static=True)
    group.wait_for_shares(3)
    other = group.start("other", extra={"CONSUMER_INSTANCE": "a"})
    first = group["a"]
    tiers.eventually("one of them gives way", lambda: not (first.alive and other.alive), 30)
    gone = other if first.alive else first
    assert gone.process.wait(5) == 2
    assert "Another consumer runs under the name 'a' (CONSUMER_INSTANCE)" in gone.log.read_text("utf-8")
    Feed(group.tenant).send(300)
    campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)


def test_partitions_that_do_not_move_keep_their_consumers_when_one_joins(group: Group) -> None:
    group.start_pair()
    held = {name: group.held(name) for name in "ab"}
    feed = Feed(group.tenant)
    with feed.flowing(20_000, per_second=300):
        began = datetime.now(UTC)
        group.start("c")
        group.wait_for_shares(1, 1, 1)
        feed.enough.set()
    (moved,) = group.held("c")
    stayed = {0, 1, 2} - {moved}
    assert set.union(*(held[name] & group.held(name) for name in "ab")) == stayed
    assert not any(group.when("revoked", partition, by="ab", since=began) for partition in stayed)
    (given_up,) = group.when("revoked", moved, by="ab", since=began)
    (taken_over,) = group.when("assigned", moved, by="c", since=began)
    print(f"partition {moved} was nobody's for {(taken_over - given_up).total_seconds():.1f} s")  # noqa: T201
    campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)


def test_a_consumer_that_stood_still_longer_than_its_session_doubles_nothing(group: Group) -> None:
    group.start_pair()
    feed = Feed(group.tenant)
    with feed.flowing(30_000, per_second=300):
        time.sleep(1)
        group["a"].process.send_signal(signal.SIGSTOP)
        tiers.eventually("b takes over", lambda: group.held("b") == {0, 1, 2}, 3 * SESSION_SECONDS)
        time.sleep(2)
        group["a"].process.send_signal(signal.SIGCONT)
        tiers.eventually("a is back", lambda: group.shares() == [1, 2], 3 * SESSION_SECONDS)
        feed.enough.set()
    campaign.settle(group.tenant)
    campaign.assert_each_once(group.tenant)
    group.stop()


@pytest.mark.campaign
def test_a_rebalance_storm_loses_and_doubles_nothing(group: Group, campaigns: Campaigns) -> None:
    chance = campaign.seeded()
    group.start("steady")
    feed = Feed(group.tenant, chance, poisoned=0.002)
    changes = 0
    with Watch(group.tenant) as watch:
        with feed.flowing(campaigns.size(6_000, 90_000), per_second=500) as flow:
            while flow.is_alive():
                storm(group, chance)
                changes += 1
        campaign.settle(group.tenant)
    group.stop()
    counted = campaign.assert_each_once(group.tenant)
    campaigns.note("rebalance storm", changes, feed.sent, counted, watch)


def storm(group: Group, chance: random.Random) -> None:
    """Let one of four consumers come, or go: asked to, or killed."""
    name = f"guest-{chance.randrange(4)}"
    guest = group.members.get(name)
    if guest is None or not guest.alive:
        group.start(name)
    elif chance.random() < 0.7:
        guest.stop()
    else:
        guest.kill()
    time.sleep(chance.uniform(0, 1))
