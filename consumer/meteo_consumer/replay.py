"""The replay of dead letters: each record once more to its topic, under its key, with headers that name its origin."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError

from meteo_common.database import open_database
from meteo_common.errors import UnreachableError, UsageError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_consumer.dead_letters import (
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_TOPIC,
    DeadLetters,
    Headers,
    Letter,
    Origin,
)
from meteo_consumer.topic import CONNECT_MS, open_consumer, unreachable

CHUNK = 200
"""Letters sent and noted at once: a letter may be 1 MB."""
DELIVERY_MS = 30_000
SILENCE = 30.0
"""Seconds without a record, short of the log's end: the client waits for a broker that went away without a word."""
CLOCKS_APART = timedelta(minutes=10)
"""How far Kafka's record times, which are the sender's, may lie before PostgreSQL's note that sending begins."""

Place = tuple[int, int]
"""(partition, offset)."""


@dataclass
class Replayed:
    """What became of the letters, by id; of a dry run, `sent` are those that would be, at no place."""

    sent: dict[int, Place | None] = field(default_factory=dict)
    found: dict[int, Place] = field(default_factory=dict)
    """Sent by an earlier replay that died before it could note so."""
    refused: dict[int, str] = field(default_factory=dict)


class Replay:
    """One run over letters: judges, sends, notes."""

    def __init__(self, settings: Settings, letters: DeadLetters, value: bytes | None, *, force: bool) -> None:
        self._settings = settings
        self._letters = letters
        self._value = value
        self._force = force
        self._producer: KafkaProducer | None = None
        self.done = Replayed()

    def judge(self, letters: Iterable[Letter]) -> list[Letter]:
        """Return the letters that are to be sent; the others are noted as refused."""
        going = []
        for letter in letters:
            if reason := None if self._force else self._refusal(letter):
                self.done.refused[letter.dead_letter_id] = reason
            else:
                going.append(letter)
        return going

    def send(self, letters: Sequence[Letter]) -> None:
        """Send letters, wait for their acknowledgement and note it, those in doubt only if the topic has none of them.

        Raises UnreachableError when Kafka does not acknowledge some; they are in doubt then.
        """
        self._settle([letter for letter in letters if letter.in_doubt])
        going = [letter for letter in letters if letter.dead_letter_id not in self.done.found]
        if not going:
            return
        producer = self._connected()
        self._letters.mark_begun([letter.dead_letter_id for letter in going])
        reach("replay.before_send")
        places, failure = _deliver(producer, [(letter, self._bytes(letter)) for letter in going])
        reach("replay.after_acknowledgement")
        if places:
            self._letters.mark_replayed(places)
            self.done.sent.update(places)
        if isinstance(failure, MessageSizeTooLargeError):
            raise UsageError(f"Kafka refuses a dead letter as too large ({failure}); replay the others by their ids.")
        if failure is not None:
            raise UnreachableError(
                f"Kafka at {self._settings.bootstrap_servers} (BOOTSTRAP_SERVERS) did not acknowledge"
                f" {len(going) - len(places)} dead letters ({type(failure).__name__}); run it again to settle them."
            )

    def close(self) -> None:
        """Disconnect from Kafka."""
        if self._producer is not None:
            self._producer.close(timeout=3)

    def _refusal(self, letter: Letter) -> str | None:
        if letter.state == "replayed":
            place = f"{letter.replay_partition}/{letter.replay_offset}"
            return f"it was replayed already, as {letter.topic} {place}; --force sends it once more"
        if letter.in_doubt:
            return None
        reason = self._letters.refusal(self._bytes(letter))
        return reason and f"it would only become a dead letter again: {reason}"

    def _bytes(self, letter: Letter) -> bytes | None:
        return letter.value if self._value is None else self._value

    def _settle(self, doubtful: list[Letter]) -> None:
        """Find the records of replays that died, and note them."""
        for topic, group in groupby(sorted(doubtful, key=lambda each: each.topic), lambda each: each.topic):
            wanted = {letter.origin: letter for letter in group}
            since = min(letter.replay_started_at for letter in wanted.values() if letter.replay_started_at)
            found = {
                wanted[origin].dead_letter_id: place
                for origin, place in _replayed_records(self._settings, topic, since - CLOCKS_APART)
                if origin in wanted
            }
            if found:
                self._letters.mark_replayed(found)
                self.done.found.update(found)

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            try:
                self._producer = KafkaProducer(
                    bootstrap_servers=self._settings.bootstrap_servers.split(","),
                    client_id="meteo-replay",
                    bootstrap_timeout_ms=CONNECT_MS,
                    max_block_ms=CONNECT_MS,
                    request_timeout_ms=CONNECT_MS,
                    delivery_timeout_ms=DELIVERY_MS,
                    enable_idempotence=True,
                    acks="all",
                    compression_type="lz4",
                    # The origin makes a record larger than it was, and it may have been as large as the broker takes.
                    max_request_size=16 << 20,
                    allow_auto_create_topics=False,
                )
            except KafkaError as error:
                raise unreachable(self._settings, error) from None
        return self._producer


def replay(
    settings: Settings,
    ids: Sequence[int] | None,
    *,
    value: bytes | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Replayed:
    """Replay these letters, or all new ones (None); `value` takes the place of the bytes of a single one.

    `force`: also what would only become a dead letter again, or was replayed already. Raises UsageError for an id
    that is none, UnreachableError when a server is away.
    """
    database = open_database(settings, "replay")
    letters = DeadLetters(database)
    run = Replay(settings, letters, value, force=force)
    try:
        if not dry_run:
            letters.lock()
        for chunk in _chunks(letters, ids):
            going = run.judge(chunk)
            if dry_run:
                run.done.sent.update(dict.fromkeys(letter.dead_letter_id for letter in going))
            else:
                run.send(going)
        return run.done
    finally:
        run.close()
        database.close()


def _chunks(letters: DeadLetters, ids: Sequence[int] | None) -> Iterator[list[Letter]]:
    if ids is not None:
        chosen = letters.get(ids)
        yield from (chosen[first : first + CHUNK] for first in range(0, len(chosen), CHUNK))
        return
    after = 0
    while chunk := letters.next_new(after, CHUNK):
        yield chunk
        after = chunk[-1].dead_letter_id


def _deliver(
    producer: KafkaProducer, going: Sequence[tuple[Letter, bytes | None]]
) -> tuple[dict[int, Place], KafkaError | None]:
    """Return where the acknowledged letters lie, by id, and what kept the first of the others back."""
    futures, places = [], {}
    failure = None
    for letter, value in going:
        try:
            future = producer.send(letter.topic, key=letter.record_key, value=value, headers=letter.replay_headers())
            futures.append((letter.dead_letter_id, future))
        except KafkaError as error:
            failure = failure or error
    end = time.monotonic() + DELIVERY_MS / 1000 + 1
    for number, future in futures:
        try:
            done = future.get(timeout=max(0.1, end - time.monotonic()))
            places[number] = (done.partition, done.offset)
        except KafkaError as error:
            failure = failure or error
    return places, failure


def _replayed_records(settings: Settings, topic: str, since: datetime) -> Iterator[tuple[Origin, Place]]:
    """Yield origin and place of the topic's records that are replays, from `since` to the log's end."""
    consumer = open_consumer(settings, group=None)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(partitions)
        starts = consumer.offsets_for_times(dict.fromkeys(partitions, int(since.timestamp() * 1000)))
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, starts[partition].offset if starts[partition] else ends[partition])
        heard_at = time.monotonic()
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            polled = consumer.poll(timeout_ms=500)
            if polled:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE:
                raise UnreachableError(
                    f"Kafka at {settings.bootstrap_servers} (BOOTSTRAP_SERVERS) fell silent; run it again to go on."
                )
            for records in polled.values():
                for record in records:
                    if (origin := _origin(record.headers)) is not None:
                        yield origin, (record.partition, record.offset)
    except KafkaError as error:
        raise UnreachableError(f"Kafka broke off ({error!r}); run it again to go on.") from None
    finally:
        consumer.close()


def _origin(headers: Headers) -> Origin | None:
    found = dict(headers)
    try:
        topic, partition, offset = (found[name] for name in (ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET))
        return ((topic or b"").decode(), int(partition or b""), int(offset or b""))
    except (KeyError, ValueError):
        return None
