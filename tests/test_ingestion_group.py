"""Consumers of one group: each record is taken once whoever comes, goes, stands still or is slow."""

from __future__ import annotations

import threading

import campaign
import pytest
from campaign import Feed, Group

from meteo_consumer import writer
from meteo_consumer.consume import consume_until_idle


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
