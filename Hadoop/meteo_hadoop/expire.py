"""Retention in HDFS: days older than so many go, with their Parquet and their rows in HBase; their counts stay.

The day is noted as expiring, its rows in HBase are withdrawn, and then its directory is deleted, all at once. Dying on
the way leaves the note: while the directory is there, the day is whole and only computed again; when it has gone, the
day has expired and the rest is cleared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import msgspec
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import transaction
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.counts import DayCount
from meteo_hadoop.hbase import AggregateTable, DayWrite
from meteo_hadoop.ledger import DayState, Ledger
from meteo_hadoop.locks import day_locks, still_held
from meteo_hadoop.manifest import Days, Manifest, decode_manifest
from meteo_hadoop.parquet import parquet_days
from meteo_hadoop.plans import open_files
from meteo_hadoop.reconcile import reconcile_tiers
from meteo_hadoop.webhdfs import FileSystem

log = structlog.get_logger()


@dataclass
class Expired:
    """What has expired, or would; `kept` are days that are old enough, with the reason why they stay."""

    days: list[date] = field(default_factory=list)
    rows: int = 0
    kept: dict[date, str] = field(default_factory=dict)


class Expirer:
    """Expires days, one at a time, on the connection that holds the day's lock."""

    BEGIN = """
        INSERT INTO expired_days (day, rows, observations, files_version, manifest) VALUES (%s, %s, %s, %s, %s)
    """
    MANIFESTS = "SELECT manifest::text FROM expired_days ORDER BY day, begun_at"
    CANCEL = "DELETE FROM expired_days WHERE day = %s AND expired_at IS NULL"
    END = "UPDATE expired_days SET expired_at = now() WHERE day = %s AND expired_at IS NULL"
    # Nothing is owed any more, by files that are not there.
    CLEAR = """
        UPDATE days SET aggregated_version = files_version, published_generation = generation,
            hbase_generation = generation, hbase_stations = '{}', parquet_version = files_version,
            merged_version = files_version
        WHERE day = %s
    """
    OPEN = "SELECT day FROM expired_days WHERE expired_at IS NULL ORDER BY day"

    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._filesystem = FileSystem(settings)
        self._days = Days(self._filesystem, settings.hdfs_base_path)
        self._parquet = parquet_days(self._filesystem, settings)
        self._connection = connection
        self._ledger = Ledger(connection)

    def expire(self, count: DayCount) -> str | None:
        """Expire a day that was found clean with these counts; return why it stays if something has changed since."""
        day = count.day
        with day_locks(self._connection, [day]):
            state, manifest = self._ledger.states([day])[day], self._days.read(day)
            if manifest is None or manifest.rows != count.rows_in_manifest or open_files(self._connection, day):
                return "rows came meanwhile"
            if reason := self._reason(state):
                return reason
            with transaction(self._connection) as cursor:
                text = msgspec.json.encode(manifest).decode()
                counts = (manifest.rows, count.observations_in_hdfs, state.files_version, text)
                cursor.execute(self.BEGIN, (day, *counts))
            reach("expire.after_note")
            self._withdraw(state)
            reach("expire.after_hbase")
            still_held(self._connection)
            self._filesystem.delete_tree(self._days.directory(day))
            reach("expire.after_delete")
            self._clear(day)
        return None

    def settle(self, day: date) -> None:
        """End what was cut off: clear the rest of a day whose directory has gone, else leave the day as it was."""
        with day_locks(self._connection, [day]):
            if day not in expiring(self._connection):
                return  # it had not died, only not ended yet
            if self._filesystem.list(self._days.directory(day)):
                with transaction(self._connection) as cursor:
                    cursor.execute(self.CANCEL, (day,))
            else:
                self._clear(day)

    def _reason(self, state: DayState) -> str | None:
        if state.changed or (self._settings.hbase_enabled and state.owed_to_hbase):
            return "it is to be aggregated"
        if state.hbase_stations and not self._settings.hbase_enabled:
            return "HBase has rows of it and is switched off (HBASE_ENABLED)"
        return None

    def _withdraw(self, state: DayState) -> None:
        # Given out first: should the day stay after all, it counts as changed, and HBase gets its rows back.
        generation = self._ledger.give_out([state.day])[state.day]
        if state.hbase_stations:
            with AggregateTable.connect(self._settings) as table:
                table.write_days([DayWrite(state.day, generation, [], state.hbase_stations)])

    def _clear(self, day: date) -> None:
        self._filesystem.delete_tree(self._parquet.directory(day))
        with transaction(self._connection) as cursor:
            cursor.execute(self.CLEAR, (day,))
            cursor.execute(self.END, (day,))


def expiring(connection: Connection) -> list[date]:
    """Return the days whose expiry has begun and not ended."""
    with transaction(connection) as cursor:
        cursor.execute(Expirer.OPEN)
        return [day for (day,) in cursor.fetchall()]


def with_expired(connection: Connection, manifests: Mapping[date, Manifest]) -> dict[date, Manifest]:
    """Return the manifests with the files, too, that the days had when they expired."""
    both = dict(manifests)
    with transaction(connection) as cursor:
        cursor.execute(Expirer.MANIFESTS)
        for (text,) in cursor.fetchall():
            gone = decode_manifest(text)
            there = both.setdefault(gone.day, Manifest(gone.day, gone.time_zone))
            there.files |= gone.files
            there.generation = max(there.generation, gone.generation)
            if gone.first_observed_at and gone.last_observed_at:
                there.cover(gone.first_observed_at, gone.last_observed_at)
    return both


def finish_expiries(settings: Settings, connection: Connection) -> None:
    """Settle the expiries that were cut off."""
    for day in expiring(connection):
        Expirer(settings, connection).settle(day)
        log.info("settled an expiry that had been interrupted", day=day.isoformat())


def expire(
    settings: Settings,
    connection: Connection,
    days: int,
    *,
    dry_run: bool,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Expired:
    """Expire the clean days that lie more than `days` days back; `report(done, total)` is told of days.

    Raises UnreachableError when a server is away.
    """
    if not dry_run:
        finish_expiries(settings, connection)
    limit = datetime.now(settings.zone).date() - timedelta(days=days)
    counts = reconcile_tiers(settings, deep=True, before=limit).days
    outcome = Expired(kept={count.day: count.state for count in counts if count.state in {"pending", "mismatch"}})
    clean = [count for count in counts if count.state == "clean"]
    expirer = Expirer(settings, connection)
    for done, count in enumerate(clean, start=1):
        if not dry_run and (reason := expirer.expire(count)):
            outcome.kept[count.day] = reason
            continue
        outcome.days.append(count.day)
        outcome.rows += count.rows_in_manifest
        report(done, len(clean))
    return outcome
