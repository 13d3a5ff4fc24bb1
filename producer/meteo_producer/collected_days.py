"""What became of asking for past days: the table `collections`, and the lock of those who write it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import psycopg2
import psycopg2.extensions
from psycopg2.extras import execute_values

from meteo_common.database import transaction
from meteo_common.errors import TransientError
from meteo_common.places import Place
from meteo_producer.source import station_at

Connection = psycopg2.extensions.connection
# 'back' in ASCII: the first half of the two-part advisory lock; the second is the checksum of source and place.
_CLASS = 0x6261636B


@dataclass(frozen=True)
class CollectedDay:
    """What one call brought of a day.

    `state`: done; empty when the provider knows nothing of it (yet); failed when its answer was refused, by `error`.
    `cost`: the day's share of the call, in the unit of the provider's budget.
    """

    day: date
    state: Literal["done", "empty", "failed"]
    rows: int
    cost: float
    collected_at: datetime
    error: str | None = None


class CollectedDays:
    """The days of one source and place."""

    DONE = "SELECT day FROM collections WHERE (source, place) = (%s, %s) AND day BETWEEN %s AND %s AND state = 'done'"
    MARK = """
        INSERT INTO collections (source, place, day, state, rows, cost, collected_at, error) VALUES %s
        ON CONFLICT (source, place, day) DO UPDATE SET state = excluded.state, rows = excluded.rows,
            cost = collections.cost + excluded.cost, collected_at = excluded.collected_at, error = excluded.error,
            updated_at = now()
    """
    MEND = """
        UPDATE collections SET state = 'done', rows = %s, error = NULL, updated_at = now()
        WHERE (source, place, day) = (%s, %s, %s) AND state = 'failed'
    """
    LOCK = "SELECT pg_try_advisory_lock(%s, %s)"
    UNLOCK = "SELECT pg_advisory_unlock(%s, %s)"

    def __init__(self, connection: Connection, source: str, place: Place) -> None:
        """Of a place that has coordinates: by them it is known again, as its station is."""
        self._connection = connection
        self._source = source
        self._place = f"{place}@{station_at(place.latitude or 0.0, place.longitude or 0.0)}"

    def done(self, first: date, last: date) -> set[date]:
        """Return the days from `first` to `last` that need not be asked for again."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.DONE, (self._source, self._place, first, last))
            return {day for (day,) in cursor}

    def mark(self, days: Sequence[CollectedDay]) -> None:
        """Write what became of these days, all or none; the costs of asking again add up.

        Raises UnreachableError when the session, and with it the lock, is gone.
        """
        rows = [
            # A reason may quote a NUL of the answer, which PostgreSQL's text cannot hold.
            (self._source, self._place, day.day, day.state, day.rows, day.cost, day.collected_at,
             day.error and day.error.replace("\0", "\N{REPLACEMENT CHARACTER}"))
            for day in days
        ]  # fmt: skip
        with transaction(self._connection) as cursor:
            execute_values(cursor, self.MARK, rows)

    def mend(self, rows: Mapping[date, int]) -> None:
        """Write that failed days are done after all, with so many messages: their answer was understood later."""
        with transaction(self._connection) as cursor:
            for day, number in rows.items():
                cursor.execute(self.MEND, (number, self._source, self._place, day))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude other backfills of the same source and place. Raises TransientError when there is one.

        The lock belongs to the session: a process that dies leaves none behind.
        """
        key = (_CLASS, zlib.crc32(f"{self._source} {self._place}".encode()) - 2**31)
        with transaction(self._connection) as cursor:
            cursor.execute(self.LOCK, key)
            if cursor.fetchone() != (True,):
                raise TransientError(
                    f"Another backfill of {self._place} from {self._source} is at work; wait until it has ended, then"
                    " run this again: it asks only for what is missing."
                )
        try:
            yield
        finally:
            with suppress(psycopg2.Error), self._connection, self._connection.cursor() as cursor:
                cursor.execute(self.UNLOCK, key)
