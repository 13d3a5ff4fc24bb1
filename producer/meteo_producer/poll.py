"""Polling a place: the first source, else the fallback; forecast and air quality only when they are due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from meteo_common.errors import MeteoError, UnreachableError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_producer.coordinates import Coordinates
from meteo_producer.measures import FAILURES, LAST_SUCCESS, POLL_SECONDS, kind_of
from meteo_producer.source import FEEDS, Answers, Feed, KeyRefusedError, Source, checked

log = structlog.get_logger()
T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for all requests of one poll: an API that drips byte by byte is given up."""


class Poll:
    """Asks sources about places, and remembers what is due and which key was refused."""

    def __init__(
        self,
        sources: list[Source],
        coordinates: Coordinates,
        forecast_every: float,
        feeds: Collection[Feed] = FEEDS,
        stopping: threading.Event | None = None,
    ) -> None:
        self._sources = sources
        self._coordinates = coordinates
        self._forecast_every = forecast_every
        self._feeds = feeds
        self._stopping = stopping or threading.Event()
        self._asked_at: dict[tuple[str, Place, Feed], float] = {}
        self._refused_keys: dict[str, KeyRefusedError] = {}

    def ask(self, place: Place) -> Message:
        """Return the place's message from the first source that answers.

        Raises the first source's error when none does.
        """
        first_error: MeteoError | None = None
        for source in self._sources:
            try:
                return self._ask(source, place)
            except MeteoError as error:
                FAILURES.labels(source.name, kind_of(error)).inc()
                if len(self._sources) > 1:
                    log.warning("source does not answer", source=source.name, place=str(place), error=str(error))
                first_error = first_error or error
        assert first_error is not None  # noqa: S101 - there is always a source
        raise first_error

    def _ask(self, source: Source, place: Place) -> Message:
        if error := self._refused_keys.get(source.name):
            raise error
        feeds = [feed for feed in self._feeds if feed == "current" or self._is_due(source, place, feed)]
        try:
            with POLL_SECONDS.labels(source.name).time():
                answers = within(PATIENCE, self._stopping, lambda: self._fetch(source, place, feeds))
        except KeyRefusedError as error:
            # Asking again with a refused key angers the provider; another key comes with a restart.
            self._refused_keys[source.name] = error
            raise
        message = checked(source.normalise(answers))
        self._note(source, place, feeds, answers)
        return message

    def _fetch(self, source: Source, place: Place, feeds: list[Feed]) -> Answers:
        located = self._coordinates.locate(place) if source.needs_coordinates else place
        return source.fetch(located, feeds, datetime.now(UTC))

    def _is_due(self, source: Source, place: Place, feed: Feed) -> bool:
        asked_at = self._asked_at.get((source.name, place, feed))
        # 1 s of tolerance: the poll of an hour later may come a few milliseconds early.
        return asked_at is None or time.monotonic() - asked_at >= self._forecast_every - 1

    def _note(self, source: Source, place: Place, feeds: list[Feed], answers: Answers) -> None:
        LAST_SUCCESS.labels(source.name).set_to_current_time()
        for feed in feeds:
            if feed not in answers.missing:
                self._asked_at[source.name, place, feed] = time.monotonic()
        for feed_name, error in answers.missing.items():
            FAILURES.labels(source.name, kind_of(error)).inc()
            log.warning("feed is missing", source=source.name, place=str(place), feed=feed_name, error=str(error))


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
