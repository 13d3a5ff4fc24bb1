"""Kafka → PostgreSQL, each record exactly once: to the log's end, or as a member of the consumers' group.

The position in PostgreSQL alone decides what has been taken.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError
from prometheus_client import Counter

from meteo_common.errors import TransientError, UnreachableError, UsageError
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_consumer.consumption import Consumption, Taken, stand_still
from meteo_consumer.topic import SERVICE_CONNECT_MS, describe_topic, log_bounds, open_consumer
from meteo_consumer.writer import RECONNECT_SECONDS, RECORDS, SETTLED_SECONDS

log = structlog.get_logger()

GROUP = "meteo-consumer"

REBALANCES = Counter("meteo_consumer_rebalances", "Partitions that came and went", ["change"])


def consume_until_idle(settings: Settings) -> Taken:
    """Take everything up to the log's end as it stood at the start; other consumers may be at work meanwhile.

    Reads all partitions without joining the group: the positions fence, so no rebalance is waited for.
    Raises UnreachableError when a server is absent or goes away.
    """
    topic = describe_topic(settings)
    consumer = open_consumer(settings, group=None)
    try:
        consumption = Consumption(settings, topic, consumer, patient=False)
        consumer.assign([TopicPartition(topic.name, number) for number in topic.partitions])
        _, ends = log_bounds(consumer, topic, topic.partitions)
        first: dict[int, int] = {}
        try:
            consumption.hold(topic.partitions)
            while True:
                positions = {number: consumption.position(number) for number in ends}
                known = {number: position for number, position in positions.items() if position is not None}
                first = known | first
                if all(known.get(number, -1) >= end for number, end in ends.items()):
                    break
                consumption.poll()
        finally:
            consumption.close()
    except KafkaError as error:
        raise UnreachableError(f"Kafka broke off ({error!r}); run it again to go on.") from None
    finally:
        consumer.close()
    taken = consumption.taken
    behind = sum(max(0, end - first[number]) for number, end in ends.items())
    taken.by_others = max(0, behind - taken.rows - taken.dead_letters)
    return taken


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the group gives and takes: the client calls it in its own thread, amid its heartbeats."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.changes: deque[tuple[str, set[int]]] = deque()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        partitions = list(assigned)
        stand_still(self._consumer, partitions)
        self._note("assigned", partitions)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._note("revoked", revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._note("lost", lost)

    def _note(self, change: str, partitions: Iterable[TopicPartition]) -> None:
        self.changes.append((change, {partition.partition for partition in partitions}))


def consume_forever(settings: Settings, service: Service) -> None:
    """Take records until the service stops; absent servers are waited for.

    Raises TerminalError when going on could lose or double records.
    """
    total = Taken()
    failures = 0
    for outcome in ("row", "dead_letter"):
        RECORDS.labels(outcome)  # a series that begins with its first value hides that one from increase()
    while not service.stopping.is_set():
        started = time.monotonic()
        try:
            _consume_while_connected(settings, service, total)
        except FencedInstanceIdError:
            raise UsageError(
                f"Another consumer runs under the name '{settings.consumer_instance}' (CONSUMER_INSTANCE):"
                " give each its own."
            ) from None
        except (TransientError, KafkaError) as error:
            log.warning("Kafka is away, waiting for it", error=str(error) or repr(error))
            service.beat(trouble=str(error) or repr(error))
            failures = 0 if time.monotonic() - started > SETTLED_SECONDS else failures
            service.wait(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
            failures += 1
    log.info("stopped", rows=total.rows, dead_letters=total.dead_letters)


def _consume_while_connected(settings: Settings, service: Service, total: Taken) -> None:
    topic = describe_topic(settings, SERVICE_CONNECT_MS)
    consumer = open_consumer(settings, GROUP, SERVICE_CONNECT_MS)
    consumption = Consumption(settings, topic, consumer, patient=True)
    try:
        assignment = _Assignment(consumer)
        consumer.subscribe([topic.name], listener=assignment)
        while not service.stopping.is_set():
            while assignment.changes:
                _follow(consumption, *assignment.changes.popleft())
            consumption.poll()
            service.beat(trouble=consumption.troubles)
    finally:
        consumption.close()
        total.rows += consumption.taken.rows
        total.dead_letters += consumption.taken.dead_letters
        consumer.close(autocommit=False, timeout_ms=2000)


def _follow(consumption: Consumption, change: str, partitions: set[int]) -> None:
    log.info("partitions", change=change, partitions=sorted(partitions))
    REBALANCES.labels(change).inc(len(partitions))
    if change == "assigned":
        consumption.hold(partitions)
    else:
        consumption.release(partitions)
