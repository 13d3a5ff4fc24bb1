"""The day partitions written anew from PostgreSQL: after HDFS was damaged, or for another WEATHER_TIMEZONE.

PostgreSQL forgets first that anything was exported, then the days in HDFS are emptied, then all is exported as ever.
Dying after the first step leaves days that an export refuses, because they have its records already: rebuild again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date

from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import open_database, transaction
from meteo_common.errors import MismatchError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.compact import finish_merges
from meteo_hadoop.expire import finish_expiries
from meteo_hadoop.export import Exported, export_once
from meteo_hadoop.locks import day_locks
from meteo_hadoop.manifest import Days, Manifest
from meteo_hadoop.plans import Plans
from meteo_hadoop.webhdfs import THREADS, FileSystem


class Rebuild:
    """Empties the days, so that an export writes them anew."""

    OURS = re.compile(r"weather_(g\d+_)?p\d+_\d+-\d+\.json")
    DAYS = "SELECT day FROM days"
    ROWS = "SELECT count(*) FROM weather"
    DETACHED = "SELECT name FROM detached_months ORDER BY name LIMIT 1"
    FORGET = (
        "DELETE FROM export_plan_days; DELETE FROM export_plans; DELETE FROM export_positions; DELETE FROM expired_days"
    )
    ZONE = """
        INSERT INTO platform (name, value) VALUES ('weather_timezone', %s)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value
    """
    CHANGED = """
        INSERT INTO days (day, files_version) SELECT unnest(%s::date[]), 1
        ON CONFLICT (day) DO UPDATE SET files_version = days.files_version + 1, changed_at = now(),
            merge_begun_at = NULL
    """

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._zone = settings.weather_timezone
        self._connection = connection
        self._days = Days(FileSystem(settings), settings.hdfs_base_path)

    def empty(self) -> None:
        """Forget what was exported, take up WEATHER_TIMEZONE, and leave each day with a manifest of no files.

        Raises MismatchError, and changes nothing, when PostgreSQL has not all the rows that HDFS may have.
        """
        with transaction(self._connection) as cursor:
            cursor.execute(self.DAYS)
            known = {day for (day,) in cursor.fetchall()} | set(self._days.listed())
        with day_locks(self._connection, known), ThreadPoolExecutor(THREADS) as pool:
            manifests = dict(zip(known, pool.map(self._read, known), strict=True))
            self._forget(manifests)
            reach("rebuild.after_forget")
            list(pool.map(lambda day: self._empty_day(day, manifests[day]), known))

    def _read(self, day: date) -> Manifest:
        try:
            return self._days.read(day) or Manifest(day, self._zone)
        except MismatchError:  # damaged: the next aggregation gives out a generation above all others anyway
            return Manifest(day, self._zone)

    def _forget(self, manifests: Mapping[date, Manifest]) -> None:
        in_hdfs = sum(manifest.rows for manifest in manifests.values())
        with transaction(self._connection) as cursor:
            cursor.execute(Plans.LOCK)
            cursor.execute(self.DETACHED)
            if row := cursor.fetchone():
                raise MismatchError(
                    f"{row[0]} is not in the table weather any more (./meteo retention): HDFS may hold the only copy of"
                    " its rows, so the days cannot be written anew; nothing was changed."
                )
            cursor.execute(self.ROWS)
            (rows,) = cursor.fetchone() or (0,)
            if rows < in_hdfs:
                raise MismatchError(
                    f"PostgreSQL has {rows} rows, HDFS {in_hdfs}: let the consumer catch up (./meteo consume"
                    " --until-idle), or restore PostgreSQL; nothing was changed."
                )
            cursor.execute(self.FORGET)
            cursor.execute(self.ZONE, (self._zone,))
            cursor.execute(self.CHANGED, (list(manifests),))

    def _empty_day(self, day: date, before: Manifest) -> None:
        self._days.write(Manifest(day, self._zone, generation=before.generation))
        reach("rebuild.after_manifest")
        for entry in self._days.filesystem.list(self._days.directory(day)):
            if entry.name in before.files or self.OURS.fullmatch(entry.name):
                self._days.filesystem.delete(self._days.path(day, entry.name))


def rebuild(settings: Settings, report: Callable[[int, int], None] = lambda *_: None) -> Exported:
    """Write all days anew, in WEATHER_TIMEZONE; `report(done, total)` is told of days."""
    with closing(open_database(settings, "rebuild")) as database:
        finish_merges(settings, database)
        finish_expiries(settings, database)
        Rebuild(settings, database).empty()
    return export_once(settings, report)
