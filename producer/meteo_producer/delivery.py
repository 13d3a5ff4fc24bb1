"""Delivery to Kafka: every message is acknowledged by all in-sync replicas, or known not to be."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from functools import partial
from types import TracebackType

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.message import Message, encode
from meteo_common.settings import Settings
from meteo_producer.measures import DROPPED, NOT_DELIVERED, PRODUCED

log = structlog.get_logger()
# The client tells every attempt to reconnect, as an error; what matters of it is told here once.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

DELIVERY_MS = 30_000
"""How long an accepted message may wait for its acknowledgement."""
REQUEST_MS = 10_000
WAITING = 1000
"""Messages kept while Kafka cannot be reached: a week of one place at the default interval."""


class Delivery:
    """A connection to the topic.

    `patience`: seconds to look for a broker; 10 lets a person know within 15.
    `keep`: what could not be delivered waits here, up to 1,000 messages, and is sent again by `resend`; else the first
    failure ends the delivery.
    `stopping`: when set, no wait is longer than 3 s.
    """

    def __init__(
        self, settings: Settings, *, patience: float = 10, keep: bool = False, stopping: threading.Event | None = None
    ) -> None:
        self.delivered = 0
        self._servers = settings.bootstrap_servers
        self._topic = settings.topic_name
        self._patience_ms = int(patience * 1000)
        self._keep = keep
        self._stopping = stopping or threading.Event()
        # The client's thread adds here and ours takes: a deque allows that, a counter would not.
        self._waiting: deque[Message] = deque()
        self._under_way: dict[int, Message] = {}
        self._numbers = itertools.count()
        self._lost = 0
        self._producer: KafkaProducer | None = None

    def __enter__(self) -> Delivery:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def failed(self) -> int:
        """How many messages are known not to be delivered, so far."""
        return len(self._waiting) if self._keep else self._lost

    def connect(self) -> None:
        """Find the brokers and the topic, unless that is done.

        Raises UnreachableError when no broker answers, UsageError when the topic does not exist.
        """
        if self._producer is not None:
            return
        producer = self._open()
        try:
            known = producer.partitions_for(self._topic)
        except KafkaTimeoutError:
            known = None
        except KafkaError as error:
            producer.close(timeout=0)
            raise self._unreachable(f" for the topic '{self._topic}' ({type(error).__name__})") from None
        if not known:
            producer.close(timeout=0)
            if self._keep:
                # A broker that starts slowly says no more than this; what waits here must not be given up for it.
                raise self._unreachable(f": it does not know the topic '{self._topic}' yet")
            raise self._no_topic()
        self._producer = producer

    def send(self, message: Message) -> None:
        """Hand a message over; whether it arrived is known after `flush`.

        Raises UnreachableError when it, or one before it, cannot be delivered and is not kept.
        """
        if self.failed and not self._keep:
            raise self._unreachable(f"; undelivered messages: {self.failed}")
        if self._producer is None:
            self._hold(message, "no connection")
            return
        number = next(self._numbers)
        self._under_way[number] = message
        try:
            future = self._producer.send(self._topic, key=message.station_id.encode(), value=encode(message))
        except KafkaError as error:
            self._fail(number, error)
            return
        future.add_callback(partial(self._done, number))
        future.add_errback(partial(self._fail, number))

    def resend(self) -> None:
        """Send again what waits."""
        for _ in range(len(self._waiting)):
            self.send(self._waiting.popleft())

    def flush(self) -> None:
        """Wait until all that was handed over is acknowledged.

        Raises UnreachableError when some of it is not, with their number.
        """
        end = time.monotonic() + DELIVERY_MS / 1000 + 1
        while self._producer is not None:
            try:
                self._producer.flush(0.5)
                break
            except KafkaError:
                if self._stopping.is_set():
                    end = min(end, time.monotonic() + 2)
                if time.monotonic() >= end:
                    # A client that timed out may never deliver again, not even after the broker is back.
                    self._disconnect(0)
        if self.failed:
            raise self._unreachable(f"; undelivered messages: {self.failed}")

    def close(self) -> None:
        """Disconnect, waiting at most 3 s for acknowledgements; what is lost with that is logged."""
        self._disconnect(2)
        for message in self._waiting:
            self._lose(message)
        self._waiting.clear()

    def _disconnect(self, seconds: float) -> None:
        """Give the client up; what it has not delivered by then waits here. An acknowledgement may be lost with it."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=seconds)
        except KafkaError:
            # Its close gives up before it stops its thread when something is not delivered.
            producer._sender.force_close()
            producer._sender.join(1)
            with contextlib.suppress(KafkaError):
                producer.close(timeout=0)
        for number in list(self._under_way):
            if message := self._under_way.pop(number, None):
                self._hold(message, "connection given up")

    def _open(self) -> KafkaProducer:
        try:
            return KafkaProducer(
                bootstrap_servers=self._servers.split(","),
                client_id="meteo-producer",
                bootstrap_timeout_ms=self._patience_ms,
                max_block_ms=self._patience_ms,
                request_timeout_ms=REQUEST_MS,
                delivery_timeout_ms=DELIVERY_MS,
                reconnect_backoff_max_ms=5000,
                enable_idempotence=True,
                acks="all",
                compression_type="lz4",
                # At the client's 16 KB, 18 messages of 0.9 KB make a request, and the requests cost more than the work.
                batch_size=256 * 1024,
                linger_ms=20,
                allow_auto_create_topics=False,
            )
        except KafkaError:
            raise self._unreachable() from None
        except ValueError:
            raise UsageError(
                f"BOOTSTRAP_SERVERS '{self._servers}' cannot be used; expected host:port, several separated by commas."
            ) from None

    def _done(self, number: int, _: object) -> None:
        if message := self._under_way.pop(number, None):
            self.delivered += 1
            PRODUCED.labels(message.source, message.station_id).inc()

    def _fail(self, number: int, error: BaseException) -> None:
        if message := self._under_way.pop(number, None):
            self._hold(message, type(error).__name__)

    def _hold(self, message: Message, reason: str) -> None:
        NOT_DELIVERED.labels(message.source).inc()
        if not self._keep:
            self._lost += 1
            return
        log.warning("message not delivered yet", station=message.station_id, reason=reason)
        if len(self._waiting) >= WAITING:
            self._lose(self._waiting.popleft())
        self._waiting.append(message)

    def _lose(self, message: Message) -> None:
        DROPPED.labels(message.source).inc()
        log.error("message lost", station=message.station_id, observed_at=message.observed_at.isoformat())

    def _unreachable(self, more: str = "") -> UnreachableError:
        return UnreachableError(
            f"Kafka at {self._servers} (BOOTSTRAP_SERVERS) does not answer{more}; is the stack up? (./meteo up)"
        )

    def _no_topic(self) -> UsageError:
        return UsageError(
            f"Kafka at {self._servers} has no topic '{self._topic}' (TOPIC_NAME):"
            " ./meteo up creates those of the stack; check the name."
        )
