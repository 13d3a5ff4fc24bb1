"""What `check` does to each server: something real and small, of which nothing is left.

Whatever a probe makes has a name of its own, so that checks may run side by side, on a stack that is at work. It is
taken away again at once; what a check that was killed has left, the next one takes away that comes an hour later.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import requests
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaConnectionError, KafkaError, RetriableError
from psycopg2 import sql

from meteo_cli.stack import Stack, StackService
from meteo_common.database import connect, transaction
from meteo_common.days import parse_day
from meteo_common.errors import MeteoError, MismatchError, TerminalError, UnreachableError
from meteo_common.settings import Settings
from meteo_consumer.topic import CONNECT_MS, open_consumer, unreachable
from meteo_hadoop.daily import daily_job
from meteo_hadoop.hbase import AggregateTable
from meteo_hadoop.job import gather, reduce_groups
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.yarn import TEMPORARY, YarnEngine
from meteo_producer.delivery import Delivery

OWN = re.compile(r"_?meteo_check_(\d+)_[0-9a-f]{12}")
"""The names of what probes make; the number is when, in seconds since 1970."""
LEFT_SECONDS = 3600
"""From this age on it is what a killed check has left: none takes as long."""
HTTP_SECONDS = 30.0
"""HBase needs half a second for its metrics, on a busy machine several."""
YARN_SECONDS = 180.0
"""The job takes 12 s on two idle cores."""
DAY = "2013-07-01"
STATION = "check:probe"

State = Literal["ok", "failed", "absent"]


@dataclass(frozen=True)
class Outcome:
    """What came of a probe: `sentence` says what was done, what is wrong, or why nothing was done."""

    name: str
    state: State
    seconds: float
    sentence: str


@dataclass
class Target:
    """A deployed stack as the probes see it, and the name of what they make; `own` is another one for each check."""

    deployed: Stack
    settings: Settings
    own: str = field(default_factory=lambda: f"meteo_check_{int(time.time())}_{uuid.uuid4().hex[:12]}")

    @cached_property
    def services(self) -> dict[str, StackService]:
        """The services of the stack, by their names."""
        return {service.name: service for service in self.deployed.services}

    def address(self, service: str, port: str, path: str) -> str:
        """Return the address of a path at a service's port."""
        found = self.services[service]
        return f"http://{found.host}:{found.ports[port]}{path}"

    def get(self, service: str, port: str, path: str) -> str:
        """Return what a service answers at `path`; raises what `fetch` does."""
        return fetch(service, self.address(service, port, path), _remedy(service))


@dataclass(frozen=True)
class Probe:
    """`needs`: the services without which there is nothing to probe; `run` says what it did, or raises.

    `lacks` says what else this stack does not have for it; None when it has all. `after`: the probe before it without
    whose success it would do harm, and why.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Target], str]
    lacks: Callable[[Target], str | None] = lambda _: None
    after: tuple[str, str] | None = None

    def missing(self, target: Target) -> str | None:
        """Return why this stack has nothing to probe here; None when it has."""
        absent = [name for name in self.needs if name not in target.services]
        if absent:
            return f"This stack was put up without {' and '.join(absent)}."
        return self.lacks(target)


def outcomes(probes: Iterable[Probe], target: Target) -> Iterator[Outcome]:
    """Run the probes one after the other, and yield what came of each; none keeps the next from running."""
    failed: set[str] = set()
    for probe in probes:
        outcome = _outcome(probe, target, failed)
        if outcome.state == "failed":
            failed.add(outcome.name)
        yield outcome


def _outcome(probe: Probe, target: Target, failed: Collection[str]) -> Outcome:
    if why := probe.missing(target):
        return Outcome(probe.name, "absent", 0.0, why)
    if probe.after and probe.after[0] in failed:
        return Outcome(probe.name, "failed", 0.0, probe.after[1])
    began = time.monotonic()
    state: State = "failed"
    try:
        sentence = probe.run(target)
        state = "ok"
    except MeteoError as error:
        sentence = str(error)
    except Exception as error:
        # Whatever a client library raises about its server is an answer too.
        words = (str(error).strip().splitlines() or [""])[0]
        sentence = f"{probe.name} failed in an unexpected way ({type(error).__name__}: {words})."
    return Outcome(probe.name, state, round(time.monotonic() - began, 2), sentence)


def fetch(name: str, address: str, remedy: str) -> str:
    """Return what is answered at an address. Raises UnreachableError, or MismatchError for the status of an error."""
    try:
        with requests.Session() as session:
            # A proxy has no way to what listens on this host's loopback, or in the network of containers.
            session.trust_env = False
            answer = session.get(address, timeout=HTTP_SECONDS)
    except requests.RequestException as error:
        raise UnreachableError(f"{name} does not answer at {address} ({type(error).__name__}); {remedy}.") from None
    if not answer.ok:
        raise MismatchError(f"{name} answers {answer.status_code} at {address}; {remedy}.")
    return answer.text


def _remedy(service: str) -> str:
    return f"./meteo logs {service} says why, ./meteo restart {service} starts it"


def probe_kafka(target: Target) -> str:
    """Produce a record and consume it, in a topic of its own."""
    settings = target.settings
    try:
        with closing(_kafka_admin(settings)) as admin:
            if left := [name for name in admin.list_topics() if _is_left(name)]:
                admin.delete_topics(left, raise_errors=False)
            topic = {target.own: {"num_partitions": 1, "replication_factor": 1}}
            with _taking_away(lambda: admin.delete_topics([target.own])):
                admin.create_topics(topic, wait_for_metadata=True)
                _send_and_receive(settings, target.own)
    except (KafkaConnectionError, RetriableError) as error:
        raise unreachable(settings, error) from None
    except KafkaError as error:
        raise TerminalError(f"Kafka refuses ({error}); ./meteo logs kafka.") from None
    return "A record was produced and consumed."


def _kafka_admin(settings: Settings) -> KafkaAdminClient:
    return KafkaAdminClient(
        bootstrap_servers=settings.bootstrap_servers.split(","),
        client_id="meteo-check",
        bootstrap_timeout_ms=CONNECT_MS,
        request_timeout_ms=CONNECT_MS,
    )


def _send_and_receive(settings: Settings, topic: str) -> None:
    """Raise MismatchError unless the record that was acknowledged can be read."""
    value = topic.encode()
    with Delivery(settings.model_copy(update={"topic_name": topic})) as delivery:
        delivery.send(b"check", value)
        delivery.confirm()
    with closing(open_consumer(settings, None)) as consumer:
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, 0)
        until = time.monotonic() + CONNECT_MS / 1000
        while time.monotonic() < until:
            if records := consumer.poll(timeout_ms=500).get(place):
                if records[0].value != value:
                    raise MismatchError("Kafka gave back another record than was produced.")
                return
    raise MismatchError(f"Kafka acknowledged a record that cannot be consumed within {CONNECT_MS / 1000:.0f} s.")


def probe_postgres(target: Target) -> str:
    """Write a row, read it over another connection, and delete it, in a table of its own."""
    table = {"table": sql.Identifier(target.own)}
    with closing(connect(target.settings, "check")) as database:
        with transaction(database) as cursor:
            cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
            for (left,) in [row for row in cursor.fetchall() if _is_left(row[0])]:
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {table}").format(table=sql.Identifier(left)))
            cursor.execute(sql.SQL("CREATE TABLE {table} (word TEXT NOT NULL)").format(**table))

        def drop() -> None:
            with transaction(database) as cursor:
                cursor.execute(sql.SQL("DROP TABLE {table}").format(**table))

        with _taking_away(drop):
            with transaction(database) as cursor:
                cursor.execute(sql.SQL("INSERT INTO {table} VALUES (%s)").format(**table), (target.own,))
            with closing(connect(target.settings, "check")) as other, transaction(other) as cursor:
                cursor.execute(sql.SQL("SELECT word FROM {table}").format(**table))
                if cursor.fetchall() != [(target.own,)]:
                    raise MismatchError("PostgreSQL committed a row that another connection does not see.")
            with transaction(database) as cursor:
                cursor.execute(sql.SQL("DELETE FROM {table}").format(**table))
                if cursor.rowcount != 1:
                    raise MismatchError(f"PostgreSQL deleted {cursor.rowcount} rows where there was one.")
    return "A row was written, read and deleted."


def probe_hdfs(target: Target) -> str:
    """Put a file, read it and delete it: its bytes go through a DataNode."""
    filesystem = FileSystem(target.settings)
    for entry in filesystem.list(TEMPORARY):
        if _is_left(entry.name):
            filesystem.delete_tree(f"{TEMPORARY}/{entry.name}")
    directory = f"{TEMPORARY}/_{target.own}_0"
    content = f"{target.own}\n".encode()
    with _taking_away(lambda: filesystem.delete_tree(directory)):
        filesystem.publish(f"{directory}/file", [content])
        if filesystem.read(f"{directory}/file") != content:
            raise MismatchError("HDFS gave back other bytes than were written.")
        filesystem.delete(f"{directory}/file")
        if filesystem.length(f"{directory}/file") is not None:
            raise MismatchError("HDFS still has a file that was deleted.")
    return "A file was written, read and deleted."


def probe_yarn(target: Target) -> str:
    """Run the platform's own daily job over two rows, and compare its bytes with what it gives here."""
    metrics = json.loads(target.get("resourcemanager", "http", "/ws/v1/cluster/metrics"))["clusterMetrics"]
    if not metrics["activeNodes"]:
        # A job would wait two minutes for one.
        raise UnreachableError("YARN has no node that takes work; ./meteo logs nodemanager says why.")
    lines = [_row(hour) for hour in (10, 11)]
    job = daily_job(target.settings.weather_timezone, None)
    expected = reduce_groups(job, gather(job, lines, lambda *_: None))
    engine = YarnEngine(target.settings, properties={"mapreduce.job.name": "meteo-check"}, progress_wait=YARN_SECONDS)
    filesystem = FileSystem(target.settings)
    directory = f"{TEMPORARY}/_{target.own}_1"
    with _taking_away(lambda: filesystem.delete_tree(directory)):
        filesystem.publish(f"{directory}/rows", [line + b"\n" for line in lines])
        found = engine.run(job, [f"{directory}/rows"]).lines
    if found != expected:
        raise MismatchError(f"YARN computed {found}, expected {expected}; ./meteo logs nodemanager.")
    return "A job of MapReduce gave the bytes that were expected."


def _row(hour: int) -> bytes:
    """Return a line as it lies in a day's files."""
    at = f"{DAY}T{hour:02}:00:00Z"
    message = {
        "normaliser_version": 1,
        "source": "check",
        "station_id": STATION,
        "city": "Check",
        "collected_at": at,
        "observation": {"temperature_celsius": 1.5 * hour},
    }
    return json.dumps({"date_time": at, "partition": 0, "msg_offset": hour, "value": message}).encode()


def probe_hbase(target: Target) -> str:
    """Put a row, get it and delete it through Thrift, in a table of its own."""
    settings = target.settings.model_copy(update={"hbase_table": target.own})
    day = parse_day(DAY)
    generation = int(time.time() * 1000)
    with AggregateTable.connect(settings) as table, _taking_away(table.drop):
        for name in filter(_is_left, table.names()):
            with AggregateTable(settings.hbase_host, settings.hbase_port, name) as left:
                left.drop()
        table.write_day(day, generation, [{"station_id": STATION, "word": target.own}])
        found = table.row(STATION, day)
        if found is None or found.fields.get("word") != target.own:
            raise MismatchError("HBase does not give back the row that was put.")
        table.write_day(day, generation + 1, [], withdrawn=[STATION])
        if table.row(STATION, day) is not None:
            raise MismatchError("HBase still has a row that was deleted.")
    return "A row was put, got and deleted."


def probe_page(target: Target) -> str:
    """Ask the page for the state of the pipeline; that the weather is not fresh is no fault of the page's."""
    state: Mapping[str, Any] = json.loads(target.get("page", "page", "/api/pipeline"))
    return f"/api/pipeline answers: {state['sentence']}"


def probe_health(target: Target, service: str) -> str:
    """Ask a service for its health."""
    if not target.services[service].healthy():
        raise UnreachableError(f"{service} is not well; {_remedy(service)}.")
    return "It says that it is well."


SERVERS = (
    Probe("kafka", ("kafka",), probe_kafka),
    Probe("postgres", ("postgres",), probe_postgres),
    Probe("hdfs", ("namenode", "datanode"), probe_hdfs),
    Probe("yarn", ("namenode", "datanode", "resourcemanager", "nodemanager"), probe_yarn),
    Probe(
        "hbase",
        ("hbase-master", "hbase-thrift"),
        probe_hbase,
        lambda target: None if target.settings.hbase_enabled else "HBASE_ENABLED is off.",
        # Seen: a table that is made while no DataNode answers ends the master, which is back a minute or two later.
        after=("hdfs", "HBase was left alone: it ends when it cannot write to HDFS, and hdfs failed."),
    ),
    Probe("page", ("page",), probe_page),
    *(Probe(name, (name,), partial(probe_health, service=name)) for name in ("grafana", "kafka-ui", "pgadmin")),
)


def _is_left(name: str) -> bool:
    match = OWN.match(name)
    return match is not None and int(match[1]) < time.time() - LEFT_SECONDS


@contextmanager
def _taking_away(take_away: Callable[[], object]) -> Iterator[None]:
    """Take away what a probe has made. Failing at that is a failure, unless the probe has failed before."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            take_away()
        raise
    take_away()
