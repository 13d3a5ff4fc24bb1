"""API's answer → row visible, at 100 messages/s, over the floor: a Kafka round trip and one committed INSERT.

Both are measured at the same time, alternately: whatever else the machine does hits both.
"""

from __future__ import annotations

import multiprocessing
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kafka import KafkaProducer, TopicPartition

from benchmarks.consuming import METEO, read_topic
from benchmarks.measuring import Measured, Options, Run, ratio, take_turns
from benchmarks.servers import PARTITIONS, Servers, environment, open_connection
from benchmarks.workload import small_answers
from meteo_common.errors import TerminalError
from meteo_common.message import decode
from meteo_common.settings import Settings, meteo_home
from meteo_consumer.topic import open_consumer
from meteo_producer.delivery import Delivery
from meteo_producer.outbox import Outbox
from meteo_producer.source import as_record
from meteo_producer.state import State

RATE = 100
MESSAGES = 6_000
WARM_UP = 200
"""Messages before the first that counts: the first ones make the month and wait for the group."""
PATIENCE_SECONDS = 60.0
"""Also the time until the consumer must have taken its first message."""

FLOOR = "INSERT INTO floor (date_time, msg_offset, partition, topic_generation, value) VALUES (%s, %s, 0, 1, %s)"
# Sent when the position's transaction commits, and arrives when its rows can be seen: nobody polls the server.
TELL = """
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('taken', NEW.partition || ' ' || NEW.next_offset); RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER UPDATE ON positions FOR EACH ROW EXECUTE FUNCTION tell()
"""


def measure(options: Options) -> Measured:
    """Measure the whole way and the floor; times are ms."""
    number = options.messages or MESSAGES
    with Servers() as servers:
        runs = take_turns({"both": lambda: _measure_both(servers, number)}, options.runs)
        facts = servers.facts()
    split: list[Run] = [
        {
            arm: {name.removeprefix(f"{arm}_"): value for name, value in run["both"].items() if name.startswith(arm)}
            for arm in ("platform", "floor")
        }
        for run in runs
    ]
    return Measured(
        split,
        {
            "p99_over_floor": ratio(split, ("platform", "p99_ms"), ("floor", "p99_ms")),
            "p50_over_floor": ratio(split, ("platform", "p50_ms"), ("floor", "p50_ms")),
        },
        {**facts, "messages": number, "messages_per_second": RATE},
    )


def _measure_both(servers: Servers, number: int) -> dict[str, float]:
    settings = servers.make_database(servers.make_topic())
    floor_settings = settings.model_copy(update={"topic_name": servers.make_topic().topic_name})
    connection = open_connection(settings)
    with connection, connection.cursor() as cursor:
        cursor.execute(TELL)
        cursor.execute("CREATE TABLE floor (LIKE weather INCLUDING DEFAULTS INCLUDING INDEXES)")
    connection.close()
    servers.settle()
    context = multiprocessing.get_context("fork")  # before this process has clients of Kafka, which have threads
    told: Any = context.SimpleQueue()
    start: Any = context.Event()
    floor = context.Process(target=_floor, args=(floor_settings, number, start, told))
    floor.start()
    with ExitStack() as stack:
        stack.callback(floor.terminate)
        consumer = subprocess.Popen([METEO, "consume"], env=environment(settings), stderr=subprocess.DEVNULL)
        stack.callback(consumer.wait, 20)
        stack.callback(consumer.terminate)
        seen = Seen(settings)
        stack.callback(seen.close)
        begun = _produce(settings, number, seen, start)
        seen.wait(number + WARM_UP)
        visible = seen.times(settings, number + WARM_UP)
        latencies = [(visible[index] - begun[index]) * 1000 for index in range(WARM_UP, WARM_UP + number)]
        figures = _percentiles("platform", latencies) | _percentiles("floor", told.get())
    return {**figures, "platform_rows_per_commit": (number + WARM_UP) / seen.commits}


def _produce(settings: Settings, number: int, seen: Seen, start: Any) -> list[float]:
    """Understand an answer and deliver it, 100 times a second, as the service does; return when each was due.

    The time counts from when it was due, not from when this loop came to it.
    """
    source, answers = small_answers()
    begun = []
    with TemporaryDirectory(dir=meteo_home()) as folder, Delivery(settings, lasting=True) as delivery:
        outbox = Outbox(State(Path(folder) / "producer.sqlite"), settings.topic_name)

        def deliver(index: int) -> None:
            """Do what a round of one place does after its answer. The index is kept as the time of collecting."""
            message = source.normalise(replace(answers, collected_at=answers.collected_at + timedelta(seconds=index)))
            outbox.put(*as_record(message))
            entries = outbox.pending()
            for entry in entries:
                delivery.send(entry.key, entry.value)
            delivery.confirm()
            outbox.forget([entry.id for entry in entries])

        for index in range(WARM_UP):
            begun.append(time.monotonic())
            deliver(index)
            if index == 0:
                seen.wait(1)  # the group is joined
        start.set()
        for index, due in enumerate(_beats(time.monotonic() + 1.0, number), start=WARM_UP):
            begun.append(due)
            deliver(index)
    return begun


def _beats(start: float, number: int) -> Iterator[float]:
    """Yield when each message is due, at its time or, when that is over, at once."""
    for index in range(number):
        due = start + index / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        yield due


class Seen:
    """When the rows up to each offset became visible, told by the commits themselves."""

    def __init__(self, settings: Settings) -> None:
        self.commits = 0
        self._told: list[tuple[float, int, int]] = []
        self._rows = 0
        self._ends = [0] * PARTITIONS
        self._closing = False
        self._changed = threading.Condition()
        self._connection = open_connection(settings)
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute("LISTEN taken")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait(self, rows: int) -> None:
        """Wait until so many rows are visible."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._rows >= rows, PATIENCE_SECONDS):
                raise TerminalError(f"Only {self._rows} of {rows} messages became visible in {PATIENCE_SECONDS:g} s.")

    def times(self, settings: Settings, number: int) -> list[float]:
        """Return when each message became visible, in the order in which they were made; reads the topic for it."""
        first = small_answers()[1].collected_at
        visible = [0.0] * number
        reached: list[list[tuple[int, float]]] = [[] for _ in range(PARTITIONS)]
        for at, partition, end in self._told:
            reached[partition].append((end, at))
        marks = [0] * PARTITIONS
        for record in chain.from_iterable(read_topic(settings, number)):
            index = round((decode(record.value).collected_at - first).total_seconds())
            commits = reached[record.partition]
            while commits[marks[record.partition]][0] <= record.offset:
                marks[record.partition] += 1
            visible[index] = commits[marks[record.partition]][1]
        return visible

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        self._thread.join(5)
        self._connection.close()

    def _listen(self) -> None:
        while not self._closing:
            if not select.select([self._connection], [], [], 0.2)[0]:
                continue
            self._connection.poll()
            now = time.monotonic()
            with self._changed:
                for notice in self._connection.notifies:
                    partition, end = map(int, notice.payload.split())
                    self._told.append((now, partition, end))
                    self._rows += end - self._ends[partition]
                    self._ends[partition] = end
                    self.commits += 1
                self._connection.notifies.clear()
                self._changed.notify_all()


def _floor(settings: Settings, number: int, start: Any, told: Any) -> None:
    """Send, wait for the acknowledgement, poll it back, INSERT and COMMIT it, with clients of its own, at the rate."""
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap_servers.split(","), acks="all", linger_ms=0)
    consumer = open_consumer(settings, group=None)
    consumer.assign([TopicPartition(settings.topic_name, 0)])
    consumer.seek_to_beginning()
    connection = open_connection(settings)
    cursor = connection.cursor()
    value = b'{"value": "' + b"x" * 1180 + b'"}'

    def round_trip(index: int) -> None:
        producer.send(settings.topic_name, value=value, partition=0)
        producer.flush()
        while not consumer.poll(timeout_ms=1000, max_records=1):
            pass
        cursor.execute(FLOOR, (datetime.now(UTC), index, value.decode()))
        connection.commit()

    for index in range(WARM_UP):
        round_trip(index)
    start.wait(PATIENCE_SECONDS * 2)
    latencies = []
    # Half a step behind the platform's messages.
    for index, _ in enumerate(_beats(time.monotonic() + 1.0 + 0.5 / RATE, number), start=WARM_UP):
        # Counted from its own begin: a floor that waits in line would be none.
        begun = time.monotonic()
        round_trip(index)
        latencies.append((time.monotonic() - begun) * 1000)
    told.put(latencies)


def _percentiles(arm: str, latencies: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {f"{arm}_p50_ms": cuts[49], f"{arm}_p99_ms": cuts[98], f"{arm}_max_ms": max(latencies)}
