"""What one connection to Kafka takes: polls, and hands each partition's records to its writer.

Offsets are also committed to Kafka afterwards, for lag monitoring only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    CorruptRecordError,
    IllegalStateError,
    KafkaError,
    OffsetOutOfRangeError,
    UnsupportedCodecError,
)
from prometheus_client import Gauge

from meteo_common.errors import TerminalError, TransientError
from meteo_common.settings import Settings
from meteo_consumer.topic import (
    SERVICE_CONNECT_MS,
    TopicInfo,
    describe_topic,
    drop_unreadable,
    free_parked_records,
    known_topic_id,
    log_bounds,
)
from meteo_consumer.writer import PartitionWriter, Stretch

log = structlog.get_logger()

POLL_MS = 500
BUSY_POLL_MS = 20
"""While a writer begins or is full: it is looked after this often."""
POLL_BYTES = 2 << 20
MOST_POLLED = 2_000
"""What one poll may bring, by the size of the records so far. A poll costs 0.2 ms; of 2,000 full messages with their
forecast, 24 MB, each partition would hold two or three times as many."""
QUIET_SECONDS = 10.0
"""Without a record for this long the broker is asked whether it is there: the client itself waits silently."""
HELD_UP_SECONDS = 1.0
"""A loop that stood still for this long (a stopped process) asks for the topic before it believes what it fetches."""
REPORT_SECONDS = 1.0
"""How often offsets are committed to Kafka and the lag is told."""
COMMIT_SECONDS = 10.0
"""Offsets that stayed are committed again this often: kafka-python 3.0.12 tells of a second consumer under the same
name by a refused commit alone (its heartbeats just end), and where no record comes no offset moves."""
UNREADABLE_SECONDS = 10.0
"""How long a partition stands still at a record that the client cannot read, before it is tried again."""
CLOSE_SECONDS = 3.0
"""How long the batches in hand are waited for at the end."""

# The group may take a partition in the client's own thread, between two of our calls: then the client no longer knows
# it, and says so in one of these ways. The note of it is about to be followed.
GONE = (KeyError, ValueError, AssertionError, IllegalStateError)

LAG = Gauge("meteo_consumer_lag_records", "Records behind the end of the log", ["partition"])
UNREADABLE = Gauge("meteo_consumer_unreadable", "1 while a partition stands still at a record", ["partition"])


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
    """One connection to Kafka, and a writer for each partition held at the moment.

    `patient`: whether an absent PostgreSQL is waited for, with its partitions paused; else it is raised.
    """

    def __init__(self, settings: Settings, topic: TopicInfo, consumer: KafkaConsumer, *, patient: bool) -> None:
        self.taken = Taken()
        self._settings = settings
        self._topic = topic
        self._consumer = consumer
        self._patient = patient
        self._writers: dict[int, PartitionWriter] = {}
        self._at: dict[int, int] = {}
        """The next offset to hand over, of the partitions that flow."""
        self._aside: dict[int, tuple[float, str]] = {}
        """Partitions at a record that cannot be read: until when they stand still, and why."""
        now = time.monotonic()
        self._looked_at = self._took_at = self._polled_at = self._reported_at = self._committed_at = now
        self._committed: dict[int, int] = {}
        self._told = 0
        self._polled_most = MOST_POLLED // 10

    @property
    def troubles(self) -> str | None:
        """What the writers wait for, or why a partition stands still."""
        waiting = [writer.trouble for writer in self._writers.values() if writer.trouble]
        return next(iter([*waiting, *(reason for _, reason in self._aside.values())]), None)

    def position(self, partition: int) -> int | None:
        """Return the first offset of a partition that is not committed yet; None until it is known."""
        return self._writers[partition].position

    def hold(self, partitions: Iterable[int]) -> None:
        """Begin with these partitions, from their positions."""
        for number in partitions:
            if number not in self._writers:
                stand_still(self._consumer, [TopicPartition(self._topic.name, number)])
                self._writers[number] = PartitionWriter(self._settings, self._topic, number, patient=self._patient)

    def release(self, partitions: Iterable[int]) -> None:
        """End with these partitions; what is not written yet is left to whoever holds them next."""
        for writer in [self._writers.pop(number) for number in partitions if number in self._writers]:
            self._at.pop(writer.partition, None)
            if self._aside.pop(writer.partition, None):
                UNREADABLE.labels(writer.partition).set(0)
            writer.close()
            self._count(writer)

    def close(self) -> None:
        """End with all partitions, after the batches in hand."""
        writers = list(self._writers.values())
        for writer in writers:
            writer.close()
        end = time.monotonic() + CLOSE_SECONDS
        for writer in writers:
            writer.join(max(0.0, end - time.monotonic()))
        with suppress(KafkaError):
            self._report()
        self.release(list(self._writers))

    def poll(self) -> None:
        """Hand over what one poll brings, after looking after the writers.

        Raises what ended a writer, UnreachableError when Kafka does not answer, TopicChangedError, and TerminalError at
        a record that cannot be read, unless it is patient.
        """
        flowing = self._look_after_writers()
        free_parked_records(self._consumer)
        try:
            polled = self._consumer.poll(POLL_MS if flowing else BUSY_POLL_MS, self._polled_most)
        except OffsetOutOfRangeError:
            # Retention was faster than we, or the log was cut back: the position and the new bounds say which.
            self._begin_again(list(self._writers))
            return
        except (CorruptRecordError, UnsupportedCodecError) as error:
            self._set_aside(drop_unreadable(self._consumer), error)
            return
        self._check_topic(bool(polled))
        for partition, records in polled.items():
            if partition.partition in self._at:
                self._hand_over(partition.partition, records)
        due = time.monotonic() - self._reported_at > REPORT_SECONDS
        if due or not polled:
            # Not after each poll: the client's other thread has to be asked, which costs as much as 20 records.
            for number in self._at.keys() - {partition.partition for partition in polled}:
                self._skip_what_is_no_record(number)
        if due:
            self._report()

    def _report(self) -> None:
        """Commit offsets and tell the lag."""
        self._reported_at = time.monotonic()
        moved = {}
        taken = self._written()
        if taken != self._told:
            log.info("taken", records=taken - self._told)
            self._told = taken
        if self._reported_at - self._committed_at > COMMIT_SECONDS:
            self._committed_at = self._reported_at
            self._committed.clear()
        for number, writer in self._writers.items():
            if writer.position is None:
                continue
            partition = TopicPartition(self._topic.name, number)
            if self._committed.get(number) != writer.position:
                moved[partition] = OffsetAndMetadata(writer.position, "", -1)
                self._committed[number] = writer.position
            with suppress(*GONE):
                if (end := self._consumer.highwater(partition)) is not None:
                    LAG.labels(number).set(max(0, end - writer.position))
        if moved and self._consumer.config["group_id"] is not None:
            with suppress(KafkaError):
                self._consumer.commit_async(moved)

    def _look_after_writers(self) -> bool:
        """Answer what the writers ask for; return whether all of them take what is polled."""
        flowing = True
        asking = [number for number, writer in self._writers.items() if writer.wants_bounds]
        if asking:
            # A topic made again while PostgreSQL was away would be read from the old one's position.
            self._ask_topic()
            starts, ends = log_bounds(self._consumer, self._topic, asking)
            for number in asking:
                self._writers[number].give_bounds(starts[number], ends[number])
        self._begin_again([number for number, (until, _) in self._aside.items() if until < time.monotonic()])
        for number, writer in self._writers.items():
            writer.check()
            with suppress(*GONE):
                flowing &= self._direct(TopicPartition(self._topic.name, number), writer)
        return flowing

    def _direct(self, partition: TopicPartition, writer: PartitionWriter) -> bool:
        """Let a partition be polled from where its writer wants it, while that has room; return whether it has."""
        start = writer.take_start()
        if start is not None:
            self._at[writer.partition] = start
            self._consumer.seek(partition, start)
        if writer.has_room and writer.partition not in self._aside:
            self._consumer.resume(partition)
        else:
            self._consumer.pause(partition)
        return writer.has_room

    def _begin_again(self, partitions: Iterable[int]) -> None:
        partitions = list(partitions)
        self.release(partitions)
        self.hold(partitions)

    def _set_aside(self, number: int | None, error: KafkaError) -> None:
        """Let one partition stand still at a record that the client cannot read: no others shall wait for it."""
        if number not in self._at:
            raise error
        sentence = (
            f"Kafka's client cannot read the record at offset {self._at[number]} of partition {number} ({error}):"
            " the partition stands still; see docs/troubleshooting.md."
        )
        if not self._patient:
            raise TerminalError(sentence)
        log.error("unreadable record", partition=number, offset=self._at[number], error=sentence)
        UNREADABLE.labels(number).set(1)
        self._aside[number] = time.monotonic() + UNREADABLE_SECONDS, sentence

    def _hand_over(self, number: int, records: list[ConsumerRecord]) -> None:
        before, after = self._at[number], records[-1].offset + 1
        if records[0].offset < before:
            # It went and came back between two looks: the client began it anew.
            self._begin_again([number])
            return
        if records[0].offset > before:
            # A hole is either transaction markers or what retention deleted while we were reading.
            start = log_bounds(self._consumer, self._topic, [number])[0][number]
            if start > before:
                self._begin_again([number])
                return
        stretch = Stretch(before, after, records)
        self._polled_most = max(1, min(MOST_POLLED, POLL_BYTES * len(records) // max(1, stretch.bytes)))
        self._writers[number].offer(stretch)
        self._at[number] = after

    def _skip_what_is_no_record(self, number: int) -> None:
        """Move the position past markers at the log's end, which poll never returns."""
        reached = None
        with suppress(*GONE):
            reached = self._consumer.position(TopicPartition(self._topic.name, number), timeout_ms=POLL_MS)
        if reached is not None and reached > self._at[number]:
            self._writers[number].offer(Stretch(self._at[number], reached, []))
            self._at[number] = reached

    def _check_topic(self, polled: bool) -> None:
        now = time.monotonic()
        held_up, self._polled_at = now - self._polled_at > HELD_UP_SECONDS, now
        if polled:
            self._took_at = now
        quiet = now - max(self._took_at, self._looked_at) > QUIET_SECONDS
        if quiet or (polled and held_up):
            self._ask_topic()
        elif known_topic_id(self._consumer, self._topic.name) not in {None, self._topic.topic_id}:
            raise self._changed()

    def _ask_topic(self) -> None:
        """Raise when the broker is away, or when the topic was deleted and made again under our feet.

        The client fetches by name: it would take the new topic's records for those of the old one.
        """
        self._looked_at = time.monotonic()
        found = describe_topic(self._settings, SERVICE_CONNECT_MS)
        if found.topic_id != self._topic.topic_id:
            raise self._changed()
        if not set(found.partitions) >= self._writers.keys():
            raise TopicChangedError(f"The topic {self._topic.name} lacks partitions that it had; run it again.")

    def _changed(self) -> TopicChangedError:
        return TopicChangedError(f"The topic {self._topic.name} was made again; run it again to take the new one.")

    def _written(self) -> int:
        writers = sum(writer.rows + writer.dead_letters for writer in self._writers.values())
        return writers + self.taken.rows + self.taken.dead_letters

    def _count(self, writer: PartitionWriter) -> None:
        self.taken.rows += writer.rows
        self.taken.dead_letters += writer.dead_letters


def stand_still(consumer: KafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
    """Pause partitions until the offset to begin at is known."""
    for partition in partitions:
        # The client insists on an offset before the position is known; what lies there is not fetched while paused.
        with suppress(*GONE):
            consumer.seek(partition, 0)
            consumer.pause(partition)
