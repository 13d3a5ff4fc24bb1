"""Answers that were refused, kept so that a later version of ours may understand them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg2.extensions
import structlog

from meteo_common.database import open_database, transaction
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.source import Answers

log = structlog.get_logger()
Connection = psycopg2.extensions.connection
AT_ONCE = 20
"""Answers read from the server in one go: one of past days may have 200 KB."""


@dataclass(frozen=True)
class RawResponse:
    """One kept answer; `reason` says why it was refused."""

    number: int
    source: str
    answers: Answers
    reason: str


class RawResponses:
    """The table `raw_responses`. Refusals are rare: each call has a connection of its own."""

    STORE = """
        INSERT INTO raw_responses (source, city, country, latitude, longitude, units, collected_at, body, reason)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
    """
    EXPIRE = "DELETE FROM raw_responses WHERE received_at < now() - make_interval(days => %s)"
    PENDING = """
        SELECT raw_response_id, source, city, country, latitude, longitude, units, collected_at, body, reason
        FROM raw_responses
        WHERE normalised_at IS NULL AND collected_at >= %s AND collected_at < %s ORDER BY collected_at
    """
    NORMALISED = "UPDATE raw_responses SET normalised_at = now() WHERE raw_response_id = ANY(%s)"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def store(self, source: str, answers: Answers, reason: str) -> None:
        """Keep the answers, and delete those whose days are over. The same answers again add nothing.

        Raises UnreachableError while PostgreSQL is away.
        """
        body = _written(answers)
        if body is None:
            log.error("answer cannot be kept", source=source, place=str(answers.place), reason=reason)
            return
        place = answers.place
        where = (place.name, place.country, place.latitude, place.longitude)
        # A reason may quote a NUL of the answer, which PostgreSQL's text cannot hold.
        values = (
            source,
            *where,
            answers.units,
            answers.collected_at,
            body,
            reason.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        )
        with closing(open_database(self._settings, "producer")) as connection, transaction(connection) as cursor:
            cursor.execute(self.STORE, values)
            cursor.execute(self.EXPIRE, (self._settings.raw_responses_days,))

    def pending(self, connection: Connection, start: datetime, end: datetime) -> Iterator[RawResponse]:
        """Yield what was collected from `start` to before `end` and is not understood yet, a few at a time.

        The connection's transaction must stay open meanwhile.
        """
        with connection.cursor("raw_responses") as cursor:
            cursor.itersize = AT_ONCE
            cursor.execute(self.PENDING, (start, end))
            for number, source, city, country, latitude, longitude, units, collected_at, body, reason in cursor:
                place, asked_at = Place(city, country, latitude, longitude), collected_at.astimezone(UTC)
                answers = Answers(place, asked_at, json.loads(bytes(body)), units)
                yield RawResponse(number, source, answers, reason)

    def mark_normalised(self, numbers: list[int]) -> None:
        """Note that messages were made of these answers; they are not taken again."""
        with closing(open_database(self._settings, "producer")) as connection, transaction(connection) as cursor:
            cursor.execute(self.NORMALISED, (numbers,))


def _written(answers: Answers) -> bytes | None:
    """Return the bodies as UTF-8 JSON; ASCII, so that half a surrogate pair can be written too."""
    try:
        return json.dumps(answers.bodies).encode()
    except (ValueError, TypeError, RecursionError):
        return None
