"""Consumers killed (-9) at named places and at random moments, while poisoned records flow: each is taken once."""

from __future__ import annotations

import random
import signal
import time

import campaign
import pytest
from campaign import Feed, Group, Watch
from figures import Campaigns

from meteo_common.failpoints import FAILPOINTS


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("consumer.")])
def test_a_consumer_of_the_group_that_is_killed_at_a_named_place_goes_on(group: Group, name: str) -> None:
    """The third time, so that something is committed before; dead letters and rows in one batch."""
    feed = Feed(group.tenant, campaign.seeded(), poisoned=0.01)
    feed.send(3_000)
    victim = group.start("a", static=True, extra={"METEO_FAILPOINT": f"{name}:3"})
    with feed.flowing(3_000, per_second=1_000):
        assert victim.process.wait(60) == -signal.SIGKILL
        group.start("a", static=True)
    campaign.settle(group.tenant)
    group.stop()
    campaign.assert_each_once(group.tenant)


@pytest.mark.campaign
def test_consumers_killed_at_random_moments_lose_and_double_nothing(group: Group, campaigns: Campaigns) -> None:
    chance = campaign.seeded()
    kills, messages = campaigns.size(10, 100), campaigns.size(20_000, 200_000)
    group.start_pair(static=True)
    feed = Feed(group.tenant, chance, poisoned=0.002)
    killed = 0
    with Watch(group.tenant) as watch:
        with feed.flowing(10 * messages, per_second=800):
            while killed < kills or feed.sent < messages:
                killed += strike(group, chance)
            feed.enough.set()
        campaign.settle(group.tenant)
    group.stop()
    counted = campaign.assert_each_once(group.tenant)
    campaigns.note("consumers killed", killed, feed.sent, counted, watch)


def strike(group: Group, chance: random.Random) -> int:
    """Kill one consumer, or both, and start them again a little later; return how many."""
    victims = chance.choice(("a", "b", "ab"))
    time.sleep(chance.uniform(0, 1))
    for name in victims:
        group[name].kill()
    time.sleep(chance.uniform(0, 1))
    for name in victims:
        group.start(name, static=True)
    return len(victims)
