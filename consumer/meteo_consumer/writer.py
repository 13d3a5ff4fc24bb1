"""A partition's writer: a thread with its own connection to PostgreSQL, so that polling and writing do not take turns.

Polling alone reaches 140,000 records a second and COPY 80,000; one after the other they reach 48,000.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog
from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import Counter, Histogram

from meteo_common.database import open_database
from meteo_common.errors import TransientError
from meteo_common.settings import Settings
from meteo_consumer.batch import BatchWriter, sort_records
from meteo_consumer.positions import FencedError, Positions
from meteo_consumer.topic import TopicInfo

log = structlog.get_logger()

BATCH_RECORDS = 10_000
"""A COPY of more rows is not faster."""
BATCH_BYTES = 4 << 20
"""What a batch may hold, and what may wait for the next one, beside one poll. Three partitions then need 145 MB in all;
with 8 MB they need 180 MB and are not faster."""
RECONNECT_SECONDS = (1.0, 2.0, 5.0, 10.0)
"""Pauses between attempts to get a server back; the last one repeats."""
SETTLED_SECONDS = 60.0
"""A connection that held this long makes the next pause short again."""

RECORDS = Counter("meteo_consumer_records", "Records taken, by what became of them", ["outcome"])
BATCHES = Histogram("meteo_consumer_batch_seconds", "Time to write a batch with its position")
ANSWER_TO_ROW = Histogram(
    "meteo_answer_to_row_seconds",
    "From an answer's collection to its committed row, of each batch's first record; recorded years do not count",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
SKIPPED = Counter("meteo_consumer_skipped_offsets", "Offsets that carry no record, such as a transaction's markers")


@dataclass(frozen=True)
class Stretch:
    """What one poll brought of a partition: its records from offset `before` up to, not including, `after`."""

    before: int
    after: int
    records: Sequence[ConsumerRecord]

    @cached_property
    def bytes(self) -> int:
        """Their size (-1 for what a record has not): a tombstone may have a key of 1 MB."""
        return sum(
            each.serialized_key_size + each.serialized_value_size + each.serialized_header_size for each in self.records
        )


class PartitionWriter:
    """Writes one partition. The polling thread speaks to it by the methods below; none of them waits.

    It begins by reading the position and asking for the log's bounds (`wants_bounds`, `give_bounds`). Then it says
    where to poll from (`take_start`), and from there on takes what is offered. When the position turns out to have
    moved, or PostgreSQL was away, it forgets what was offered and begins again: only the position tells what is taken.
    `patient`: whether it waits for an absent PostgreSQL; else that is its `failure`.
    """

    def __init__(self, settings: Settings, topic: TopicInfo, partition: int, *, patient: bool) -> None:
        self.partition = partition
        self.failure: BaseException | None = None
        self.trouble: str | None = None
        self.position: int | None = None
        """The next offset that is not yet committed in PostgreSQL; None until it is known."""
        self.rows = self.dead_letters = 0
        self._settings = settings
        self._topic = topic
        self._patient = patient
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Stretch, int]] = deque()
        self._waiting_records = self._waiting_bytes = 0
        self._bounds: tuple[int, int] | None = None
        self._wants_bounds = self._accepts = self._closing = False
        self._start: int | None = None
        self._thread = threading.Thread(target=self._run, name=f"partition-{partition}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended it, if something did."""
        if self.failure is not None:
            raise self.failure

    @property
    def wants_bounds(self) -> bool:
        """Whether it waits for `give_bounds`."""
        return self._wants_bounds

    def give_bounds(self, start: int, end: int) -> None:
        """Say the log's first offset and its end, asked for only after `wants_bounds`."""
        with self._changed:
            self._bounds = start, end
            self._wants_bounds = False
            self._changed.notify()

    def take_start(self) -> int | None:
        """Return the offset to poll from, once after each beginning; from then on it takes what is offered."""
        with self._changed:
            start, self._start = self._start, None
            self._accepts = self._accepts or start is not None
            return start

    @property
    def has_room(self) -> bool:
        """Whether more may be offered."""
        return self._accepts and self._waiting_records < BATCH_RECORDS and self._waiting_bytes < BATCH_BYTES

    def offer(self, stretch: Stretch) -> None:
        """Hand over what was polled, in its order."""
        size = stretch.bytes
        with self._changed:
            if self._accepts:
                self._waiting.append((stretch, size))
                self._waiting_records += len(stretch.records)
                self._waiting_bytes += size
                self._changed.notify()

    def close(self) -> None:
        """Let it end after the batch in hand; what waits is left to whoever goes on from the position."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            started = time.monotonic()
            try:
                self._write_while_connected()
            except FencedError as error:
                log.info("the position moved", partition=self.partition, reason=str(error))
            except TransientError as error:
                if not self._patient:
                    self.failure = error
                    return
                log.warning("PostgreSQL is away, waiting for it", partition=self.partition, error=str(error))
                self.trouble = str(error)
                failures = 0 if time.monotonic() - started > SETTLED_SECONDS else failures
                self._forget()
                self._pause(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
                failures += 1
            except BaseException as error:
                self.failure = error
                return
            self._forget()

    def _write_while_connected(self) -> None:
        database = open_database(self._settings, "consumer")
        try:
            positions = Positions(database, self._topic)
            self.trouble = None
            self._begin(positions)
            writer = BatchWriter(database, positions)
            while stretch := self._next():
                batch = sort_records(self.partition, stretch.before, stretch.after, stretch.records)
                with BATCHES.time():
                    writer.write(batch)
                self._count(batch.rows, batch.dead_letters, batch.control_records)
                if batch.collected_at is not None:
                    # One a batch: of 10,000 records the first has waited longest, and one look at the clock is free.
                    ANSWER_TO_ROW.observe(max(0.0, time.time() - batch.collected_at.timestamp()))
                # Last: whoever waits for the position may look at the counts.
                self.position = batch.after
        finally:
            database.close()

    def _begin(self, positions: Positions) -> None:
        # In this order: an end asked for before the position could lie below what another consumer takes meanwhile.
        position = positions.read(self.partition)
        with self._changed:
            self._wants_bounds = True
            self._changed.wait_for(lambda: self._bounds or self._closing)
            bounds, self._bounds = self._bounds, None
        if bounds:
            start = positions.settle(self.partition, position, *bounds)
            with self._changed:
                self.position = self._start = start

    def _next(self) -> Stretch | None:
        """Return the next batch's stretch: what waits at this moment, as far as a batch reaches; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                return None
            taken: list[Stretch] = []
            records = size = 0
            while self._waiting and records < BATCH_RECORDS and size < BATCH_BYTES:
                stretch, stretch_bytes = self._waiting.popleft()
                taken.append(stretch)
                records += len(stretch.records)
                size += stretch_bytes
            self._waiting_records -= records
            self._waiting_bytes -= size
        together = taken[0].records if len(taken) == 1 else [record for each in taken for record in each.records]
        return Stretch(taken[0].before, taken[-1].after, together)

    def _forget(self) -> None:
        with self._changed:
            self._waiting.clear()
            self._waiting_records = self._waiting_bytes = 0
            self._accepts = self._wants_bounds = False
            self._start = self._bounds = None

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _count(self, rows: Sequence[Any], dead_letters: Sequence[Any], skipped: int) -> None:
        self.rows += len(rows)
        self.dead_letters += len(dead_letters)
        RECORDS.labels("row").inc(len(rows))
        RECORDS.labels("dead_letter").inc(len(dead_letters))
        SKIPPED.inc(skipped)
        for letter in dead_letters:
            log.warning("dead letter", partition=self.partition, offset=letter.record.offset, reason=letter.reason)
