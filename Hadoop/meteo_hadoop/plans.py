"""Export plans: which records go into which day's file, committed in PostgreSQL before HDFS is touched.

A plan covers a range of offsets of one partition. It names every day that the range touches and how many rows of
it. A run that died is finished by its plans: the same files with the same bytes, until every day is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import transaction
from meteo_common.errors import UsageError
from meteo_common.failpoints import reach


@dataclass(frozen=True)
class PlannedFile:
    """The rows of one plan that belong to one day."""

    plan_id: int
    topic_generation: int
    partition: int
    from_offset: int
    to_offset: int
    day: date
    rows: int
    first_observed_at: datetime
    last_observed_at: datetime

    @property
    def name(self) -> str:
        """The file's name in the day's directory; a topic made again has its generation in it, lest names meet."""
        generation = f"g{self.topic_generation}_" if self.topic_generation > 1 else ""
        return f"weather_{generation}p{self.partition}_{self.from_offset}-{self.to_offset}.json"


class Plans:
    """The plans in PostgreSQL."""

    ZONE = "SELECT value FROM platform WHERE name = 'weather_timezone'"
    KEEP_ZONE = "INSERT INTO platform (name, value) VALUES ('weather_timezone', %s) ON CONFLICT DO NOTHING"
    # Before the first query, so that the snapshot is taken when the lock is held.
    LOCK = "LOCK TABLE export_positions IN EXCLUSIVE MODE"
    DUE = """
        SELECT generation, partition, from_offset, next_offset FROM (
            SELECT topics.generation, positions.partition, positions.next_offset,
                coalesce(exported.next_offset, positions.first_offset) AS from_offset
            FROM positions JOIN topics USING (topic_id)
            LEFT JOIN export_positions AS exported
                ON exported.topic_generation = topics.generation AND exported.partition = positions.partition
        ) AS due WHERE next_offset > from_offset ORDER BY generation, partition
    """
    PLAN = """
        INSERT INTO export_plans (topic_generation, partition, from_offset, to_offset) VALUES (%s, %s, %s, %s)
        RETURNING plan_id
    """
    PLAN_DAYS = """
        INSERT INTO export_plan_days (plan_id, day, rows, first_observed_at, last_observed_at)
        SELECT %(plan)s, (date_time AT TIME ZONE %(zone)s)::date, count(*), min(date_time), max(date_time)
        FROM weather WHERE topic_generation = %(generation)s AND partition = %(partition)s
            AND msg_offset >= %(from)s AND msg_offset < %(to)s
        GROUP BY 2
    """
    MOVE = """
        INSERT INTO export_positions (topic_generation, partition, next_offset) VALUES (%s, %s, %s)
        ON CONFLICT (topic_generation, partition) DO UPDATE SET next_offset = excluded.next_offset
    """
    OPEN_DAYS = "SELECT DISTINCT day FROM export_plan_days WHERE published_at IS NULL ORDER BY day"
    OPEN_FILES = """
        SELECT plan_id, topic_generation, partition, from_offset, to_offset, day, rows, first_observed_at,
            last_observed_at
        FROM export_plan_days JOIN export_plans USING (plan_id)
        WHERE published_at IS NULL AND day = %s ORDER BY topic_generation, partition, from_offset
    """
    PUBLISHED = "UPDATE export_plan_days SET published_at = now() WHERE day = %s AND plan_id = ANY(%s)"
    CHANGED = """
        INSERT INTO days (day, files_version) VALUES (%s, 1)
        ON CONFLICT (day) DO UPDATE SET files_version = days.files_version + 1, changed_at = now()
    """
    FINISH = """
        UPDATE export_plans SET finished_at = now() WHERE finished_at IS NULL AND NOT EXISTS (
            SELECT FROM export_plan_days AS open WHERE open.plan_id = export_plans.plan_id AND published_at IS NULL)
    """

    def __init__(self, connection: Connection, time_zone: str) -> None:
        self._connection = connection
        self._time_zone = time_zone

    def check_time_zone(self, *, keep: bool) -> None:
        """Refuse (UsageError) a WEATHER_TIMEZONE other than the one the partitions were made with.

        `keep`: store it when there is none yet.
        """
        with transaction(self._connection) as cursor:
            if keep:
                cursor.execute(self.KEEP_ZONE, (self._time_zone,))
            cursor.execute(self.ZONE)
            row = cursor.fetchone()
        if row and row[0] != self._time_zone:
            raise UsageError(
                f"WEATHER_TIMEZONE is '{self._time_zone}', the day partitions were made with '{row[0]}': set it back,"
                " or write them anew (./meteo export --rebuild)."
            )

    def plan(self) -> int:
        """Commit plans for everything consumed and not planned yet; return their rows."""
        previous = self._connection.isolation_level
        self._connection.set_isolation_level(ISOLATION_LEVEL_REPEATABLE_READ)
        try:
            with transaction(self._connection) as cursor:
                cursor.execute(self.LOCK)
                cursor.execute(self.DUE)
                rows = sum(self._plan(cursor, *due) for due in cursor.fetchall())
                reach("export.before_plan_commit")
        finally:
            if not self._connection.closed:
                self._connection.set_isolation_level(previous)
        reach("export.after_plan_commit")
        return rows

    def open_days(self) -> list[date]:
        """Return the days that a plan still owes a file."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.OPEN_DAYS)
            return [day for (day,) in cursor.fetchall()]

    def finish(self) -> None:
        """Close the plans whose every day is published."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.FINISH)

    def _plan(self, cursor: Cursor, generation: int, partition: int, from_offset: int, to_offset: int) -> int:
        cursor.execute(self.PLAN, (generation, partition, from_offset, to_offset))
        (plan_id,) = cursor.fetchone() or (0,)
        cursor.execute(
            self.PLAN_DAYS,
            {
                "plan": plan_id,
                "zone": self._time_zone,
                "generation": generation,
                "partition": partition,
                "from": from_offset,
                "to": to_offset,
            },
        )
        cursor.execute(self.MOVE, (generation, partition, to_offset))
        cursor.execute("SELECT coalesce(sum(rows), 0) FROM export_plan_days WHERE plan_id = %s", (plan_id,))
        return int((cursor.fetchone() or (0,))[0])


def open_files(connection: Connection, day: date) -> list[PlannedFile]:
    """Return the files of the day that plans still owe."""
    with transaction(connection) as cursor:
        cursor.execute(Plans.OPEN_FILES, (day,))
        return [PlannedFile(*row) for row in cursor.fetchall()]


def mark_published(connection: Connection, day: date, files: list[PlannedFile]) -> None:
    """Note that the files are in the day's manifest, and that the day has changed, in one transaction."""
    with transaction(connection) as cursor:
        cursor.execute(Plans.PUBLISHED, (day, [file.plan_id for file in files]))
        cursor.execute(Plans.CHANGED, (day,))
