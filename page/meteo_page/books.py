"""The tier PostgreSQL: its books on all tiers, and each station's newest weather."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import connect, transaction
from meteo_common.settings import Settings
from meteo_hadoop.freshness import CHANGED, COUNTS

STATEMENT_MS = 4_000
MOST_STATIONS = 500
"""So that no stranger's messages make metrics and page endless."""
CURRENT = timedelta(hours=24)
"""An answer about weather older than this was asked for the past's sake (./meteo backfill): nothing got fresh by it."""


@dataclass(frozen=True)
class Position:
    """Up to where PostgreSQL has a partition, and since when."""

    next_offset: int
    updated_at: datetime


@dataclass(frozen=True)
class StationBook:
    """A station's newest message, and what is newest of it in HDFS."""

    station_id: str
    city: str
    country: str | None
    latitude: float | None
    longitude: float | None
    source: str
    data_origin: str
    observed_at: datetime
    collected_at: datetime
    observation: dict[str, Any]
    exported_at: datetime | None
    """observed_at of the newest row that lies in HDFS."""
    air_quality: dict[str, Any] | None

    @property
    def current(self) -> bool:
        """Whether the message tells of the weather at the time when it was collected."""
        return self.data_origin != "replay" and self.collected_at - self.observed_at < CURRENT


@dataclass
class Books:
    """Counts of all tiers; `topics` is each topic's id by its name, the newest one."""

    counts: dict[str, int] = field(default_factory=dict)
    topic_id: UUID | None = None
    positions: dict[int, Position] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=lambda: {"new": 0, "replayed": 0})
    dead_letters_lately: int = 0
    """New ones that came within the last hour."""
    gap_records: int = 0
    gap_records_lately: int = 0
    connections: int = 0
    most_connections: int = 0
    """How many PostgreSQL takes, of all databases."""
    changed_days: list[dict[str, Any]] = field(default_factory=list)
    stations: list[StationBook] = field(default_factory=list)

    @property
    def collected_at(self) -> datetime | None:
        """When the newest current weather was collected."""
        return max((station.collected_at for station in self.stations if station.current), default=None)


def open_reader(settings: Settings, milliseconds: int = STATEMENT_MS) -> Connection:
    """Return a connection that can only read, and whose statements end after this long."""
    connection = connect(settings, "page")
    try:
        with transaction(connection) as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (str(milliseconds),))
        connection.set_session(readonly=True)
    except BaseException:
        connection.close()
        raise
    return connection


class BookReader:
    """Reads the books."""

    MADE = "SELECT to_regclass('expired_days') IS NOT NULL"
    POSITIONS = """
        SELECT topic_id, partition, next_offset, updated_at FROM positions JOIN topics USING (topic_id)
        WHERE generation = (SELECT max(generation) FROM topics WHERE name = %s)
    """
    LETTERS = """
        SELECT state, count(*), count(*) FILTER (WHERE received_at > now() - interval '1 hour')
        FROM dead_letters GROUP BY state
    """
    GAPS = """
        SELECT coalesce(sum(to_offset - from_offset), 0),
            coalesce(sum(to_offset - from_offset) FILTER (WHERE noticed_at > now() - interval '1 hour'), 0)
        FROM gaps
    """
    CONNECTIONS = "SELECT sum(numbackends), current_setting('max_connections')::int FROM pg_stat_database"
    # The stations are found by leaps through their index, and the newest row of each by the same index; only of the
    # winners is the value read, which has 12 KB.
    STATIONS = """
        WITH RECURSIVE found (station_id, number) AS (
            (SELECT value->>'station_id', 1 FROM weather ORDER BY 1 LIMIT 1)
            UNION ALL
            SELECT (SELECT value->>'station_id' FROM weather WHERE value->>'station_id' > found.station_id
                    ORDER BY 1 LIMIT 1), number + 1
            FROM found WHERE station_id IS NOT NULL AND number < %(most)s
        )
        SELECT found.station_id, winner.value->>'city', winner.value->>'country',
            (winner.value->>'latitude')::float, (winner.value->>'longitude')::float, winner.value->>'source',
            winner.value->>'data_origin', newest.date_time, (winner.value->>'collected_at')::timestamptz,
            winner.value->'observation', exported.date_time, air.quality
        FROM found
        CROSS JOIN LATERAL (
            SELECT date_time FROM weather WHERE value->>'station_id' = found.station_id
            ORDER BY date_time DESC LIMIT 1
        ) AS newest
        CROSS JOIN LATERAL (
            SELECT value FROM weather WHERE value->>'station_id' = found.station_id AND date_time = newest.date_time
            ORDER BY (value->>'collected_at')::timestamptz DESC, (value->>'normaliser_version')::int DESC,
                topic_generation DESC, partition DESC, msg_offset DESC LIMIT 1
        ) AS winner
        LEFT JOIN LATERAL (
            SELECT date_time FROM weather WHERE value->>'station_id' = found.station_id
                AND msg_offset < (SELECT next_offset FROM export_positions AS planned
                    WHERE planned.topic_generation = weather.topic_generation
                    AND planned.partition = weather.partition)
                AND NOT EXISTS (SELECT FROM export_plan_days JOIN export_plans AS plan USING (plan_id)
                    WHERE published_at IS NULL AND plan.topic_generation = weather.topic_generation
                    AND plan.partition = weather.partition AND msg_offset >= from_offset AND msg_offset < to_offset)
            ORDER BY date_time DESC LIMIT 1
        ) AS exported ON true
        LEFT JOIN LATERAL (
            SELECT value->'air_quality' AS quality FROM weather WHERE value->>'station_id' = found.station_id
                AND date_time > newest.date_time - interval '3 hours'
                AND value#>>'{air_quality,index}' IS NOT NULL
            ORDER BY date_time DESC LIMIT 1
        ) AS air ON true
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def read(self) -> Books:
        """Return the books; empty ones while no service has made the tables. Raises UnreachableError."""
        with closing(open_reader(self._settings)) as connection, transaction(connection) as cursor:
            cursor.execute(self.MADE)
            if not (cursor.fetchone() or (False,))[0]:
                return Books()
            return self._read(cursor)

    def _read(self, cursor: Cursor) -> Books:
        books = Books()
        cursor.execute(COUNTS)
        names = [column.name for column in cursor.description or ()]
        books.counts = {name: int(count) for name, count in zip(names, cursor.fetchone() or (), strict=True)}
        cursor.execute(self.POSITIONS, (self._settings.topic_name,))
        for topic_id, partition, next_offset, updated_at in cursor.fetchall():
            books.topic_id = UUID(str(topic_id))
            books.positions[partition] = Position(next_offset, updated_at)
        cursor.execute(self.LETTERS)
        for state, count, lately in cursor.fetchall():
            books.dead_letters[state] = count
            if state == "new":
                books.dead_letters_lately = lately
        cursor.execute(self.GAPS)
        books.gap_records, books.gap_records_lately = map(int, cursor.fetchone() or (0, 0))
        cursor.execute(self.CONNECTIONS)
        books.connections, books.most_connections = map(int, cursor.fetchone() or (0, 0))
        cursor.execute(CHANGED)
        books.changed_days = [
            {"day": day.isoformat(), "changed_at": at.isoformat(timespec="seconds"), "late_rows": int(rows)}
            for day, at, rows in cursor.fetchall()
        ]
        cursor.execute(self.STATIONS, {"most": MOST_STATIONS})
        books.stations = [StationBook(*row) for row in cursor.fetchall()]
        return books
