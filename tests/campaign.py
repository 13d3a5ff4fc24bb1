"""A campaign of faults against ingestion: a feed of known truth, consumers that come and go, a count at the end."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import running
import tiers
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from running import Running

from conftest import PARTITIONS, Tenant
from meteo_hadoop.books import Books

FIRST = datetime(2013, 1, 10, tzinfo=UTC)
"""The feed's messages are of the 60 days from here on: of three months, which the consumers have to make."""
POISON = (
    None,
    b"rain in Paris",
    b'{"schema_version": 1}',
    # The contract accepts this in a field that it does not know; only PostgreSQL finds that it is no JSONB.
    b"1e400000",
)


def seeded() -> random.Random:
    """Return chance that METEO_TEST_SEED repeats."""
    seed = int(os.environ.get("METEO_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"repeat with METEO_TEST_SEED={seed}")  # noqa: T201
    return random.Random(seed)  # noqa: S311


class Feed:
    """Sends numbered messages, some of them poisoned; the number is in the value, the kind in the record's key."""

    def __init__(self, tenant: Tenant, chance: random.Random | None = None, poisoned: float = 0.0) -> None:
        self.sent = 0
        self.enough = threading.Event()
        """Ends what is being sent."""
        self._tenant = tenant
        self._chance = chance or random.Random(0)  # noqa: S311
        self._poisoned = poisoned
        self._failed: list[BaseException] = []
        whole = tiers.recorded_message() | {"observed_at": "@", "collected_at": "@", "raw": {"number": "#"}}
        self._template = json.dumps(whole).encode()

    def send(self, count: int, partitions: Sequence[int] = range(PARTITIONS), per_second: float | None = None) -> None:
        """Send so many messages to these partitions in turn, and wait until the broker has them all."""
        servers = self._tenant.settings.bootstrap_servers.split(",")
        # A broker that is away is waited for: what was sent before may not be lost with it.
        producer = KafkaProducer(bootstrap_servers=servers, linger_ms=5, delivery_timeout_ms=300_000)
        begun = time.monotonic()
        with closing(producer):
            for number in range(count):
                if self.enough.is_set():
                    break
                key, value = self._next()
                producer.send(
                    self._tenant.settings.topic_name, value, key, partition=partitions[number % len(partitions)]
                ).add_errback(self._failed.append)
                if per_second and (ahead := number / per_second - (time.monotonic() - begun)) > 0:
                    time.sleep(ahead)
            producer.flush(300)
        assert self._failed == [], "the feed lost messages"

    @contextmanager
    def flowing(self, count: int, per_second: float) -> Iterator[threading.Thread]:
        """Send in the background; at the end everything has been sent."""
        thread = threading.Thread(target=self.send, args=(count,), kwargs={"per_second": per_second})
        thread.start()
        try:
            yield thread
        finally:
            thread.join(600)
            self.enough.clear()
            assert not thread.is_alive(), "the feed has not got rid of its messages"
            assert self._failed == [], "the feed lost messages"

    def _next(self) -> tuple[bytes, bytes | None]:
        self.sent += 1
        value = self._message(self.sent)
        if self._chance.random() >= self._poisoned:
            return b"good", value
        poison = self._chance.choice(POISON)
        if poison == b"1e400000":
            poison = value[:-1] + b', "added": 1e400000}'
        return b"poisoned", poison

    def _message(self, number: int) -> bytes:
        observed = FIRST + timedelta(minutes=number * 7 % (60 * 24 * 60))
        return self._template.replace(b"@", observed.isoformat().encode()).replace(b'"#"', b"%d" % number)


Log = dict[int, dict[int, Any]]
"""Partition → offset → record, as the broker gives them to a reader of ours."""


def read_log(tenant: Tenant) -> tuple[Log, dict[int, int], dict[int, int]]:
    """Return every record that is in the topic now, and each partition's first offset and end."""
    with closing(
        KafkaConsumer(
            bootstrap_servers=tenant.settings.bootstrap_servers.split(","),
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
    ) as reader:
        partitions = [TopicPartition(tenant.settings.topic_name, number) for number in range(PARTITIONS)]
        reader.assign(partitions)
        starts, ends = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
        reader.seek_to_beginning(*partitions)
        log: Log = {number: {} for number in range(PARTITIONS)}
        while any(reader.position(partition) < ends[partition] for partition in partitions):
            for partition, records in reader.poll(timeout_ms=1000, max_records=10_000).items():
                log[partition.partition].update((record.offset, record) for record in records)
    return log, *({partition.partition: it for partition, it in bound.items()} for bound in (starts, ends))


def positions(tenant: Tenant) -> dict[int, int]:
    """Return the next offset of each partition of the topic's last generation."""
    return dict(
        tenant.query(
            "SELECT partition, next_offset FROM positions JOIN topics USING (topic_id)"
            " WHERE generation = (SELECT max(generation) FROM topics)"
        )  # type: ignore[arg-type]
    )


def ends(tenant: Tenant) -> dict[int, int]:
    """Return each partition's end."""
    with closing(KafkaConsumer(bootstrap_servers=tenant.settings.bootstrap_servers.split(","))) as reader:
        found = reader.end_offsets([TopicPartition(tenant.settings.topic_name, it) for it in range(PARTITIONS)])
    return {partition.partition: end for partition, end in found.items()}


def settle(tenant: Tenant, seconds: float = 60) -> None:
    """Wait until everything in the topic is taken."""
    expected = ends(tenant)
    tiers.eventually(
        f"positions at {expected}", lambda: tiers.answers(lambda: positions(tenant) == expected), seconds, 0.1
    )


@dataclass(frozen=True)
class Counted:
    """What the last generation of the topic has become."""

    rows: int
    dead_letters: int
    control_records: int
    doubled: int
    lost: int


def assert_each_once(tenant: Tenant, gaps: Iterable[tuple[int, int, int]] = ()) -> Counted:
    """Fail unless every record of the log, and nothing else, is in exactly one of `weather` and `dead_letters`.

    `gaps`: (partition, from, to) that must have been noticed. The log is read by us; each row must hold the number
    that its record holds, each dead letter its record's bytes.
    """
    log, starts, log_ends = read_log(tenant)
    ((generation, topic_id),) = tenant.query("SELECT generation, topic_id FROM topics ORDER BY generation DESC LIMIT 1")
    rows = tenant.query(
        "SELECT partition, msg_offset, (value->'raw'->>'number')::int FROM weather WHERE topic_generation = %s",
        generation,
    )
    letters = tenant.query(
        "SELECT partition, msg_offset, value FROM dead_letters WHERE topic_generation = %s", generation
    )
    good = {
        (partition, offset, json.loads(record.value)["raw"].get("number"))
        for partition, records in log.items()
        for offset, record in records.items()
        if record.key != b"poisoned"
    }
    poisoned = {
        (partition, offset, record.value)
        for partition, records in log.items()
        for offset, record in records.items()
        if record.key == b"poisoned"
    }
    # What retention deleted after it was taken is still in the tables; what it deleted before is a gap.
    kept = [row for row in rows if row[1] >= starts[row[0]]]  # type: ignore[index, operator]
    found_letters = [
        (partition, offset, value and bytes(value))  # type: ignore[call-overload]
        for partition, offset, value in letters
        if offset >= starts[partition]  # type: ignore[index, operator]
    ]
    places = [row[:2] for row in (*rows, *letters)]
    doubled = len(places) - len(set(places))
    lost = len((good - set(kept)) | (poisoned - set(found_letters)))
    assert (doubled, lost) == (0, 0)
    assert set(kept) == good, difference(set(kept), good)
    assert set(found_letters) == poisoned, difference(set(found_letters), poisoned)
    assert sorted(tenant.query("SELECT partition, from_offset, to_offset FROM gaps WHERE topic_id = %s", topic_id)) == (
        sorted(gaps)
    )
    assert positions(tenant) == log_ends
    _assert_books_balance(tenant)
    ((control,),) = tenant.query("SELECT sum(control_records)::int FROM positions WHERE topic_id = %s", topic_id)
    return Counted(len(rows), len(letters), control, doubled, lost)  # type: ignore[arg-type]


def _assert_books_balance(tenant: Tenant) -> None:
    """Reconciliation's first part: per partition, offsets = rows + dead letters + gaps + control records."""
    with closing(psycopg2.connect(tenant.settings.database_url.get_secret_value())) as connection:
        books = Books(connection, tenant.settings.weather_timezone)
    assert [count for count in books.partitions if count.difference] == []


def difference(found: set[Any], expected: set[Any]) -> str:
    """Return the first few of what is too much and what is missing."""
    return f"too much: {sorted(found - expected)[:5]}, missing: {sorted(expected - found)[:5]}"


class Watch:
    """Looks at the positions ten times a second, and keeps for how long one of them did not move at most."""

    def __init__(self, tenant: Tenant) -> None:
        self.stand_still = 0.0
        self.begun = time.monotonic()
        self._tenant = tenant
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    @property
    def seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self.begun

    def _look(self) -> None:
        seen: dict[int, tuple[int, float]] = {}
        while not self._over.wait(0.1):
            try:
                found = positions(self._tenant)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                continue
            now = time.monotonic()
            for partition, position in found.items():
                before, since = seen.get(partition, (-1, now))
                if position != before:
                    self.stand_still = max(self.stand_still, now - since)
                    seen[partition] = position, now


@contextmanager
def held_position(tenant: Tenant, *partitions: int) -> Iterator[None]:
    """Hold the lock of these positions, as a slow transaction of somebody else would."""
    with closing(psycopg2.connect(tenant.settings.database_url.get_secret_value())) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM positions WHERE partition = ANY(%s) FOR UPDATE", (list(partitions),))
            assert cursor.rowcount == len(partitions)
        yield
        connection.rollback()


@dataclass
class Group:
    """The consumers of a tenant's topic: `meteo consume` as processes, by name."""

    tenant: Tenant
    logs: Path
    members: dict[str, Running] = field(default_factory=dict)
    ended: list[Running] = field(default_factory=list)

    def start(self, name: str, *, static: bool = False, extra: Mapping[str, str] | None = None) -> Running:
        """Start a consumer; `static`: under a lasting name in the group."""
        member = self._launch(name, static=static, extra=extra)
        member.wait_until_up()
        return member

    def start_pair(self, *, static: bool = False) -> None:
        """Start the consumers `a` and `b`, which share the partitions when this returns.

        At once: they come within the 3 s that a broker waits for members of a new group, and spare a second round.
        """
        for member in [self._launch(name, static=static) for name in "ab"]:
            member.wait_until_up()
        self.wait_for_shares(1, 2)

    def _launch(self, name: str, *, static: bool, extra: Mapping[str, str] | None = None) -> Running:
        environment = {**({"CONSUMER_INSTANCE": name} if static else {}), **(extra or {})}
        if name in self.members:
            self.ended.append(self.members[name])
        log = self.logs / f"{name}-{len(self.ended)}.log"
        self.members[name] = running.launch(self.tenant, "consume", log=log, extra=environment)
        return self.members[name]

    def __getitem__(self, name: str) -> Running:
        return self.members[name]

    def held(self, name: str) -> set[int]:
        """Return the partitions that a consumer holds, by its own log."""
        held: set[int] = set()
        for event in self.members[name].events():
            if event["event"] == "partitions":
                change = set(event["partitions"])
                held = held | change if event["change"] == "assigned" else held - change
        return held

    def when(self, change: str, partition: int, by: str, since: datetime) -> list[datetime]:
        """Return when a partition was assigned to, or revoked from, these consumers, by their own logs."""
        return [
            at
            for name in by
            for event in self.members[name].events()
            if event["event"] == "partitions" and event["change"] == change and partition in event["partitions"]
            if (at := datetime.fromisoformat(event["timestamp"])) > since
        ]

    def shares(self) -> list[int]:
        """Return how many partitions each living consumer holds, fewest first."""
        return sorted(len(self.held(name)) for name, member in self.members.items() if member.alive)

    def wait_for_shares(self, *expected: int, seconds: float = 40) -> None:
        """Wait until the partitions are shared out like this."""
        tiers.eventually(f"shares of {expected}", lambda: self.shares() == sorted(expected), seconds)

    def rebalances(self) -> float:
        """Return how many partitions have come and gone so far."""
        return sum(m.metric("meteo_consumer_rebalances_total") for m in self.members.values() if m.alive)

    def stop(self) -> None:
        """Stop all; each must, in time and well."""
        for member in self.members.values():
            if member.alive:
                member.stop()

    def kill(self) -> None:
        """Leave no process behind."""
        for member in self.members.values():
            member.kill()
