"""Retention: months of the table `weather` are detached, and later dropped, while their counts stay.

A month goes only when every row of it lies in HDFS. What arrives late for it makes a new partition of that month.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, count
from typing import Any

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import open_database, transaction
from meteo_common.errors import TransientError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_consumer.months import month_name

PAUSES = (0.0, 2.0, 4.0, 8.0)
"""Pauses before each attempt to take `weather` for a moment, in seconds."""
LOCK_MS = 2000
"""How long an attempt waits for open batches and exports; new ones wait behind it, so it must be short."""


@dataclass(frozen=True)
class Month:
    """A UTC month of the table `weather`, from `first` up to, not including, `after`."""

    name: str
    first: datetime
    after: datetime


@dataclass(frozen=True)
class DetachedMonth:
    """A month that was taken out; `dropped_at` is None as long as its table is there."""

    name: str
    first: datetime
    rows: int
    detached_at: datetime
    dropped_at: datetime | None


class Retention:
    """The months of `weather`, and those that were taken out of it."""

    ATTACHED = "SELECT name, first, after FROM weather_months ORDER BY first"
    DETACHED = "SELECT name, first, rows, detached_at, dropped_at FROM detached_months ORDER BY first, name"
    # Keeps plans from being made, which move export positions, and other retentions waiting.
    HOLD_EXPORT = "LOCK TABLE export_positions IN SHARE ROW EXCLUSIVE MODE"
    IS_ATTACHED = "SELECT EXISTS (SELECT FROM weather_months WHERE name = %s AND first = %s)"
    NOT_EXPORTED = """
        SELECT count(*) FROM {month} LEFT JOIN export_positions USING (topic_generation, partition)
        WHERE next_offset IS NULL OR msg_offset >= next_offset
    """
    # A day of the month in any zone.
    OPEN_PLANS = """
        SELECT count(*) FROM export_plan_days WHERE published_at IS NULL
        AND day BETWEEN %(first)s::date - 1 AND %(after)s::date + 1
    """
    # By the index on records: rows that came after the counting have greater offsets than were exported.
    CAME_SINCE = """
        SELECT EXISTS (SELECT FROM positions JOIN topics USING (topic_id)
            LEFT JOIN export_positions AS exported
                ON exported.topic_generation = generation AND exported.partition = positions.partition
            WHERE EXISTS (SELECT FROM {month} AS month WHERE month.topic_generation = generation
                AND month.partition = positions.partition
                AND msg_offset >= coalesce(exported.next_offset, first_offset)))
    """
    LOCK_MS = "SELECT set_config('lock_timeout', %s, true)"
    LOCK = "LOCK TABLE ONLY weather, {month} IN ACCESS EXCLUSIVE MODE"
    NAMES = "SELECT name FROM detached_months UNION SELECT relname::text FROM pg_class"
    RECORD = "INSERT INTO detached_months (name, first, rows) VALUES (%s, %s, 0)"
    PARTITION_ROWS = """
        INSERT INTO detached_partition_rows (name, topic_generation, partition, rows)
        SELECT %s, topic_generation, partition, count(*) FROM {month} GROUP BY topic_generation, partition
    """
    # The zone is stored by the first export, without which no row is exported.
    DAY_ROWS = """
        INSERT INTO detached_day_rows (name, day, rows)
        SELECT %s, (date_time AT TIME ZONE (SELECT value FROM platform WHERE name = 'weather_timezone'))::date AS day,
            count(*)
        FROM {month} GROUP BY day
    """
    SUM = """
        UPDATE detached_months SET rows = (SELECT coalesce(sum(rows), 0) FROM detached_day_rows
            WHERE detached_day_rows.name = detached_months.name)
        WHERE name = %s RETURNING name, first, rows, detached_at, dropped_at
    """
    DROPPED = "UPDATE detached_months SET dropped_at = now() WHERE name = %s"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def attached(self) -> list[Month]:
        """Return the months of `weather` in their order."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.ATTACHED)
            return [Month(*row) for row in cursor.fetchall()]

    def detached(self) -> list[DetachedMonth]:
        """Return the months that were taken out, dropped ones too."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.DETACHED)
            return [DetachedMonth(*row) for row in cursor.fetchall()]

    def obstacle(self, month: Month) -> str | None:
        """Say what of the month is not in HDFS yet, so that it has to stay; None when it can go."""
        with transaction(self._connection) as cursor:
            return self._obstacle(cursor, month)

    def detach(self, month: Month) -> DetachedMonth | str:
        """Take a month out and keep its counts, in one transaction; else return why it has to stay.

        Raises TransientError when `weather` is in use for longer than the patience.
        """
        with transaction(self._connection) as cursor:
            cursor.execute(self.HOLD_EXPORT)
            cursor.execute(self.IS_ATTACHED, (month.name, month.first))
            if not _first(cursor):
                return "another retention has taken it"
            if obstacle := self._obstacle(cursor, month):
                return obstacle
            name = self._record(cursor, month)
            self._lock(cursor, month)
            cursor.execute(self._of(month, self.CAME_SINCE))
            if _first(cursor):
                self._connection.rollback()
                return "rows of it came meanwhile"
            cursor.execute(self.SUM, (name,))
            detached = DetachedMonth(*(cursor.fetchone() or ()))
            cursor.execute(self._of(month, "ALTER TABLE weather DETACH PARTITION {month}"))
            cursor.execute(self._of(month, "ALTER TABLE {month} RENAME TO {name}", name=sql.Identifier(name)))
            reach("retention.before_commit")
        return detached

    def drop(self, month: DetachedMonth) -> None:
        """Delete a detached month's table; its counts stay."""
        with transaction(self._connection) as cursor:
            cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(month.name)))
            cursor.execute(self.DROPPED, (month.name,))

    def _obstacle(self, cursor: Cursor, month: Month) -> str | None:
        cursor.execute(self._of(month, self.NOT_EXPORTED))
        if rows := _first(cursor):
            return f"{rows} of its rows are not exported"
        cursor.execute(self.OPEN_PLANS, {"first": month.first.astimezone(UTC), "after": month.after.astimezone(UTC)})
        if files := _first(cursor):
            return f"the export still owes {files} files of its days"
        return None

    def _record(self, cursor: Cursor, month: Month) -> str:
        """Write the month's counts and return the name under which it goes on, numbered when it is taken."""
        first = month.first.astimezone(UTC)
        base = month_name(first.year, first.month, "detached_")
        cursor.execute(self.NAMES)
        taken = {row[0] for row in cursor.fetchall()}
        name = next(each for each in chain((base,), (f"{base}_{number}" for number in count(2))) if each not in taken)
        cursor.execute(self.RECORD, (name, month.first))
        cursor.execute(self._of(month, self.PARTITION_ROWS), (name,))
        cursor.execute(self._of(month, self.DAY_ROWS), (name,))
        return name

    def _lock(self, cursor: Cursor, month: Month) -> None:
        """Take the table for the moment of detaching; the counting before it kept nobody from writing."""
        for pause in PAUSES:
            time.sleep(pause)
            cursor.execute("SAVEPOINT unlocked")
            cursor.execute(self.LOCK_MS, (str(LOCK_MS),))
            try:
                cursor.execute(self._of(month, self.LOCK))
                return
            except psycopg2.errors.LockNotAvailable:
                cursor.execute("ROLLBACK TO SAVEPOINT unlocked")
        raise TransientError(
            f"The table weather is in use by long batches or exports, so that {month.name} cannot be detached now;"
            " try again later."
        )

    @staticmethod
    def _of(month: Month, statement: str, **names: sql.Composable) -> sql.Composed:
        return sql.SQL(statement).format(month=sql.Identifier(month.name), **names)


def _first(cursor: Cursor) -> Any:
    """Return the only value of a query."""
    return (cursor.fetchone() or (None,))[0]


def first_kept(keep: int, now: datetime) -> datetime:
    """Return the first instant of the `keep` newest UTC months, the running one among them."""
    months = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - (keep - 1)
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


@dataclass
class Retained:
    """What a run did, or with `dry_run` would do."""

    detached: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Months that are old enough and had to stay, each with its reason."""
    dropped: list[str] = field(default_factory=list)
    rows: int = 0
    """Rows of the detached months; 0 of a dry run."""


def retain(settings: Settings, keep: int | None, *, drop: bool = False, dry_run: bool = False) -> Retained:
    """Detach the months before the `keep` newest (None: none), then, if asked, drop all that are detached.

    Raises UnreachableError when PostgreSQL is away, TransientError when `weather` is in use for long.
    """
    connection = open_database(settings, "retention")
    try:
        retention, done = Retention(connection), Retained()
        before = first_kept(keep, datetime.now(UTC)) if keep else datetime.min.replace(tzinfo=UTC)
        for month in retention.attached():
            if month.after > before:
                continue
            gone = retention.obstacle(month) if dry_run else retention.detach(month)
            if isinstance(gone, str):
                done.kept[month.name] = gone
                continue
            done.detached.append(month.name)
            done.rows += gone.rows if gone else 0
        for old in retention.detached() if drop else ():
            if old.dropped_at is None:
                if not dry_run:
                    retention.drop(old)
                done.dropped.append(old.name)
        return done
    finally:
        connection.close()
