"""The runs of the producer: one poll, polls without end, or a recording from its beginning to its end."""

from __future__ import annotations

import random
import time
from collections.abc import Collection

import structlog

from meteo_common.console import out, progress
from meteo_common.errors import MeteoError, TransientError, UnreachableError, UsageError
from meteo_common.message import Message
from meteo_common.places import Place
from meteo_common.schedule import run_every
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.delivery import Delivery
from meteo_producer.poll import Poll
from meteo_producer.source import FEEDS, Feed, Recording, Source
from meteo_producer.sources import SOURCES
from meteo_producer.state import State

log = structlog.get_logger()

LONGEST_PAUSE = 3600.0
"""A place or a key that is wrong is asked for once an hour: it may be set right on the other side."""
FLUSH_AFTER = 20_000
"""The client's buffer has no bound of its own: at most so many messages, 18 MB, are under way."""
REPORT_EVERY = 10.0
"""Seconds between the lines of progress where there is no terminal."""


def open_sources(settings: Settings, name: str, api: Api) -> list[Source]:
    """Return the source and its fallback, both ready to be asked. Raises UsageError when one lacks a setting."""
    names = [name] if settings.fallback in {"none", name} else [name, settings.fallback]
    sources = [SOURCES[each](settings, api) for each in names]
    for source in sources:
        source.ready()
    return sources


def produce_once(settings: Settings, name: str, feeds: Collection[Feed] = FEEDS) -> int:
    """Poll each place once and return the number of messages produced.

    What can be had is produced; then the first error is raised.
    """
    api = Api(Accounts(settings, State.of(settings)))
    poll = Poll(open_sources(settings, name, api), Coordinates(settings, api), settings.forecast_every, feeds)
    messages: list[Message] = []
    errors: list[MeteoError] = []
    for place in settings.places:
        try:
            messages.append(poll.ask(place))
        except MeteoError as error:
            errors.append(error)
    if messages:
        with Delivery(settings) as delivery:
            for message in messages:
                delivery.send(message)
            delivery.flush()
        _say(len(messages), settings)
    for other in errors[1:]:
        log.warning("no message", error=str(other))
    if errors:
        raise errors[0]
    return len(messages)


def play(settings: Settings, recording: Recording) -> int:
    """Produce a whole recording and return the number of messages.

    Raises UnreachableError when not all of it was delivered; playing it again is safe.
    """
    with Delivery(settings) as delivery, progress() as display:
        task = display.add_task(f"replaying to {settings.topic_name}", total=len(recording))
        reported = time.monotonic()
        for number, message in enumerate(recording, start=1):
            delivery.send(message)
            if number % FLUSH_AFTER == 0:
                delivery.flush()
            if number % 500 == 0:
                display.update(task, completed=number)
                if time.monotonic() - reported >= REPORT_EVERY:
                    log.info("replaying", produced=number, of=len(recording))
                    reported = time.monotonic()
        delivery.flush()
        display.update(task, completed=len(recording))
    _say(delivery.delivered, settings)
    return delivery.delivered


def produce_every(settings: Settings, name: str, feeds: Collection[Feed] = FEEDS) -> None:
    """Poll each place every PRODUCE_EVERY until SIGTERM; an API or a broker that is away is waited for.

    Raises UsageError when the very first round fails for every place by what must be set right.
    """
    api = Api(Accounts(settings, State.of(settings)))
    sources = open_sources(settings, name, api)
    service = Service("producer", settings.meteo_metrics_port)
    try:
        poll = Poll(sources, Coordinates(settings, api), settings.forecast_every, feeds, service.stopping)
        rounds = Rounds(settings, poll, service)
        log.info("producing", source=name, places=[str(place) for place in settings.places], topic=settings.topic_name)
        try:
            run_every(service, settings.produce_every, rounds.run)
        finally:
            rounds.close()
    finally:
        service.close()


class Rounds:
    """Rounds over the places. Each place has its own next time, so that one that fails does not repeat the others."""

    def __init__(self, settings: Settings, poll: Poll, service: Service) -> None:
        self._settings = settings
        self._poll = poll
        self._service = service
        # 4 s for a broker: with 3 s for what is under way, a stop is done within 10 s.
        self._delivery = Delivery(settings, patience=4, keep=True, stopping=service.stopping)
        self._due: dict[Place, float] = dict.fromkeys(settings.places, 0.0)
        self._failures: dict[Place, int] = dict.fromkeys(settings.places, 0)
        self._produced = False

    def run(self) -> None:
        """Poll the places that are due, whether Kafka can be reached or not, and deliver.

        Raises TransientError with the seconds until a place is due again, UnreachableError while Kafka is away.
        """
        away: UnreachableError | None = None
        try:
            self._delivery.connect()
        except UnreachableError as error:
            away = error
        errors = self._ask_due()
        if away:
            raise away
        self._delivery.resend()
        self._delivery.flush()
        if errors:
            self._tell(errors)

    def close(self) -> None:
        """Disconnect from Kafka, within 3 s."""
        self._delivery.close()

    def _ask_due(self) -> dict[Place, MeteoError]:
        errors: dict[Place, MeteoError] = {}
        started = time.monotonic()
        for place in [place for place, due in self._due.items() if due <= started + 1]:
            if self._service.stopping.is_set():
                break
            self._service.beat()
            try:
                message = self._poll.ask(place)
            except MeteoError as error:
                errors[place] = error
                self._postpone(place, error)
                log.warning("no message", place=str(place), error=str(error))
                continue
            self._due[place] = started + self._settings.produce_every
            self._failures[place] = 0
            self._produced = True
            self._delivery.send(message)
        return errors

    def _postpone(self, place: Place, error: MeteoError) -> None:
        """Double the pause with each failure, from 30 s up to the interval (an hour for what cannot help itself)."""
        self._failures[place] += 1
        asked = error.retry_after if isinstance(error, TransientError) else None
        ceiling = self._settings.produce_every if isinstance(error, TransientError) else LONGEST_PAUSE
        pause = min(ceiling, 30.0 * 2 ** min(self._failures[place] - 1, 10))
        # Jitter, so that many producers do not come back to an API at the same moment.
        pause *= random.uniform(0.8, 1.2)  # noqa: S311
        self._due[place] = time.monotonic() + max(asked or 0.0, pause)

    def _tell(self, errors: dict[Place, MeteoError]) -> None:
        first = next(iter(errors.values()))
        hopeless = all(isinstance(error, UsageError) for error in errors.values()) and len(errors) == len(self._due)
        if hopeless and not self._produced:
            raise first
        until = max(1.0, min(self._due.values()) - time.monotonic())
        raise TransientError(f"{first} ({len(errors)} of {len(self._due)} places)", retry_after=until)


def _say(number: int, settings: Settings) -> None:
    out.print(f"produced {number} message{'' if number == 1 else 's'} to {settings.topic_name}")
