"""The runs of the producer: one poll, polls without end, or a recording from its beginning to its end."""

from __future__ import annotations

import time
from collections.abc import Collection
from itertools import islice

import structlog

from meteo_common.console import out, progress
from meteo_common.errors import MeteoError
from meteo_common.message import Message
from meteo_common.schedule import run_every
from meteo_common.service import Service
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.delivery import Delivery
from meteo_producer.intervals import interval_of
from meteo_producer.measures import FIRST, watch_account, watch_outbox
from meteo_producer.outbox import Outbox
from meteo_producer.poll import Poll
from meteo_producer.raw_responses import RawResponses
from meteo_producer.retries import ATTEMPTS
from meteo_producer.rounds import Rounds
from meteo_producer.source import FEEDS, Feed, Recording, Source, as_record
from meteo_producer.sources import SOURCES, fallback_of
from meteo_producer.state import State

log = structlog.get_logger()

CHUNK = 20_000
"""The client's buffer has no bound of its own: at most so many messages, 18 MB, are under way."""
REPORT_EVERY = 10.0
"""Seconds between the lines of progress where there is no terminal."""


def open_sources(settings: Settings, name: str, api: Api) -> list[Source]:
    """Return the source and its fallback, both ready to be asked. Raises UsageError when one lacks a setting."""
    names = dict.fromkeys([name, fallback_of(settings) or name])
    sources = [SOURCES[each](settings, api) for each in names]
    for source in sources:
        source.ready()
    return sources


def produce_once(settings: Settings, name: str, feeds: Collection[Feed] = FEEDS) -> int:
    """Poll each place once and return the number of messages produced.

    What can be had is produced; then the first error is raised.
    """
    state = State.of(settings)
    api = Api(Accounts(settings, state))
    outbox = Outbox(state, settings.topic_name)
    sources = open_sources(settings, name, api)
    poll = Poll(sources, Coordinates(settings, api), outbox, settings.forecast_every, feeds, attempts=ATTEMPTS)
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
                delivery.send(*as_record(message))
            delivery.confirm()
        _say(len(messages), settings)
    outbox.pass_on_refused(RawResponses(settings).store)
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
        records = recording.records()
        while chunk := list(islice(records, CHUNK)):
            for key, value in chunk:
                delivery.send(key, value)
            delivery.confirm()
            display.update(task, completed=delivery.delivered)
            if time.monotonic() - reported >= REPORT_EVERY:
                log.info("replaying", produced=delivery.delivered, of=len(recording))
                reported = time.monotonic()
    _say(delivery.delivered, settings)
    return delivery.delivered


def produce_every(settings: Settings, name: str, feeds: Collection[Feed] = FEEDS) -> None:
    """Poll each place every PRODUCE_EVERY until SIGTERM; an API or a broker that is away is waited for.

    A budget that is too small for that makes the interval longer.
    """
    state = State.of(settings)
    accounts, outbox = Accounts(settings, state), Outbox(state, settings.topic_name)
    api = Api(accounts)
    sources = open_sources(settings, name, api)
    service = Service("producer", settings.metrics_listener)
    try:
        poll = Poll(
            sources, Coordinates(settings, api), outbox, settings.forecast_every, feeds, stopping=service.stopping
        )
        intervals = {source.name: interval_of(source, settings, accounts, feeds) for source in sources}
        for number, source in enumerate(sources):
            FIRST.labels(source.name).set(number == 0)
        rounds = Rounds(settings, poll, outbox, intervals, service)
        for account in (accounts.of(source.name) for source in sources):
            if account:
                watch_account(accounts, account)
        watch_outbox(outbox)
        log.info("producing", source=name, places=[str(place) for place in settings.places], topic=settings.topic_name)
        try:
            run_every(service, min(intervals.values()), rounds.run)
        finally:
            rounds.close()
    finally:
        service.close()


def _say(number: int, settings: Settings) -> None:
    out.print(f"produced {number} message{'' if number == 1 else 's'} to {settings.topic_name}")
