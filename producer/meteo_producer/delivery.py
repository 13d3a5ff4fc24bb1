"""Delivery to Kafka: every message is acknowledged by all in-sync replicas, or known not to be."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.future import Future

from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import Settings

DELIVERY_MS = 30_000
"""How long an accepted message may wait for its acknowledgement."""
REQUEST_MS = 10_000
LINGER_MS = 20
"""A recording's batches wait this long to fill up."""


class Delivery:
    """A connection to the topic.

    `patience`: seconds to look for a broker; 10 lets a person know within 15.
    `lasting`: of a service, which sends what it has at once and waits for a topic that is not there yet.
    `stopping`: when set, no wait is longer than 3 s.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience: float = 10,
        lasting: bool = False,
        stopping: threading.Event | None = None,
    ) -> None:
        self.delivered = 0
        self._servers = settings.bootstrap_servers
        self._topic = settings.topic_name
        self._patience_ms = int(patience * 1000)
        self._lasting = lasting
        self._stopping = stopping or threading.Event()
        self._producer: KafkaProducer | None = None
        self._futures: list[Future] = []
        self._reason = ""

    def __enter__(self) -> Delivery:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Say whether there is a client that messages can be handed to."""
        return self._producer is not None

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
            if self._lasting:
                # A broker that starts slowly says no more than this.
                raise self._unreachable(f": it does not know the topic '{self._topic}' yet")
            raise self._no_topic()
        self._producer = producer

    def send(self, key: bytes, value: bytes) -> None:
        """Hand a message over; whether it arrived is known after `flush`."""
        producer = self._producer
        try:
            if producer is None:
                raise KafkaError("not connected")
            self._futures.append(producer.send(self._topic, value, key))
        except KafkaError as error:
            self._futures.append(Future().failure(error))

    def flush(self) -> list[int]:
        """Wait until all that was handed over is acknowledged, or given up.

        Returns what is not acknowledged, numbered from 0 in the order of `send` since the last `flush`; the connection
        is closed then. An acknowledgement may have been lost: to send such a message again can add a row, never an
        observation.
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
                    self.close(0)
        futures, self._futures = self._futures, []
        failed = [number for number, future in enumerate(futures) if not future.succeeded()]
        self.delivered += len(futures) - len(failed)
        if failed:
            self._reason = type(futures[failed[0]].exception or KafkaTimeoutError()).__name__
            # A client that timed out may never deliver again, not even after the broker is back.
            self.close(0)
        return failed

    def confirm(self) -> None:
        """Flush. Raises UnreachableError with the number of messages that are not delivered."""
        if failed := self.flush():
            raise self.unreachable(len(failed))

    def unreachable(self, failed: int) -> UnreachableError:
        """Return the error that so many messages are not delivered."""
        return self._unreachable(f"; undelivered messages: {failed} ({self._reason})")

    def close(self, seconds: float = 2) -> None:
        """Disconnect, waiting at most `seconds` + 1 for acknowledgements."""
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
                linger_ms=0 if self._lasting else LINGER_MS,
                allow_auto_create_topics=False,
            )
        except KafkaError:
            raise self._unreachable() from None
        except ValueError:
            raise UsageError(
                f"BOOTSTRAP_SERVERS '{self._servers}' cannot be used; expected host:port, several separated by commas."
            ) from None

    def _unreachable(self, more: str = "") -> UnreachableError:
        return UnreachableError(
            f"Kafka at {self._servers} (BOOTSTRAP_SERVERS) does not answer{more}; is the stack up? (./meteo up)"
        )

    def _no_topic(self) -> UsageError:
        return UsageError(
            f"Kafka at {self._servers} has no topic '{self._topic}' (TOPIC_NAME):"
            " ./meteo up creates those of the stack; check the name."
        )
