"""Stored answers, normalised again: those in `raw` of the table `weather`, and those that were refused."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta

import meteo_common.message as contract
from meteo_common.console import numbered, out, progress
from meteo_common.database import open_database, transaction
from meteo_common.days import day_bounds
from meteo_common.errors import RefusedError
from meteo_common.message import Message, decode
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.collected_days import CollectedDays
from meteo_producer.delivery import Delivery
from meteo_producer.raw_responses import Connection, RawResponse, RawResponses
from meteo_producer.source import Answers, as_record, checked
from meteo_producer.sources import HISTORIES, SOURCES, STORED

CHUNK = 1000
"""Messages that are under way together, 5 MB: memory stays flat, whatever the days."""
REPORT_EVERY = 10.0
"""Seconds between the lines of progress where there is no terminal."""


def normalise_stored(settings: Settings, first: date, last: date, places: tuple[Place, ...] = ()) -> Outcome:
    """Send what this version makes of the answers of these days (WEATHER_TIMEZONE, inclusive); no API is asked.

    A message keeps its `collected_at` and gets this version's `normaliser_version`, by which it wins.
    `places`: only these, by name and country; none means all.
    Raises UnreachableError when not all was delivered; the same command again is safe.
    """
    stored, outcome = Stored(settings, places), Outcome()
    with Delivery(settings) as delivery, closing(open_database(settings, STORED)) as connection:
        sending = Sending(settings, delivery)
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        reported = time.monotonic()
        with progress() as display:
            for number, day in enumerate(display.track(days, description="normalising stored answers"), start=1):
                for message in stored.rows(connection, day, outcome):
                    sending.add([message])
                if display.disable and time.monotonic() - reported >= REPORT_EVERY:
                    out.print(f"{number} of {numbered(len(days), 'day')}, {numbered(sending.messages, 'message')}")
                    reported = time.monotonic()
            for response, hours in stored.refused(connection, first, last, outcome):
                sending.add([message for _, message in hours], response, Counter(day for day, _ in hours if day))
        sending.confirm()
    outcome.normalised = sending.messages
    out.print(
        f"normalised {numbered(outcome.normalised, 'message')} to {settings.topic_name};"
        f" {outcome.unchanged} unchanged, {outcome.refused} still refused"
    )
    return outcome


@dataclass
class Outcome:
    """Messages sent; observations whose message is of this version already; answers that are refused still or again."""

    normalised: int = 0
    unchanged: int = 0
    refused: int = 0


class Stored:
    """The stored answers, as messages of this version."""

    # By the order in which the aggregation finds an observation's winner: no other message of it can matter.
    WINNERS = """
        SELECT value::text FROM (
            SELECT DISTINCT ON (value->>'station_id', date_time) value FROM weather
            WHERE date_time >= %s AND date_time < %s
            ORDER BY value->>'station_id', date_time, (value->>'collected_at')::timestamptz DESC,
                (value->>'normaliser_version')::int DESC, topic_generation DESC, partition DESC, msg_offset DESC
        ) AS winners
        WHERE value->>'data_origin' = 'api' AND value->>'source' = ANY(%s) AND value->'raw' <> '{}'
    """

    def __init__(self, settings: Settings, places: tuple[Place, ...] = ()) -> None:
        self._settings = settings
        self._places = {(place.name.casefold(), place.country) for place in places}
        # They are never asked, so that they need no key.
        api = Api()
        self._sources = {name: source(settings, api) for name, source in SOURCES.items()}
        self._histories = {name: history(settings, api) for name, history in HISTORIES.items()}

    def rows(self, connection: Connection, day: date, outcome: Outcome) -> Iterator[Message]:
        """Yield what becomes of the day's winning messages that an older version made."""
        with transaction(connection), connection.cursor("winners") as cursor:
            cursor.itersize = CHUNK
            cursor.execute(self.WINNERS, (*day_bounds(day, self._settings.zone), list(self._sources)))
            for (value,) in cursor:
                message = decode(value.encode())
                place = Place(message.city, message.country or "", message.latitude, message.longitude)
                if not self._is_wanted(place):
                    continue
                if message.normaliser_version >= contract.NORMALISER_VERSION:
                    outcome.unchanged += 1
                    continue
                answers = Answers(place, message.collected_at, message.raw)
                try:
                    fresh = checked(self._sources[message.source].normalise(answers))
                except RefusedError:
                    outcome.refused += 1
                    continue
                yield fresh

    def refused(
        self, connection: Connection, first: date, last: date, outcome: Outcome
    ) -> Iterator[tuple[RawResponse, list[tuple[date | None, Message]]]]:
        """Yield the kept answers that are understood now, with their messages; the day of each from an archive."""
        zone = self._settings.zone
        start, end = day_bounds(first, zone)[0], day_bounds(last, zone)[1]
        with transaction(connection):
            for response in RawResponses(self._settings).pending(connection, start, end):
                if not self._is_wanted(response.answers.place):
                    continue
                try:
                    messages = self._understand(response)
                except RefusedError:
                    outcome.refused += 1
                    continue
                yield response, messages

    def _understand(self, response: RawResponse) -> list[tuple[date | None, Message]]:
        source, answers = response.source, response.answers
        # Every poll has `current`; an answer of an archive has not.
        if "current" in answers.bodies and source in self._sources:
            return [(None, checked(self._sources[source].normalise(answers)))]
        if source not in self._histories:
            raise RefusedError(f"the source {source} is unknown")
        messages = [(day, checked(message)) for day, message in self._histories[source].normalise_days(answers)]
        if not messages:
            raise RefusedError("no hour was measured")
        return [*messages]

    def _is_wanted(self, place: Place) -> bool:
        return not self._places or (place.name.casefold(), place.country) in self._places


class Sending:
    """Messages on their way, and what is to be noted when Kafka has them."""

    def __init__(self, settings: Settings, delivery: Delivery) -> None:
        self.messages = 0
        self._settings = settings
        self._delivery = delivery
        self._under_way = 0
        self._responses: list[tuple[RawResponse, Counter[date]]] = []

    def add(
        self, messages: list[Message], response: RawResponse | None = None, days: Counter[date] | None = None
    ) -> None:
        """Send; `response`: the kept answer that they are made of, `days`: how many of them are of which past day."""
        for message in messages:
            self._delivery.send(*as_record(message))
        self.messages += len(messages)
        self._under_way += len(messages)
        if response is not None:
            self._responses.append((response, days or Counter()))
        if self._under_way >= CHUNK:
            self.confirm()

    def confirm(self) -> None:
        """Wait for Kafka, then note which answers need not be looked at again. Raises UnreachableError."""
        self._delivery.confirm()
        self._under_way = 0
        if not self._responses:
            return
        with closing(open_database(self._settings, STORED)) as connection:
            for response, days in self._responses:
                CollectedDays(connection, response.source, response.answers.place).mend(days)
        RawResponses(self._settings).mark_normalised([response.number for response, _ in self._responses])
        self._responses.clear()
