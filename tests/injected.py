"""Faults of a watched stack, as data: how each is injected and repaired, what it raises, and who tells of it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import psycopg2
import tiers
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from watched import Watched

from meteo_producer.accounts import Accounts
from meteo_producer.state import State

Standing = Callable[[Watched], AbstractContextManager[None]]
"""Injects the fault; its end repairs it."""


@dataclass(frozen=True)
class Fault:
    """`alerts`: name and labels of those that must stand. `where`, `who`: the entry of the pipeline's state that must
    be unwell; `word`: what its sentence must say, and the screen of `./meteo status` too.
    """

    name: str
    standing: Standing
    alerts: tuple[tuple[str, Mapping[str, str]], ...]
    where: Literal["hops", "servers", "concerns"]
    who: str
    word: str

    def raised(self, firing: Sequence[Mapping[str, str]]) -> int:
        """Return how many of its alerts are among these."""
        return sum(
            any({"alertname": name, **labels}.items() <= alert.items() for alert in firing)
            for name, labels in self.alerts
        )

    def told(self, state: Mapping[str, Any]) -> bool:
        """Say whether a state of the pipeline tells of it, in a sentence that says what it is."""
        return any(
            each["name"] == self.who and self.word in (each.get("sentence") or each["trouble"])
            for each in state[self.where]
            if each.get("state") != "ok" and not each.get("up")
        )


def stopped(server: str) -> Standing:
    """Return a server or service stopped, as by an operator."""

    @contextmanager
    def standing(watched: Watched) -> Iterator[None]:
        watched.stop(server)
        try:
            yield
        finally:
            watched.start(server)

    return standing


def hanging(service: str) -> Standing:
    """Return a process that neither works nor ends."""

    @contextmanager
    def standing(watched: Watched) -> Iterator[None]:
        watched.send_signal(service, signal.SIGSTOP)
        try:
            yield
        finally:
            watched.send_signal(service, signal.SIGCONT)

    return standing


@contextmanager
def safe_mode(watched: Watched) -> Iterator[None]:
    """HDFS takes no writes."""
    owner = watched.directory.owner()
    tiers.set_safe_mode(watched.tenant, owner, "enter")
    try:
        yield
    finally:
        tiers.set_safe_mode(watched.tenant, owner, "leave")


@contextmanager
def dead_letter(watched: Watched) -> Iterator[None]:
    """A record that is no message; the repair is a version that understands it, hence its replay."""
    tenant = watched.tenant
    tiers.send(tenant, [b"rain in Paris"])
    try:
        yield
    finally:
        good = json.dumps(tiers.recorded_message()).encode()
        tenant.query("UPDATE dead_letters SET value = %s WHERE state = 'new'", good)
        watched.meteo("dead-letters", "replay", "--all")


@contextmanager
def records_deleted(watched: Watched) -> Iterator[None]:
    """Kafka deletes records before they are taken, which nothing undoes; the end is that an hour passes."""
    tenant = watched.tenant
    with stopped("consumer")(watched):
        tiers.send(tenant, [b"never taken"] * 3)
        partition = TopicPartition(tenant.settings.topic_name, 0)
        servers = tenant.settings.bootstrap_servers.split(",")
        with (
            closing(KafkaConsumer(bootstrap_servers=servers)) as consumer,
            closing(KafkaAdminClient(bootstrap_servers=servers)) as client,
        ):
            client.delete_records({partition: consumer.end_offsets([partition])[partition]})
    yield
    tenant.query("UPDATE gaps SET noticed_at = noticed_at - interval '1 hour'")


@contextmanager
def row_deleted(watched: Watched) -> Iterator[None]:
    """Somebody deletes a row of PostgreSQL by hand, and puts it back."""
    tenant = watched.tenant
    (row,) = tenant.query(
        "DELETE FROM weather WHERE (topic_generation, partition, msg_offset) IN (SELECT topic_generation, partition,"
        " msg_offset FROM weather ORDER BY date_time LIMIT 1)"
        " RETURNING date_time, msg_offset, partition, topic_generation, value::text"
    )
    try:
        yield
    finally:
        tenant.query("INSERT INTO weather VALUES (%s, %s, %s, %s, %s)", *row)


@contextmanager
def accounts(watched: Watched) -> Iterator[Accounts]:
    """The accounts that the stack's producer keeps."""
    settings = watched.tenant.settings
    with closing(State.of(settings)) as state:
        yield Accounts(settings, state)


@contextmanager
def key_refused(watched: Watched) -> Iterator[None]:
    """A provider refuses the key, as the producer notes it; the repair is the operator's."""
    with accounts(watched) as kept:
        kept.refuse("openweather", "/data/2.5/weather", "OpenWeather refuses the key: check OPENWEATHER_API_KEY.")
        try:
            yield
        finally:
            assert kept.retry_key("openweather") == 1


@contextmanager
def budget_spent(watched: Watched) -> Iterator[None]:
    """A provider's allowance is nearly used up."""
    with accounts(watched) as kept:
        charge = kept.take("openweather", "/data/2.5/forecast", 9_500)
        try:
            yield
        finally:
            kept.correct(charge, 0)


@contextmanager
def connections_taken(watched: Watched) -> Iterator[None]:
    """Somebody takes nearly all connections of PostgreSQL; a few remain, with which the services work on."""
    tenant, found = watched.tenant, []
    # Some of the services' own last for a moment: the least of four seconds is what stays.
    for _ in range(20):
        found += tenant.query(
            "SELECT current_setting('max_connections')::int, sum(numbackends)::int FROM pg_stat_database"
        )
        time.sleep(0.2)
    most, lasting = min(found)
    with ExitStack() as taken:
        for _ in range(int(0.85 * most) - lasting):  # type: ignore[operator, call-overload]
            taken.enter_context(closing(psycopg2.connect(tenant.settings.database_url.get_secret_value())))
        yield


def _down(server: str) -> tuple[str, Mapping[str, str]]:
    return "MeteoServerDown", {"job": server}


def _away(service: str) -> tuple[str, Mapping[str, str]]:
    return "MeteoServiceDown", {"job": service}


def _stops(hop: str) -> tuple[str, Mapping[str, str]]:
    return "MeteoHopStopped", {"hop": hop}


UNUSABLE = ("MeteoServerUnusable", {"server": "hdfs"})

LOST = Fault(
    "records deleted by Kafka", records_deleted, (("MeteoRecordsLost", {}),), "concerns", "gaps", "Kafka had deleted"
)
"""Its alert stands for an hour, here 216 s: the short form has it stand while the others come and go."""

ROUNDS: tuple[tuple[Fault, ...], ...] = (
    (
        Fault("kafka stopped", stopped("kafka"), (_down("kafka"), _stops("produce")), "hops", "produce", "Kafka"),
        Fault("hbase-thrift stopped", stopped("hbase-thrift"), (_down("hbase-thrift"),), "hops", "serve", "HBase"),
        Fault(
            "nodemanager stopped", stopped("nodemanager"), (_down("nodemanager"),), "concerns", "yarn", "NodeManager"
        ),
        Fault("datanode stopped", stopped("datanode"), (_down("datanode"), UNUSABLE), "hops", "export", "DataNode"),
    ),
    (
        Fault("postgres stopped", stopped("postgres"), (_down("postgres"),), "hops", "consume", "PostgreSQL"),
        Fault("hbase-master stopped", stopped("hbase-master"), (_down("hbase-master"),), "hops", "serve", "HBase"),
        Fault(
            "resourcemanager stopped",
            stopped("resourcemanager"),
            (_down("resourcemanager"),),
            "concerns",
            "yarn",
            "ResourceManager",
        ),
        Fault("HDFS in safe mode", safe_mode, (("MeteoHdfsSafeMode", {}), UNUSABLE), "servers", "hdfs", "safe mode"),
    ),
    (
        Fault(
            "producer stopped",
            stopped("producer"),
            (_away("producer"), ("MeteoNoNewObservation", {})),
            "hops",
            "produce",
            "producer",
        ),
        Fault("consumer stopped", stopped("consumer"), (_away("consumer"),), "hops", "consume", "consumer"),
        Fault(
            "export stopped",
            stopped("export"),
            (_away("export"), ("MeteoExportOverdue", {})),
            "hops",
            "export",
            "export",
        ),
        Fault(
            "aggregate hangs",
            hanging("aggregate"),
            (_away("aggregate"), ("MeteoAggregateOverdue", {})),
            "hops",
            "aggregate",
            "aggregate",
        ),
    ),
    (
        Fault("a dead letter", dead_letter, (("MeteoDeadLetters", {}),), "concerns", "dead-letters", "dead letter"),
        Fault("a row deleted", row_deleted, (("MeteoTiersDisagree", {}),), "concerns", "mismatches", "mismatches"),
        Fault("a key refused", key_refused, (("MeteoKeyRefused", {}),), "concerns", "key", "openweather refuses"),
        Fault(
            "a budget nearly spent", budget_spent, (("MeteoBudgetNearlySpent", {}),), "concerns", "budget", "9500 of"
        ),
        Fault(
            "connections nearly all taken",
            connections_taken,
            (("MeteoPostgresConnections", {}),),
            "concerns",
            "connections",
            "connections are taken",
        ),
    ),
)
"""Those of one round do not hide one another."""
