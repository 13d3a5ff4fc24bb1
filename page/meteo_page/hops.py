"""The five hops of the pipeline, judged: each is ok, late or stopped, with a sentence why and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from meteo_common.console import numbered
from meteo_common.durations import format_duration
from meteo_common.settings import Settings
from meteo_page.books import Books
from meteo_page.kafka_tier import KafkaState
from meteo_page.services import ServiceState

State = Literal["ok", "late", "stopped"]
NUMBERS: dict[State, int] = {"ok": 0, "late": 1, "stopped": 2}

LATE_INTERVALS = 2
STOPPED_INTERVALS = 6
GRACE_SECONDS = 60.0
"""A hop is late after two of its intervals, and stands still after six; a cycle may take a minute."""
CONSUME_LATE_SECONDS, CONSUME_STOPPED_SECONDS = 30.0, 120.0
"""A record is a row after 0.1 s. Behind a full log the consumer takes some ten thousand records a second."""
LOGS = {"kafka": "kafka", "postgresql": "postgres", "hdfs": "namenode", "hbase": "hbase-thrift"}
"""Whose log tells why a server is away."""
CYCLE_SECONDS = 600.0
"""The interval of a cycle where its service does not say it."""


@dataclass(frozen=True)
class Hop:
    """A hop, judged; `remedy` is what to do, empty while it is ok."""

    name: str
    title: str
    state: State
    sentence: str
    remedy: str = ""
    age_seconds: float | None = None
    """How long ago it last did its work."""


@dataclass
class Facts:
    """What was read of all tiers; None for a tier that could not be read, with its sentence in `troubles`."""

    now: datetime
    settings: Settings
    books: Books | None
    kafka: KafkaState | None
    services: Mapping[str, ServiceState]
    lag: dict[int, int]
    troubles: dict[str, str] = field(default_factory=dict)

    @property
    def collected_at(self) -> datetime | None:
        """When the newest current weather was collected, as Kafka or PostgreSQL knows it."""
        known = [self.kafka and self.kafka.collected_at, self.books and self.books.collected_at]
        return max((at for at in known if at), default=None)

    @property
    def poll_interval(self) -> float:
        """Seconds between two polls, as the producer says it, else PRODUCE_EVERY."""
        told = [value for _, value in self.services["producer"].series("meteo_poll_interval_seconds") if value]
        return max(told, default=float(self.settings.produce_every))

    def age(self, at: datetime | float | None) -> float | None:
        """Return the seconds since then; 0 at least, since clocks differ a little."""
        if at is None:
            return None
        return max(0.0, self.now.timestamp() - (at if isinstance(at, float) else at.timestamp()))


def judge(facts: Facts) -> list[Hop]:
    """Return the hops in their order."""
    return [_produce(facts), _consume(facts), _export(facts), _aggregate(facts), _serve(facts)]


def _produce(facts: Facts) -> Hop:
    name, title = "produce", "API → Kafka"
    if stopped := _away(facts, name, title, "producer", ("kafka",)):
        return stopped
    service, interval = facts.services["producer"], facts.poll_interval
    age = facts.age(facts.collected_at)
    begun = facts.age(service.since)
    if age is None and begun is None:
        sentence = "No producer is deployed, and no current weather has ever come."
        return Hop(name, title, "stopped", sentence, "./meteo up deploys one; ./meteo produce --once polls once.")
    waited = min(each for each in (age, begun) if each is not None)
    state = _state(waited, interval)
    last = "No current weather has come yet" if age is None else f"The last answer came {format_duration(age)} ago"
    every = f"polled every {format_duration(interval)}"
    if state == "ok":
        return Hop(name, title, state, f"{last}; {every}.", age_seconds=age)
    why = _failures(service) or f"{last}, though it is {every}."
    if not service.deployed:
        return Hop(name, title, state, f"{last}; no producer is deployed.", "./meteo up deploys one.", age)
    remedy = "./meteo logs producer says why; ./meteo budgets shows refused keys and spent budgets."
    return Hop(name, title, state, why if why.startswith(last) else f"{last}. {why}", remedy, age)


def _failures(service: ServiceState) -> str:
    """Return a sentence on why polls fail, empty when none says so."""
    if service.waiting_for:
        return service.waiting_for
    failed = [(labels, value) for labels, value in service.series("meteo_poll_failures_total") if value]
    kinds = sorted({f"{labels['source']}: {labels['reason']}" for labels, _ in failed})
    polls = numbered(int(sum(value for _, value in failed)), "poll")
    return f"{polls} failed ({', '.join(kinds)})." if failed else ""


def _consume(facts: Facts) -> Hop:
    name, title = "consume", "Kafka → PostgreSQL"
    lag = sum(facts.lag.values())
    records = numbered(lag, "record")
    if stopped := _away(facts, name, title, "consumer", ("kafka", "postgresql"), f"{records} behind"):
        return stopped
    waits = facts.age(facts.kafka.waiting_since) if facts.kafka else None
    moved = [position.updated_at for position in facts.books.positions.values()] if facts.books else []
    age = facts.age(max(moved, default=None))
    service = facts.services["consumer"]
    if not lag:
        return Hop(name, title, "ok", "PostgreSQL has every record of the topic.", age_seconds=age)
    waiting = f"{records} {'waits' if lag == 1 else 'wait'}"
    if waits is not None:
        waiting += f", the oldest for {format_duration(waits)}"
    if not service.deployed:
        remedy = "./meteo consume --until-idle takes them; ./meteo up deploys a consumer."
        return Hop(name, title, "stopped", f"No consumer is deployed, and {waiting}.", remedy, age)
    remedy = "./meteo logs consumer says what it waits for."
    if service.waiting_for:
        return Hop(name, title, "stopped", f"{waiting}. {service.waiting_for}", remedy, age)
    if (waits or 0.0) < CONSUME_LATE_SECONDS:
        return Hop(name, title, "ok", f"{waiting}.", age_seconds=age)
    still = age is None or age > CONSUME_STOPPED_SECONDS
    return Hop(name, title, "stopped" if still else "late", f"{waiting}.", remedy, age)


def _export(facts: Facts) -> Hop:
    name, title = "export", "PostgreSQL → HDFS"
    rows = facts.books.counts.get("rows_to_export", 0) if facts.books else 0
    waiting = f"{numbered(rows, 'row')} to export"
    if stopped := _away(facts, name, title, "export", ("postgresql", "hdfs"), waiting):
        return stopped
    return _cycle(facts, name, title, "export", waiting, owed=rows, command="./meteo export")


def _aggregate(facts: Facts) -> Hop:
    name, title = "aggregate", "HDFS → aggregates"
    days = facts.books.counts.get("days_changed", 0) if facts.books else 0
    waiting = f"{numbered(days, 'day')} to aggregate"
    if stopped := _away(facts, name, title, "aggregate", ("postgresql", "hdfs"), waiting):
        return stopped
    if not days and "hbase" in facts.troubles:
        # Its cycles fail at HBase alone, after the day's work: that is the next hop's matter.
        return Hop(name, title, "ok", "Every day's aggregates are those of its files.")
    return _cycle(facts, name, title, "aggregate", waiting, owed=days, command="./meteo aggregate")


def _serve(facts: Facts) -> Hop:
    name, title = "serve", "aggregates → HBase"
    if not facts.settings.hbase_enabled:
        return Hop(name, title, "ok", "HBase is switched off (HBASE_ENABLED); aggregates are read from HDFS.")
    days = facts.books.counts.get("days_owed_to_hbase", 0) if facts.books else 0
    owed = f"{numbered(days, 'day')} owed to HBase"
    if stopped := _away(facts, name, title, "aggregate", ("hbase", "postgresql"), owed):
        return stopped
    service = facts.services["aggregate"]
    age = facts.age(service.metric("meteo_cycle_last_success_timestamp_seconds") or None)
    if not days:
        return Hop(name, title, "ok", "HBase has every day's aggregates.", age_seconds=age)
    if not service.deployed:
        return Hop(name, title, "stopped", f"{owed}; no service is deployed.", "./meteo aggregate pays them.", age)
    state = _state(_waited(facts, service), service.metric("meteo_cycle_interval_seconds") or CYCLE_SECONDS)
    remedy = "" if state == "ok" else "./meteo logs aggregate says why; ./meteo aggregate tries it now."
    return Hop(name, title, state, f"{owed}.", remedy, age)


def _cycle(facts: Facts, name: str, title: str, service_name: str, waiting: str, *, owed: int, command: str) -> Hop:
    """Judge a hop that works in cycles by when one last ended well."""
    service = facts.services[service_name]
    age = facts.age(service.metric("meteo_cycle_last_success_timestamp_seconds") or None)
    if not service.deployed:
        if owed:
            return Hop(name, title, "stopped", f"{waiting}; no service is deployed.", f"{command} does it now.", age)
        return Hop(name, title, "ok", f"{waiting}; no service is deployed.", age_seconds=age)
    interval = service.metric("meteo_cycle_interval_seconds") or CYCLE_SECONDS
    state = _state(_waited(facts, service), interval)
    last = "No cycle has ended yet" if age is None else f"The last cycle ended {format_duration(age)} ago"
    sentence = f"{last}, one is due every {format_duration(interval)}; {waiting}."
    if state == "ok":
        return Hop(name, title, state, sentence, age_seconds=age)
    if service.waiting_for:
        sentence = f"{sentence} {service.waiting_for}"
    return Hop(name, title, state, sentence, f"./meteo logs {service_name} says why; {command} tries it now.", age)


def _waited(facts: Facts, service: ServiceState) -> float:
    """Return how long no cycle has ended well: since the last one, or since the service began."""
    ages = (facts.age(service.metric("meteo_cycle_last_success_timestamp_seconds") or None), facts.age(service.since))
    return min((age for age in ages if age is not None), default=0.0)


def _state(waited: float, interval: float) -> State:
    if waited > STOPPED_INTERVALS * interval + GRACE_SECONDS:
        return "stopped"
    return "late" if waited > LATE_INTERVALS * interval + GRACE_SECONDS else "ok"


def _away(
    facts: Facts, name: str, title: str, service_name: str, servers: tuple[str, ...], waiting: str = ""
) -> Hop | None:
    """Return the hop as stopped when a server or its service does not answer, else None."""
    for server in servers:
        if trouble := facts.troubles.get(server):
            what, _, _ = trouble.removesuffix(".").partition("; ")
            log = "datanode" if what.startswith("The DataNode ") else LOGS[server]
            remedy = f"./meteo logs {log} says why; ./meteo up starts what is stopped."
            return Hop(name, title, "stopped", f"{what}.", remedy)
    service = facts.services[service_name]
    if service.deployed and not service.up:
        more = f"; {waiting}" if waiting else ""
        remedy = f"./meteo logs {service_name} says why; ./meteo restart {service_name} starts it again."
        return Hop(name, title, "stopped", f"The service {service_name} does not answer{more}.", remedy)
    return None
