"""Kafka → PostgreSQL: polls, writes each partition's records with their position, and goes on from the position.

The position in PostgreSQL alone decides what has been taken. Offsets are also committed to Kafka afterwards, for
lag monitoring only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import Counter, Gauge, Histogram
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import open_database
from meteo_common.errors import TransientError, UnreachableError
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_consumer.batch import BatchWriter, sort_records
from meteo_consumer.positions import FencedError, Positions
from meteo_consumer.topic import SERVICE_CONNECT_MS, TopicInfo, describe_topic, log_bounds, open_consumer

log = structlog.get_logger()

GROUP = "meteo-consumer"
POLL_MS = 500
SETTLED_SECONDS = 60.0
"""A connection that held this long makes the next pause short again."""
RECONNECT_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to get a server back; the last one repeats."""
QUIET_SECONDS = 10.0
"""Without a record for this long the broker is asked whether it is there: the client itself waits silently."""
SAME_TOPIC_SECONDS = 5.0
"""The topic's id is asked for again this often, and whenever a partition begins at 0; asking costs 30 ms."""

RECORDS = Counter("meteo_consumer_records", "Records taken, by what became of them", ["outcome"])
BATCHES = Histogram("meteo_consumer_batch_seconds", "Time to write a batch with its position")
LAG = Gauge("meteo_consumer_lag_records", "Records behind the end of the log, at the last poll", ["partition"])


class TopicChangedError(TransientError):
    """The topic is not the one that was looked up: connect again."""


@dataclass
class Taken:
    """What a run has taken."""

    rows: int = 0
    dead_letters: int = 0
    by_others: int = 0
    """Records of the same stretch of the log that other consumers took meanwhile."""


class Consumption:
    """One connection to each server, and the partitions held at the moment."""

    def __init__(self, settings: Settings, topic: TopicInfo, consumer: KafkaConsumer, database: Connection) -> None:
        self._settings = settings
        self._consumer = consumer
        self._database = database
        self._topic = topic
        self._positions = Positions(database, topic)
        self._writer = BatchWriter(database, self._positions)
        self.at: dict[int, int] = {}
        """The next offset of each partition held."""
        self._asked_at = self._took_at = time.monotonic()

    def take_over(self, partitions: Iterable[int]) -> None:
        """Go on from the positions of these partitions."""
        starts, ends = log_bounds(self._consumer, self._topic)
        for partition in partitions:
            if partition not in starts:
                raise TopicChangedError(f"The topic {self._topic.name} has got a partition {partition}; run it again.")
            self.at[partition] = self._positions.position(partition, starts[partition], ends[partition])
            self._consumer.seek(TopicPartition(self._topic.name, partition), self.at[partition])

    def poll(self, taken: Taken) -> None:
        """Take what one poll brings, partition by partition, each in a transaction."""
        polled = self._consumer.poll(timeout_ms=POLL_MS)
        now = time.monotonic()
        if polled:
            self._took_at = now
            if now - self._asked_at > SAME_TOPIC_SECONDS or any(found[0].offset == 0 for found in polled.values()):
                self._ask_topic()
        elif now - self._took_at > QUIET_SECONDS:
            self._took_at = now
            self._ask_topic()
        for partition, records in polled.items():
            if partition.partition in self.at:
                self._take(partition, records, taken)
        for number in self.at.keys() - {partition.partition for partition in polled}:
            self._skip_control_records(TopicPartition(self._topic.name, number))

    def _ask_topic(self) -> None:
        """Raise when the broker is away, or when the topic was deleted and made again under our feet.

        The client fetches by name: it would take the new topic's records for those of the old one.
        """
        self._asked_at = time.monotonic()
        if describe_topic(self._settings).topic_id != self._topic.topic_id:
            raise TopicChangedError(f"The topic {self._topic.name} was made again; run it again to take the new one.")

    def _take(self, partition: TopicPartition, records: list, taken: Taken) -> None:  # type: ignore[type-arg]
        before, after = self.at[partition.partition], records[-1].offset + 1
        if records[0].offset > before:
            # A hole is either transaction markers or what retention deleted while we were reading.
            start = self._consumer.beginning_offsets([partition])[partition]
            if start > before:
                self.take_over([partition.partition])
                return
        batch = sort_records(partition.partition, before, after, records)
        with BATCHES.time():
            self._writer.write(batch)
        self.at[partition.partition] = after
        taken.rows += len(batch.rows)
        taken.dead_letters += len(batch.dead_letters)
        RECORDS.labels("row").inc(len(batch.rows))
        RECORDS.labels("dead_letter").inc(len(batch.dead_letters))
        for letter in batch.dead_letters:
            log.warning("dead letter", partition=partition.partition, offset=letter.record.offset, reason=letter.reason)
        self._report(partition, after)

    def _skip_control_records(self, partition: TopicPartition) -> None:
        """Move the position past markers at the log's end, which poll never returns."""
        reached = self._consumer.position(partition, timeout_ms=POLL_MS)
        if reached is not None and reached > self.at[partition.partition]:
            self._writer.write(sort_records(partition.partition, self.at[partition.partition], reached, []))
            self.at[partition.partition] = reached

    def _report(self, partition: TopicPartition, after: int) -> None:
        end = self._consumer.highwater(partition)
        if end is not None:
            LAG.labels(partition.partition).set(max(0, end - after))
        if self._consumer.config["group_id"] is not None:
            with suppress(KafkaError):
                self._consumer.commit_async({partition: OffsetAndMetadata(after, "", -1)})


def consume_until_idle(settings: Settings) -> Taken:
    """Take everything up to the log's end as it stood at the start; other consumers may be at work meanwhile.

    Reads all partitions without joining the group: the positions fence, so no rebalance is waited for.
    Raises UnreachableError when a server is absent or goes away.
    """
    topic = describe_topic(settings)
    taken = Taken()
    consumer = open_consumer(settings, group=None)
    try:
        consumer.assign([TopicPartition(topic.name, number) for number in topic.partitions])
        _, ends = log_bounds(consumer, topic)
        database = open_database(settings, "consumer")
        try:
            consumption = Consumption(settings, topic, consumer, database)
            consumption.take_over(topic.partitions)
            behind = sum(max(0, end - consumption.at[number]) for number, end in ends.items())
            while any(consumption.at[number] < end for number, end in ends.items()):
                try:
                    consumption.poll(taken)
                except FencedError:
                    consumption.take_over(topic.partitions)
            taken.by_others = max(0, behind - taken.rows - taken.dead_letters)
        finally:
            database.close()
    except KafkaError as error:
        raise UnreachableError(f"Kafka broke off ({error!r}); run it again to go on.") from None
    finally:
        consumer.close()
    return taken


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]
    """Keeps a partition paused from its assignment until its position has been read."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.waiting: set[int] = set()
        self.revoked: set[int] = set()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        partitions = list(assigned)
        # An offset is needed before the position is known; what it would fetch is not fetched while paused.
        for partition in partitions:
            self._consumer.seek(partition, 0)
        self._consumer.pause(*partitions)
        self.waiting |= {partition.partition for partition in partitions}

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.revoked |= {partition.partition for partition in revoked}
        self.waiting -= self.revoked


def consume_forever(settings: Settings, service: Service) -> None:
    """Take records until the service stops; absent servers are waited for.

    Raises TerminalError when going on could lose or double records.
    """
    taken = Taken()
    failures = 0
    while not service.stopping.is_set():
        started = time.monotonic()
        try:
            _consume_while_connected(settings, service, taken)
        except (TransientError, KafkaError) as error:
            log.warning("a server is away, waiting for it", error=str(error) or repr(error))
            service.beat(trouble=str(error) or repr(error))
            if time.monotonic() - started > SETTLED_SECONDS:
                failures = 0
            service.wait(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1
    log.info("stopped", rows=taken.rows, dead_letters=taken.dead_letters)


def _consume_while_connected(settings: Settings, service: Service, taken: Taken) -> None:
    topic = describe_topic(settings, SERVICE_CONNECT_MS)
    consumer = open_consumer(settings, GROUP, SERVICE_CONNECT_MS)
    try:
        listener = _Assigned(consumer)
        consumer.subscribe([topic.name], listener=listener)
        while not service.stopping.is_set():
            database = open_database(settings, "consumer")
            try:
                consumption = Consumption(settings, topic, consumer, database)
                listener.waiting |= {partition.partition for partition in consumer.assignment()}
                _poll_until_fenced(consumption, consumer, listener, service, taken)
            except FencedError as error:
                log.info("the position moved", reason=str(error))
            finally:
                database.close()
    finally:
        consumer.close()


def _poll_until_fenced(
    consumption: Consumption, consumer: KafkaConsumer, listener: _Assigned, service: Service, taken: Taken
) -> None:
    while not service.stopping.is_set():
        for number in listener.revoked:
            consumption.at.pop(number, None)
        listener.revoked.clear()
        if listener.waiting:
            consumption.take_over(listener.waiting)
            consumer.resume(*consumer.paused())
            listener.waiting.clear()
        before = time.monotonic(), taken.rows + taken.dead_letters
        consumption.poll(taken)
        count = taken.rows + taken.dead_letters - before[1]
        if count:
            log.info("taken", records=count, seconds=round(time.monotonic() - before[0], 3))
        service.beat()
