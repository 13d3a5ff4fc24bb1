"""What the API reads of PostgreSQL and HBase for one station."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from typing import Any

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import transaction
from meteo_common.days import format_instant
from meteo_common.errors import TerminalError, UnreachableError
from meteo_common.settings import Settings
from meteo_hadoop.query import Selection, query
from meteo_page.books import BookReader, StationBook, open_reader

MOST_ROWS = 10_000
USUAL_ROWS = 1_000
AT_ONCE = 4
"""Connections to PostgreSQL, and readings of aggregates, at once: whoever asks for more waits, and the services
keep theirs. A server that takes calls and never answers holds so many of the page's threads, not all."""
WAIT_SECONDS = 5.0
SHOWN = timedelta(hours=48)
"""Of the observations when nobody says from when: up to the newest one, however old that is."""


class UnknownStationError(TerminalError):
    """There is no such station."""


class Weather:
    """Answers the API's questions, each on a connection of its own."""

    NEWEST = """
        SELECT date_time FROM weather WHERE value->>'station_id' = %s ORDER BY date_time DESC LIMIT 1
    """
    # The winner of each time: as the aggregates choose it.
    OBSERVATIONS = """
        SELECT DISTINCT ON (date_time) date_time, (value->>'collected_at')::timestamptz, value->>'data_origin',
            value->'observation', value#>'{air_quality,index}', value#>>'{air_quality,scale}'
        FROM weather
        WHERE value->>'station_id' = %(station)s AND date_time >= %(first)s AND date_time < %(after)s
        ORDER BY date_time DESC, (value->>'collected_at')::timestamptz DESC, (value->>'normaliser_version')::int DESC,
            topic_generation DESC, partition DESC, msg_offset DESC
        LIMIT %(limit)s
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free = threading.BoundedSemaphore(AT_ONCE)
        self._days_free = threading.BoundedSemaphore(AT_ONCE)

    def stations(self) -> list[dict[str, Any]]:
        """Return every station with its newest weather. Raises UnreachableError when PostgreSQL is away."""
        with self._free_connection():
            return [_station(book) for book in BookReader(self._settings).read().stations]

    def observations(
        self, station_id: str, first: datetime | None, after: datetime | None, limit: int
    ) -> dict[str, Any]:
        """Return the newest `limit` observations from `first` up to, not including, `after`, in the order of time.

        Without `first`: of the last 48 h up to the newest. Raises UnknownStationError, and UnreachableError when
        PostgreSQL is away.
        """
        with self._cursor() as cursor:
            newest = self._newest(cursor, station_id)
            until = after or newest + timedelta(microseconds=1)
            since = first or min(newest, until) - SHOWN
            values = {"station": station_id, "first": since, "after": until, "limit": limit + 1}
            cursor.execute(self.OBSERVATIONS, values)
            rows = cursor.fetchall()
        return {
            "station_id": station_id,
            "from": format_instant(since),
            "to": format_instant(until),
            "newest_observed_at": format_instant(newest),
            "more": len(rows) > limit,
            "observations": [_observation(*row) for row in reversed(rows[:limit])],
        }

    def aggregates(self, station_id: str, first: date | None, last: date | None, limit: int) -> dict[str, Any]:
        """Return the newest `limit` daily aggregates from `first` to `last`, both inclusive, in the order of days.

        Raises UnknownStationError, and UnreachableError when HBase (HDFS where HBASE_ENABLED is off) is away.
        """
        if not self._days_free.acquire(timeout=WAIT_SECONDS):
            raise UnreachableError(f"The page reads aggregates {AT_ONCE} times already; try again in a moment.")
        try:
            rows = query(self._settings, Selection(station_id, first, last))
        finally:
            self._days_free.release()
        if not rows:
            with self._cursor() as cursor:
                self._newest(cursor, station_id)
        return {
            "station_id": station_id,
            "read_from": "hbase" if self._settings.hbase_enabled else "hdfs",
            "more": len(rows) > limit,
            "aggregates": rows[-limit:],
        }

    def _newest(self, cursor: Cursor, station_id: str) -> datetime:
        cursor.execute("SELECT to_regclass('weather') IS NOT NULL")
        row = None
        if (cursor.fetchone() or (False,))[0]:
            cursor.execute(self.NEWEST, (station_id,))
            row = cursor.fetchone()
        if row is None:
            raise UnknownStationError(f"There is no station '{station_id}'; /api/stations lists those there are.")
        newest: datetime = row[0]
        return newest

    @contextmanager
    def _cursor(self) -> Iterator[Cursor]:
        with (
            self._free_connection(),
            closing(open_reader(self._settings)) as connection,
            transaction(connection) as cursor,
        ):
            yield cursor

    @contextmanager
    def _free_connection(self) -> Iterator[None]:
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise UnreachableError(f"The page asks PostgreSQL {AT_ONCE} questions already; try again in a moment.")
        try:
            yield
        finally:
            self._free.release()


def _station(book: StationBook) -> dict[str, Any]:
    quality = book.air_quality
    return {
        "station_id": book.station_id,
        "city": book.city,
        "country": book.country,
        "latitude": book.latitude,
        "longitude": book.longitude,
        "source": book.source,
        "data_origin": book.data_origin,
        "observed_at": format_instant(book.observed_at),
        "collected_at": format_instant(book.collected_at),
        "current": book.current,
        "observation": book.observation,
        "air_quality": quality and {"scale": quality["scale"], "index": quality["index"]},
    }


def _observation(
    observed_at: datetime,
    collected_at: datetime,
    data_origin: str,
    observation: dict[str, Any],
    index: float | None,
    scale: str | None,
) -> dict[str, Any]:
    return {
        "observed_at": format_instant(observed_at),
        "collected_at": format_instant(collected_at),
        "data_origin": data_origin,
        **observation,
        "air_quality_index": index,
        "air_quality_scale": scale,
    }
