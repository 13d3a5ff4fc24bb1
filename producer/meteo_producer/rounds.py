"""The service: rounds over the places, whose messages go by the outbox to Kafka."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import structlog

from meteo_common.errors import MeteoError, TransientError, UnreachableError
from meteo_common.failpoints import reach
from meteo_common.places import Place
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_producer.delivery import Delivery
from meteo_producer.measures import NOT_DELIVERED, PRODUCED
from meteo_producer.outbox import LIMIT, Entry, Outbox
from meteo_producer.poll import Poll
from meteo_producer.raw_responses import RawResponses
from meteo_producer.source import KeyRefusedError, as_record

log = structlog.get_logger()

FIRST_PAUSE = 30.0
LONGEST_PAUSE = 3600.0
"""Seconds: a place that is wrong is asked for once an hour, since it may be set right on the other side."""


class Rounds:
    """Rounds over the places. Each place has its own next time, so that one that fails does not repeat the others.

    `intervals`: seconds between two polls of a place, by the source that answered the last one.
    """

    def __init__(
        self,
        settings: Settings,
        poll: Poll,
        outbox: Outbox,
        intervals: Mapping[str, float],
        service: Service,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._poll = poll
        self._outbox = outbox
        self._intervals = intervals
        self._service = service
        self._clock = clock
        # 4 s for a broker: with 3 s for what is under way, a stop is done within 10 s.
        self._delivery = Delivery(settings, patience=4, lasting=True, stopping=service.stopping)
        self._raw_responses = RawResponses(settings)
        self._away: UnreachableError | None = None
        self._due: dict[Place, float] = dict.fromkeys(settings.places, 0.0)
        self._failures: dict[Place, int] = dict.fromkeys(settings.places, 0)

    def run(self) -> float:
        """Deliver what waits, poll the places that are due, whether Kafka can be reached or not, and deliver them.

        Returns the seconds until a place is due again. Raises TransientError with them when a place failed,
        UnreachableError while Kafka is away.
        """
        self._away = None
        try:
            self._delivery.connect()
        except UnreachableError as error:
            self._away = error
        self._deliver()
        try:
            errors = self._ask_due()
        finally:
            # Also when nothing is asked because the outbox is full: of these perhaps.
            self._outbox.pass_on_refused(self._raw_responses.store)
        if self._away:
            raise self._away
        until = max(1.0, min(self._due.values()) - self._clock())
        if errors:
            first = next(iter(errors.values()))
            raise TransientError(f"{first} ({len(errors)} of {len(self._due)} places)", retry_after=until)
        return until

    def close(self) -> None:
        """Disconnect from Kafka, within 3 s. What it has not acknowledged stays in the outbox."""
        self._delivery.close()

    def _ask_due(self) -> dict[Place, MeteoError]:
        errors: dict[Place, MeteoError] = {}
        started = self._clock()
        for place in [place for place, due in self._due.items() if due <= started + 1]:
            if self._service.stopping.is_set():
                break
            if len(self._outbox) >= LIMIT:
                raise self._full()
            self._service.beat(trouble=str(self._away) if self._away else None)
            try:
                message = self._poll.ask(place, again=self._failures[place] > 0)
            except MeteoError as error:
                errors[place] = error
                self._postpone(place, error)
                log.warning("no message", place=str(place), error=str(error))
                continue
            reach("producer.after_answer")
            self._outbox.put(*as_record(message))
            reach("producer.after_outbox")
            self._due[place] = started + self._intervals[message.source]
            self._failures[place] = 0
            self._deliver()
        return errors

    def _deliver(self) -> None:
        """Send what waits, in its order, until Kafka does not acknowledge some of it; `_away` says so then."""
        while self._delivery.connected and (entries := self._outbox.pending()):
            reach("producer.before_send")
            for entry in entries:
                self._delivery.send(entry.key, entry.value)
            reach("producer.after_send")
            failed = set(self._delivery.flush())
            reach("producer.after_ack")
            arrived = [entry for number, entry in enumerate(entries) if number not in failed]
            self._outbox.forget([entry.id for entry in arrived])
            for entry in arrived:
                PRODUCED.labels(_source(entry), entry.key.decode()).inc()
            if failed:
                for number in failed:
                    NOT_DELIVERED.labels(_source(entries[number])).inc()
                self._away = self._delivery.unreachable(len(failed))
                log.warning("not delivered yet", error=str(self._away), waiting=len(self._outbox))

    def _postpone(self, place: Place, error: MeteoError) -> None:
        """Double the pause with each failure, from 30 s up to the interval (an hour for what cannot help itself).

        While an account is paused, spent or its key refused, asking costs no request, and another source may answer:
        so no place waits longer than its interval for that.
        """
        self._failures[place] += 1
        interval = max(self._intervals.values())
        passing = isinstance(error, TransientError | KeyRefusedError)
        pause = min(interval if passing else LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures[place] - 1, 10))
        # Jitter, so that many producers do not come back to an API at the same moment.
        pause *= random.uniform(0.8, 1.0)  # noqa: S311
        asked = error.retry_after if isinstance(error, TransientError) else None
        self._due[place] = self._clock() + max(pause, min(asked or 0.0, interval))

    def _full(self) -> TransientError:
        return TransientError(
            f"{LIMIT} messages wait in the outbox: nothing more is asked for until"
            f" {'Kafka takes some of them' if self._away else 'PostgreSQL takes the refused answers'};"
            " see ./meteo status."
        )


def _source(entry: Entry) -> str:
    return entry.key.decode().partition(":")[0]
