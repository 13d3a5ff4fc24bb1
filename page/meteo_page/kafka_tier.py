"""The tier Kafka: where each partition ends, and the newest observation of each station in its last records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Struct

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import Settings
from meteo_page.books import CURRENT

LAST_RECORDS = 200
"""Looked at of each partition at first, and at most of what came since: with its forecast a message has 12 KB."""
CONNECT_MS = 3_000
POLL_MS = 300
POLL_SECONDS = 3.0


class Head(Struct):
    """Of a message only what says how new it is."""

    station_id: str
    observed_at: datetime
    collected_at: datetime
    data_origin: str


_decoder = msgspec.json.Decoder(Head)


@dataclass
class KafkaState:
    """The topic as it is now; `waiting_since` is when the oldest record that PostgreSQL has not was written."""

    topic_id: UUID | None
    starts: dict[int, int]
    ends: dict[int, int]
    newest: dict[str, datetime] = field(default_factory=dict)
    collected_at: datetime | None = None
    waiting_since: datetime | None = None

    def lag(self, positions: Mapping[int, int]) -> dict[int, int]:
        """Return the records of each partition from its position (none yet: its first record) to its end."""
        return {
            number: max(0, end - max(positions.get(number, 0), self.starts[number]))
            for number, end in self.ends.items()
        }


class KafkaTier:
    """Looks at TOPIC_NAME over one lasting connection, as a member of no group."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: KafkaConsumer | None = None
        self._topic_id: UUID | None = None
        self._seen: dict[int, int] = {}
        self._newest: dict[str, datetime] = {}
        self._collected_at: datetime | None = None

    def read(self, positions: Mapping[int, int]) -> KafkaState:
        """Return the topic's state; `positions` says up to where PostgreSQL has it. Raises UnreachableError."""
        try:
            return self._read(positions)
        except (KafkaError, OSError, AssertionError) as error:
            self.close()
            raise UnreachableError(
                f"Kafka at {self._settings.bootstrap_servers} (BOOTSTRAP_SERVERS) cannot be reached"
                f" ({type(error).__name__}); is the stack up? (./meteo up)"
            ) from None

    def close(self) -> None:
        """Give the connection back; the next reading makes a new one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(KafkaError):
                consumer.close(autocommit=False, timeout_ms=500)

    def _read(self, positions: Mapping[int, int]) -> KafkaState:
        consumer = self._connected()
        name = self._settings.topic_name
        numbers = consumer.partitions_for_topic(name)
        if not numbers:
            raise UsageError(f"Kafka has no topic {name}: correct TOPIC_NAME, or create it with ./meteo up.")
        partitions = [TopicPartition(name, number) for number in sorted(numbers)]
        starts = {each.partition: offset for each, offset in consumer.beginning_offsets(partitions).items()}
        ends = {each.partition: offset for each, offset in consumer.end_offsets(partitions).items()}
        self._forget_another_topic(consumer)
        consumer.assign(partitions)
        self._look_at_new(consumer, starts, ends)
        state = KafkaState(self._topic_id, starts, ends, dict(self._newest), self._collected_at)
        behind = [number for number, lag in state.lag(positions).items() if lag]
        waiting = [
            self._written_at(consumer, number, max(positions.get(number, 0), starts[number])) for number in behind
        ]
        state.waiting_since = min((at for at in waiting if at), default=None)
        return state

    def _connected(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                bootstrap_servers=self._settings.bootstrap_servers.split(","),
                client_id="meteo-page",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                bootstrap_timeout_ms=CONNECT_MS,
                request_timeout_ms=CONNECT_MS,
                metadata_max_age_ms=5_000,
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=1 << 20,
                metrics_enabled=False,
            )
        return self._consumer

    def _forget_another_topic(self, consumer: KafkaConsumer) -> None:
        """A topic that was deleted and made again begins anew."""
        known = consumer._cluster.topic_id(self._settings.topic_name)
        identity = None if known is None else UUID(str(known))
        if identity != self._topic_id:
            self._topic_id = identity
            self._seen, self._newest, self._collected_at = {}, {}, None

    def _look_at_new(self, consumer: KafkaConsumer, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Look at the records since the last time, of a partition at most the last LAST_RECORDS."""
        left = set()
        for number, end in ends.items():
            begin = max(starts[number], end - LAST_RECORDS, self._seen.get(number, 0))
            partition = TopicPartition(self._settings.topic_name, number)
            if begin < end:
                left.add(number)
                consumer.seek(partition, begin)
                consumer.resume(partition)
            else:
                consumer.pause(partition)
        until = time.monotonic() + POLL_SECONDS
        while left and time.monotonic() < until:
            for partition, records in consumer.poll(timeout_ms=POLL_MS, max_records=LAST_RECORDS).items():
                for record in records:
                    self._note(record.value)
                self._seen[partition.partition] = records[-1].offset + 1
            for number in list(left):
                # Behind the last record there may be a transaction's marker, which no poll returns.
                reached = consumer.position(TopicPartition(self._settings.topic_name, number), timeout_ms=POLL_MS)
                if reached is not None and reached >= ends[number]:
                    self._seen[number] = max(reached, self._seen.get(number, 0))
                    left.discard(number)

    def _note(self, value: bytes | None) -> None:
        try:
            head = _decoder.decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # the consumer makes a dead letter of it
        if head.observed_at.tzinfo is None or head.collected_at.tzinfo is None:
            return
        self._newest[head.station_id] = max(head.observed_at, self._newest.get(head.station_id, head.observed_at))
        if head.data_origin != "replay" and head.collected_at - head.observed_at < CURRENT:
            self._collected_at = max(head.collected_at, self._collected_at or head.collected_at)

    def _written_at(self, consumer: KafkaConsumer, number: int, offset: int) -> datetime | None:
        """Return when the record at this offset, or the first one behind it, was written; None when none is found."""
        partition = TopicPartition(self._settings.topic_name, number)
        consumer.assign([partition])
        consumer.seek(partition, offset)
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            for records in consumer.poll(timeout_ms=POLL_MS, max_records=1).values():
                with suppress(ValueError, OverflowError, OSError):
                    return datetime.fromtimestamp(records[0].timestamp / 1000, UTC)
        return None
