"""Kafka → PostgreSQL: one consumer process against the server's own limit, the obvious consumer and Spark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from benchmarks.consuming import consume_as_service, consume_until_idle, read_topic
from benchmarks.copying import copy_in_processes, copy_in_threads
from benchmarks.measuring import Arm, Measured, Options, Run, ratio, take_turns
from benchmarks.processes import Accounts, find
from benchmarks.servers import Servers, database_name, open_connection
from benchmarks.spark_peer import SparkPeer
from benchmarks.workload import Made, copy_forms, fill, full_answers, make, small_answers
from meteo_common.errors import TerminalError
from meteo_common.message import decode
from meteo_common.settings import Settings
from meteo_consumer.months import Months

SIZES = {"": (small_answers, 1_000_000), "_full": (full_answers, 40_000)}
"""By the ending of the names: a kind of message, and how many, so that the consumer's start is a small part."""
INSERT_SHARE = 50
"""The row by row arm takes one in so many messages; its rate does not depend on how many."""
CONNECTIONS = 2

Measure = Callable[[Settings], Mapping[str, float]]


def measure(options: Options) -> Measured:
    """Measure at 1.2 KB and, by the same arms, at the size of a full message with forecast (names end in `_full`)."""
    measured = Measured()
    sets: list[list[Run]] = []
    with ExitStack() as stack:
        servers = stack.enter_context(Servers())
        measured.notes |= servers.facts()
        peer = stack.enter_context(SparkPeer()) if options.peer else None
        for ending, (answers, usual) in SIZES.items():
            number = usual if options.messages is None else max(1, options.messages * usual // SIZES[""][1])
            records = make(*answers(), number)
            measured.notes[f"messages{ending}"] = number
            measured.notes[f"message_bytes{ending}"] = sum(len(each.value) for each in records) // number
            arms = Arms(servers, records, peer).all()
            sets.append(take_turns({f"{name}{ending}": arm for name, arm in arms.items()}, options.runs))
            measured.ratios |= _ratios(sets[-1], ending)
    measured.runs = [{arm: told for run in runs for arm, told in run.items()} for runs in zip(*sets, strict=True)]
    return measured


def _ratios(runs: Sequence[Run], ending: str) -> dict[str, Mapping[str, float]]:
    """Return the ratios of one size. The limit is the faster of its two ways."""
    for run in runs:
        ways = [run[f"{name}{ending}"] for name in ("limit_by_processes", "limit_by_threads")]
        run[f"limit{ending}"] = max(ways, key=lambda figures: figures["rows_per_second"])
    pairs = {
        "ratio_to_limits": ("consumer", "limit"),
        "ratio_to_insert": ("consumer", "insert"),
        "ratio_to_peer": ("consumer", "peer"),
        "ratio_of_two_to_one": ("two_services", "service"),
        "ratio_to_poll": ("consumer", "poll"),
    }
    figure = "rows_per_second"
    told = {
        f"{name}{ending}": ratio(runs, (f"{above}{ending}", figure), (f"{below}{ending}", figure))
        for name, (above, below) in pairs.items()
        if f"{below}{ending}" in runs[0]
    }
    steady = (f"consumer{ending}", "steady_rows_per_second")
    return {**told, f"ratio_to_limits_steady{ending}": ratio(runs, steady, (f"limit{ending}", figure))}


class Arms:
    """What is measured over one set of messages, which lie in a topic of their own. Rates are rows/s."""

    def __init__(self, servers: Servers, records: Sequence[Made], peer: SparkPeer | None) -> None:
        self._servers = servers
        self._records = records
        self._peer = peer
        self._topic = servers.make_topic()
        fill(self._topic, records)
        self._forms = copy_forms(records)
        self._accounts = Accounts(
            {
                "postgresql": servers.postmaster(),
                "kafka": find("kafka.Kafka", str(servers.directory)),
                "spark": peer.pid if peer else 0,
            }
        )
        if peer:
            with self._fresh_database() as settings:  # once, so that its code is compiled when it counts
                peer.write(settings, len(records))

    def all(self) -> dict[str, Arm]:
        """Return the arms by name."""
        number = len(self._records)
        arms: dict[str, tuple[Measure, int | None]] = {
            "limit_by_processes": (lambda to: self._rate(copy_in_processes(to, self._forms, CONNECTIONS)), number),
            "limit_by_threads": (lambda to: self._rate(copy_in_threads(to, self._forms, CONNECTIONS)), number),
            "one_connection": (lambda to: self._rate(copy_in_threads(to, self._forms, 1)), number),
            "consumer": (lambda to: consume_until_idle(to, number), number),
            "service": (lambda to: consume_as_service(to, number, 1), number),
            "two_services": (lambda to: consume_as_service(to, number, 2), number),
            "poll": (lambda to: self._poll(to, None), None),
            "poll_and_decode": (lambda to: self._poll(to, decode), None),
            "insert": (self._insert, max(1, number // INSERT_SHARE)),
        }
        if peer := self._peer:
            arms["peer"] = (lambda to: peer.write(to, number), number)
        return {name: self._in_fresh_database(name, *arm) for name, arm in arms.items()}

    def _rate(self, seconds: float) -> dict[str, float]:
        return {"rows_per_second": len(self._records) / seconds}

    def _in_fresh_database(self, name: str, measure: Measure, rows: int | None) -> Arm:
        """Return the arm with a database that it must leave with so many rows (None: it writes none)."""

        def run() -> dict[str, float]:
            used: dict[str, float] = {}
            with self._fresh_database() as settings:
                with self._accounts.counting(used):
                    figures = measure(settings)
                if rows is not None and (found := _count(settings)) != rows:
                    raise TerminalError(f"The arm {name} wrote {found} rows, expected {rows}.")
            return {**figures, **used}

        return run

    @contextmanager
    def _fresh_database(self) -> Iterator[Settings]:
        settings = self._servers.make_database(self._topic)
        connection = open_connection(settings)
        Months(connection).ensure({record.observed_at for record in self._records})
        connection.close()
        self._servers.settle()
        try:
            yield settings
        finally:
            self._servers.drop(database_name(settings))

    def _poll(self, settings: Settings, look: Callable[[bytes], Any] | None) -> dict[str, float]:
        """Read the topic with the consumer's own settings, and do nothing with it, or only decode it."""
        started = time.monotonic()
        taken = 0
        for records in read_topic(settings, len(self._records)):
            taken += len(records)
            if look:
                for record in records:
                    look(record.value)
        return {"rows_per_second": taken / (time.monotonic() - started)}

    def _insert(self, settings: Settings) -> dict[str, float]:
        """Be the obvious consumer: for each message one INSERT and one COMMIT."""
        statement = (
            "INSERT INTO weather (date_time, msg_offset, partition, topic_generation, value) VALUES (%s, %s, %s, 1, %s)"
        )
        number = max(1, len(self._records) // INSERT_SHARE)
        connection = open_connection(settings)
        with connection.cursor() as cursor:
            started = time.monotonic()
            for records in read_topic(settings, number):
                for record in records:
                    observed_at = msgspec.json.decode(record.value)["observed_at"]
                    cursor.execute(statement, (observed_at, record.offset, record.partition, record.value.decode()))
                    connection.commit()
            seconds = time.monotonic() - started
        connection.close()
        return {"rows_per_second": number / seconds}


def _count(settings: Settings) -> int:
    connection = open_connection(settings)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM weather")
        (rows,) = cursor.fetchone() or (0,)
    connection.close()
    return int(rows)
