"""The days in HDFS and PostgreSQL's snapshot of the same instant, taken while services run; and the way back.

Neither order of two copies would do. HDFS after PostgreSQL has rows of which PostgreSQL knows nothing, and on a host
without Kafka's log never will; HDFS before PostgreSQL lacks files that count as published, and what retention drops in
between is in neither. So there are two passes. First each day is copied under its own lock, which keeps nobody waiting
for long. Then, while all days and plans stand still, PostgreSQL's snapshot is exported and the few days are copied
again that its ledger says have changed since. Files are immutable once published, so that the ledger can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from typing import Any, BinaryIO

from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import connect, open_database, transaction
from meteo_common.settings import Settings
from meteo_hadoop.archive import INDEX, ArchiveWriter, present, roots
from meteo_hadoop.climatology import CLIMATE
from meteo_hadoop.hbase import AggregateTable
from meteo_hadoop.locks import climate_lock, day_locks
from meteo_hadoop.manifest import Days
from meteo_hadoop.plans import Plans
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.workers import each_day

LEDGER = "SELECT day, days::text FROM days"
KNOWN = "SELECT day FROM days UNION SELECT day FROM export_plan_days WHERE published_at IS NULL"
EXPORT_SNAPSHOT = "SELECT pg_export_snapshot()"
POSITIONS = """
    SELECT topics.name, topics.generation, topic_id::text, partition, next_offset
    FROM topics LEFT JOIN positions USING (topic_id) ORDER BY generation, partition
"""
COUNTS = "SELECT (SELECT count(*) FROM weather), (SELECT count(*) FROM dead_letters)"
MADE = "SELECT to_regclass('days') IS NOT NULL"
ANY_ROW = "SELECT EXISTS (SELECT FROM weather) OR EXISTS (SELECT FROM dead_letters) OR EXISTS (SELECT FROM days)"
# Not of days that have expired: there is nothing to give.
OWE = """
    UPDATE days SET hbase_generation = 0, hbase_stations = '{}'
    WHERE published_generation > 0 AND NOT EXISTS (SELECT FROM expired_days AS gone
        WHERE gone.day = days.day AND gone.files_version = days.files_version)
"""


class Copier:
    """Copies days into an archive, and remembers what PostgreSQL's ledger said of each."""

    def __init__(self, settings: Settings, archive: ArchiveWriter) -> None:
        self._filesystem = FileSystem(settings)
        self._archive = archive
        self._roots = roots(settings)
        self._copied: dict[date, str | None] = {}
        self._files: dict[date, dict[str, str]] = {}

    def listed(self) -> set[date]:
        """Return the days that have a directory, be it of Parquet alone."""
        return {day for name in ("days", "parquet") for day in Days(self._filesystem, self._roots[name]).listed()}

    def copy_day(self, connection: Connection, day: date) -> None:
        """Copy a day under its lock."""
        with day_locks(connection, [day]):
            with transaction(connection) as cursor:
                cursor.execute(f"{LEDGER} WHERE day = %s", (day,))
                said = dict(cursor.fetchall()).get(day)
            self._copy(day, said)

    def copy_changed(self, ledger: dict[date, str]) -> None:
        """Copy again what has changed since, and forget what has gone; the caller holds the locks of all days."""
        listed = self.listed()
        for day in listed:
            if day not in self._copied or self._copied[day] != ledger.get(day):
                self._copy(day, ledger.get(day))
        for day in self._files.keys() - listed:
            del self._files[day]

    def end(self) -> list[date]:
        """Copy what belongs to no day, write which members count, and return the days that they are of."""
        files = {name: digest for of_day in self._files.values() for name, digest in of_day.items()}
        path = f"{self._roots['climate']}/{CLIMATE}"
        if self._filesystem.length(path) is not None:
            files[f"climate/{CLIMATE}"] = self._add(f"climate/{CLIMATE}", path)
        self._archive.add(INDEX, json.dumps({"files": files}).encode())
        self._archive.close()
        return sorted(day for day, files in self._files.items() if any(name.startswith("days/") for name in files))

    def _copy(self, day: date, said: str | None) -> None:
        files: dict[str, str] = {}
        for root in ("days", "parquet"):
            directory = Days(self._filesystem, self._roots[root]).directory(day)
            for entry in self._filesystem.list(directory):
                # Temporary files are nobody's: their writer has died, or is not there while the lock is held.
                if not entry.is_directory and not (entry.name.startswith("_") and entry.name.endswith(".tmp")):
                    name = f"{root}/dt={day.isoformat()}/{entry.name}"
                    files[name] = self._add(name, f"{directory}/{entry.name}")
        self._copied[day], self._files[day] = said, files

    def _add(self, name: str, path: str) -> str:
        content = self._filesystem.read(path)
        self._archive.add(name, content)
        return hashlib.sha256(content).hexdigest()


def take(
    settings: Settings, sink: BinaryIO, announce: Callable[[dict[str, Any]], None], wait: Callable[[], Any]
) -> None:
    """Write HDFS to `sink`, as an archive, and `announce` PostgreSQL's snapshot of the same instant.

    The snapshot can be dumped until `wait` returns. Announced are `snapshot`, its id for pg_dump; `rows` and
    `dead_letters`, how many there are; `day_list`; and `positions`, up to where each topic was taken.
    """
    with (
        closing(open_database(settings, "backup")) as database,
        closing(connect(settings, "backup")) as snapshot,
        ArchiveWriter(sink) as archive,
    ):
        Plans(database, settings.weather_timezone).check_time_zone(keep=False)
        copier = Copier(settings, archive)
        each_day(settings, "backup", sorted(copier.listed()), copier.copy_day, lambda *_: None)
        snapshot.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
        with transaction(snapshot) as cursor:
            with standing_still(settings, database, copier):
                cursor.execute(EXPORT_SNAPSHOT)
                (identity,) = cursor.fetchone() or ("",)
                cursor.execute(LEDGER)
                copier.copy_changed(dict(cursor.fetchall()))
            with climate_lock(database):
                days = copier.end()
            announce({"snapshot": identity, "day_list": [day.isoformat() for day in days], **_facts(cursor)})
            wait()


@contextmanager
def standing_still(settings: Settings, database: Connection, copier: Copier) -> Iterator[None]:
    """Hold the locks of all days and let no plan be made: HDFS, and what PostgreSQL says of it, stay as they are."""

    def known() -> set[date]:
        with transaction(database) as cursor:
            cursor.execute(KNOWN)
            return copier.listed() | {day for (day,) in cursor.fetchall()}

    with closing(connect(settings, "backup")) as locks, closing(connect(settings, "backup")) as plans:
        while True:
            days = known()
            # Days before plans, as all who want both: else two would wait for each other.
            with day_locks(locks, days), transaction(plans) as cursor:
                cursor.execute(Plans.LOCK)
                if known() <= days:
                    yield
                    return


def has_data(settings: Settings) -> dict[str, bool]:
    """Say whether PostgreSQL and HDFS hold anything of the platform's; nothing is changed, not even an older schema."""
    filesystem = FileSystem(settings)
    with closing(connect(settings, "restore")) as database, transaction(database) as cursor:
        held = True
        for question in (MADE, ANY_ROW):
            if held:
                cursor.execute(question)
                (held,) = cursor.fetchone() or (False,)
    return {"postgresql": held, "hdfs": bool(present(filesystem, settings))}


def owe_hbase(settings: Settings) -> None:
    """Drop HBase's table, whose rows are another state's, and note that it is owed every day: aggregation gives them.

    The aggregates lie in HDFS, and each of their fields is in a row of HBase: a copy of its own could only disagree.
    """
    if settings.hbase_enabled:
        with AggregateTable.connect(settings) as table:
            table.drop()
    with closing(open_database(settings, "restore")) as database, transaction(database) as cursor:
        cursor.execute(OWE)


def _facts(cursor: Cursor) -> dict[str, Any]:
    cursor.execute(COUNTS)
    rows, letters = cursor.fetchone() or (0, 0)
    cursor.execute(POSITIONS)
    names = ("topic", "generation", "topic_id", "partition", "next_offset")
    positions = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {"rows": rows, "dead_letters": letters, "positions": positions}
