"""The topic changes under running consumers: made again, or its records deleted before they were taken."""

from __future__ import annotations

from contextlib import closing

import campaign
import tiers
from campaign import Feed, Group
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from conftest import PARTITIONS, Tenant


def administer(tenant: Tenant) -> closing[KafkaAdminClient]:
    return closing(KafkaAdminClient(bootstrap_servers=tenant.settings.bootstrap_servers.split(",")))


def make_again(tenant: Tenant) -> None:
    name = tenant.settings.topic_name
    with administer(tenant) as client:
        client.delete_topics([name])
        tiers.eventually("the end of the topic", lambda: name not in client.list_topics())
        client.create_topics([NewTopic(name, PARTITIONS, 1)])
        tiers.eventually("the topic", lambda: name in client.list_topics())


def test_a_topic_made_again_under_consumers_with_their_hands_full_is_taken_from_its_start(group: Group) -> None:
    """What they hold of the old one may still become its rows, never the new one's: offsets begin at 0 again."""
    group.start_pair(static=True)
    feed = Feed(group.tenant, campaign.seeded(), poisoned=0.002)
    feed.send(3_000)
    campaign.settle(group.tenant)
    with campaign.held_position(group.tenant, 0, 1, 2):
        feed.send(3_000)
        make_again(group.tenant)
        feed.send(6_000)
    tiers.eventually(
        "the new generation",
        lambda: group.tenant.query("SELECT max(generation) FROM topics") == [(2,)],
    )
    campaign.settle(group.tenant)
    group.stop()
    counted = campaign.assert_each_once(group.tenant)
    assert counted.rows + counted.dead_letters == 6_000


def test_what_kafka_deletes_under_a_running_consumer_is_a_gap(group: Group) -> None:
    """More waits than a writer holds; then the log's start goes past what was fetched."""
    group.start("a", static=True)
    group.wait_for_shares(3)
    feed = Feed(group.tenant, campaign.seeded(), poisoned=0.002)
    feed.send(300)
    campaign.settle(group.tenant)
    with campaign.held_position(group.tenant, 0):
        feed.send(30_000, partitions=[0])
        with administer(group.tenant) as client:
            client.delete_records({TopicPartition(group.tenant.settings.topic_name, 0): 25_000})
    campaign.settle(group.tenant)
    group.stop()
    ((partition, first, end),) = group.tenant.query("SELECT partition, from_offset, to_offset FROM gaps")
    assert (partition, end) == (0, 25_000)
    assert 100 < first < 25_000  # type: ignore[operator]
    campaign.assert_each_once(group.tenant, gaps=[(0, first, 25_000)])  # type: ignore[list-item]


class NotUtf8(str):
    """A header's name as other clients may write it: Java's and librdkafka's do not look."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:  # type: ignore[override]
        return b"\xff"


def test_a_record_that_the_client_cannot_read_holds_up_its_partition_alone(group: Group) -> None:
    tenant = group.tenant
    name = tenant.settings.topic_name
    group.start("a", static=True)
    group.wait_for_shares(3)
    feed = Feed(tenant)
    feed.send(300)
    with closing(KafkaProducer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as producer:
        producer.send(name, b"{}", headers=[(NotUtf8("x"), b"")], partition=0).get(10)
    feed.send(3_000)
    expected = {0: 100, 1: 1_100, 2: 1_100}
    tiers.eventually("the other partitions", lambda: campaign.positions(tenant) == expected)
    tiers.eventually("it says so", lambda: group["a"].metric("meteo_consumer_unreadable", partition="0") == 1)
    assert group["a"].waits()
    ran = tiers.run(tenant, "consume", "--until-idle")
    assert "cannot read the record at offset 100 of partition 0" in tiers.sentence(ran, 1)
    with administer(tenant) as client:
        client.delete_records({TopicPartition(name, 0): 101})
    campaign.settle(tenant)
    tiers.eventually("it waits for nothing", lambda: not group["a"].waits())
    assert group["a"].metric("meteo_consumer_unreadable", partition="0") == 0
    group.stop()
    campaign.assert_each_once(tenant, gaps=[(0, 100, 101)])
