"""The topic as the broker has it now: its id, its partitions and their ends."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import Settings

CONNECT_MS = 10_000
"""One-shot commands give up on an absent broker after this long."""
SERVICE_CONNECT_MS = 4_000
"""Services try again, and must stop within 10 s even amid an attempt."""


@dataclass(frozen=True)
class TopicInfo:
    """A topic's name, the id that the broker gave it when it was created, and its partitions' numbers."""

    name: str
    topic_id: UUID
    partitions: tuple[int, ...]


def describe_topic(settings: Settings, patience_ms: int = CONNECT_MS) -> TopicInfo:
    """Return what the broker says of TOPIC_NAME, looking for one for `patience_ms`.

    Raises UnreachableError when no broker answers, UsageError when it has no such topic.
    """
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=settings.bootstrap_servers.split(","),
            client_id="meteo",
            bootstrap_timeout_ms=patience_ms,
            request_timeout_ms=patience_ms,
        )
    except KafkaError as error:
        raise unreachable(settings, error) from None
    try:
        (answer,) = admin.describe_topics([settings.topic_name])
    except KafkaError as error:
        raise unreachable(settings, error) from None
    finally:
        with suppress(KafkaError):
            admin.close()
    if answer["error_code"] or not answer["partitions"]:
        raise UsageError(
            f"The broker at {settings.bootstrap_servers} has no topic {settings.topic_name}: correct TOPIC_NAME,"
            " or add the topic to kafka_topics and run ./meteo up."
        )
    numbers = sorted(partition["partition_index"] for partition in answer["partitions"])
    return TopicInfo(settings.topic_name, UUID(str(answer["topic_id"])), tuple(numbers))


def open_consumer(settings: Settings, group: str | None, patience_ms: int = CONNECT_MS) -> KafkaConsumer:
    """Return a consumer that never commits by itself and never creates a topic.

    Raises UnreachableError when no broker answers.
    """
    try:
        return KafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers.split(","),
            client_id="meteo-consumer",
            group_id=group,
            # Under a lasting name a restart within the session's time moves no partition.
            group_instance_id=settings.consumer_instance if group else None,
            # Whoever comes or goes, only the partitions that move change hands.
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            bootstrap_timeout_ms=patience_ms,
            # A consumer that died gives its partitions back after this, not after 45 s; heartbeats have a thread.
            session_timeout_ms=10_000,
            # A member hears of a rebalance by its heartbeat; who has joined again fetches nothing until all have.
            heartbeat_interval_ms=1_000,
            max_partition_fetch_bytes=1 << 20,
            fetch_max_bytes=4 << 20,
            # A partition that was paused waits for the fetch under way: the default of 500 ms would show.
            fetch_max_wait_ms=100,
            # How soon the client learns by itself that a topic was made again.
            metadata_max_age_ms=5_000,
            metrics_enabled=False,
        )
    except KafkaError as error:
        raise unreachable(settings, error) from None


def log_bounds(
    consumer: KafkaConsumer, topic: TopicInfo, numbers: Collection[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return the first offset and the end (one past the last offset) of these partitions."""
    partitions = [TopicPartition(topic.name, number) for number in numbers]
    try:
        starts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    except KafkaError as error:
        raise UnreachableError(f"Kafka does not say where {topic.name} begins and ends ({error}).") from None
    return (
        {partition.partition: offset for partition, offset in starts.items()},
        {partition.partition: offset for partition, offset in ends.items()},
    )


def known_topic_id(consumer: KafkaConsumer, name: str) -> UUID | None:
    """Return the topic's id as the client knows it at the moment, without asking; None while it knows none."""
    identity = consumer._cluster.topic_id(name)
    return None if identity is None else UUID(str(identity))


def free_parked_records(consumer: KafkaConsumer) -> None:
    """Let the client give back what it fetched of a partition that was paused meanwhile; before each poll.

    kafka-python 3.0.12 gives it back only when no other partition's records are in line, and takes read ones for some
    in line: a partition that is resumed when the others are at their ends would stand still for ever.
    """
    if not consumer._fetcher._next_partition_records:
        consumer._fetcher._next_partition_records = None


def drop_unreadable(consumer: KafkaConsumer) -> int | None:
    """Forget the records that the client was giving back when it raised; return their partition, None for none.

    Their iterator is dead, and kafka-python 3.0.12 would ask it for ever.
    """
    records, consumer._fetcher._next_partition_records = consumer._fetcher._next_partition_records, None
    return None if records is None else int(records.topic_partition.partition)


def unreachable(settings: Settings, error: KafkaError) -> UnreachableError:
    """Return the sentence for a broker that does not answer."""
    return UnreachableError(
        f"Kafka at {settings.bootstrap_servers} (BOOTSTRAP_SERVERS) cannot be reached"
        f" ({type(error).__name__}); is the stack up? (./meteo up)"
    )
