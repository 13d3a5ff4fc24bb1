"""Polling a place: the first source, else the fallback; forecast and air quality only when they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog

from meteo_common.errors import MeteoError, RefusedError, UnreachableError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_producer.coordinates import Coordinates
from meteo_producer.measures import FAILURES, LAST_SUCCESS, POLL_SECONDS, RETRIES, kind_of
from meteo_producer.outbox import Outbox
from meteo_producer.retries import retried
from meteo_producer.source import FEEDS, Answers, Feed, Source, checked

log = structlog.get_logger()
T = TypeVar("T")

RAW_NAMES = {"air_quality": "air_pollution"}
"""Feeds whose answers have another name in a message's `raw`."""
PATIENCE = 60.0
"""Seconds for all requests of one poll: an API that drips byte by byte is given up."""

TOLERANCE = 0.01
"""Of FORECAST_EVERY: 36 s of an hour."""


class Poll:
    """Asks sources about places, and remembers what is due.

    `outbox` takes the answers that cannot become a message; `attempts`: how often a source is asked in one poll.
    """

    def __init__(
        self,
        sources: list[Source],
        coordinates: Coordinates,
        outbox: Outbox,
        forecast_every: float,
        feeds: Collection[Feed] = FEEDS,
        *,
        attempts: int = 1,
        stopping: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = sources
        self._coordinates = coordinates
        self._outbox = outbox
        self._forecast_every = forecast_every
        self._feeds = feeds
        self._attempts = attempts
        self._stopping = stopping or threading.Event()
        self._clock = clock
        self._asked_at: dict[tuple[str, Place, Feed], float] = {}

    def ask(self, place: Place, *, again: bool = False) -> Message:
        """Return the place's message from the first source that answers; `again` after a poll that failed.

        Raises the first source's error when none does.
        """
        first_error: MeteoError | None = None
        for source in self._sources:
            if again:
                RETRIES.labels(source.name).inc()
            try:
                return retried(source.name, partial(self._ask, source, place), self._attempts)
            except MeteoError as error:
                FAILURES.labels(source.name, kind_of(error)).inc()
                if len(self._sources) > 1:
                    log.warning("source does not answer", source=source.name, place=str(place), error=str(error))
                first_error = first_error or error
        assert first_error is not None  # noqa: S101 - there is always a source
        raise first_error

    def _ask(self, source: Source, place: Place) -> Message:
        asked_at = self._clock()
        feeds = [feed for feed in self._feeds if feed == "current" or self._is_due(source, place, feed, asked_at)]
        with POLL_SECONDS.labels(source.name).time():
            answers = within(PATIENCE, self._stopping, lambda: self._fetch(source, place, feeds))
        try:
            message = checked(source.normalise(answers))
        except RefusedError as error:
            self._outbox.put_refused(source.name, answers, str(error))
            raise
        self._note(source, place, feeds, answers, asked_at)
        return message

    def _fetch(self, source: Source, place: Place, feeds: list[Feed]) -> Answers:
        located = self._coordinates.locate(place) if source.needs_coordinates else place
        collected_at = datetime.now(UTC)
        try:
            return source.fetch(located, feeds, collected_at)
        except MeteoError as error:
            if error.answer is not None:
                self._outbox.put_refused(
                    source.name, Answers(located, collected_at, {"current": error.answer}), str(error)
                )
            raise

    def _is_due(self, source: Source, place: Place, feed: Feed, now: float) -> bool:
        asked_at = self._asked_at.get((source.name, place, feed))
        # The round of an hour later may reach the place some seconds sooner; else it would be asked a round too late.
        return asked_at is None or now - asked_at >= (1 - TOLERANCE) * self._forecast_every

    def _note(self, source: Source, place: Place, feeds: list[Feed], answers: Answers, asked_at: float) -> None:
        LAST_SUCCESS.labels(source.name).set_to_current_time()
        for feed in feeds:
            if feed not in answers.missing:
                self._asked_at[source.name, place, feed] = asked_at
        for feed_name, error in answers.missing.items():
            FAILURES.labels(source.name, kind_of(error)).inc()
            log.warning("feed is missing", source=source.name, place=str(place), feed=feed_name, error=str(error))
            if error.answer is not None:
                bodies = answers.bodies | {RAW_NAMES.get(feed_name, feed_name): error.answer}
                self._outbox.put_refused(source.name, replace(answers, bodies=bodies), str(error))


def within(seconds: float, stopping: threading.Event, work: Callable[[], T]) -> T:
    """Return what `work` returns, in a thread of its own, so that neither a stop nor a hanging API has to wait for it.

    Raises UnreachableError after `seconds`, or 3 s after the service was told to stop.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="poll", daemon=True)
    thread.start()
    end = time.monotonic() + seconds
    while thread.is_alive() and time.monotonic() < end:
        thread.join(0.1)
        if stopping.is_set():
            end = min(end, time.monotonic() + 3)
    if thread.is_alive():
        raise UnreachableError(f"The source did not answer within {seconds:.0f} s; it is tried again at the next poll.")
    if errors:
        raise errors[0]
    return results[0]
