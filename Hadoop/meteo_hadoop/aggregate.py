"""HDFS → aggregates.jsonl → HBase: the changed days in one job, each published as a whole.

Dying anywhere leaves a day that counts as changed, or one that is owed to HBase; both are taken up by the next run.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.console import numbered
from meteo_common.database import connect, open_database
from meteo_common.errors import MismatchError, UnreachableError, UsageError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.compact import finish_merges
from meteo_hadoop.daily import daily_job
from meteo_hadoop.engine import EngineName
from meteo_hadoop.engines import run_job
from meteo_hadoop.expire import finish_expiries
from meteo_hadoop.hbase import AggregateTable, DayWrite
from meteo_hadoop.ledger import DayState, Ledger
from meteo_hadoop.locks import day_locks, still_held
from meteo_hadoop.manifest import AGGREGATES, Days, Manifest, file_sizes
from meteo_hadoop.plans import Plans
from meteo_hadoop.webhdfs import THREADS, FileSystem

log = structlog.get_logger()

DAYS_AT_ONCE = 500
"""Each day is a session lock; PostgreSQL's table of locks holds about 4,000."""

Lines = list[tuple[str, bytes]]
"""(station_id, aggregates line) of one day, sorted by station_id."""


@dataclass
class Aggregated:
    """What a run has computed and given on."""

    days: list[date] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    hbase_days: int = 0
    bad_lines: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    engine: str = ""
    hbase_trouble: str | None = None
    without_manifest: list[date] = field(default_factory=list)

    def add(self, other: Aggregated) -> None:
        """Add what another group of days came to."""
        self.days += other.days
        self.rows += other.rows
        self.bytes += other.bytes
        self.hbase_days += other.hbase_days
        self.bad_lines = dict(Counter(self.bad_lines) + Counter(other.bad_lines))
        self.engine = other.engine or self.engine
        self.hbase_trouble = self.hbase_trouble or other.hbase_trouble
        self.without_manifest += other.without_manifest


class Aggregator:
    """Computes days on an engine and publishes them; the connection `locks` holds the days' locks."""

    def __init__(self, settings: Settings, connection: Connection, locks: Connection, engine: EngineName) -> None:
        self._settings = settings
        self._ledger = Ledger(connection)
        self._locks = locks
        # One connection runs one transaction at a time, and the days are published by several threads.
        self._asking = threading.Lock()
        self._engine = engine
        self._filesystem = FileSystem(settings)
        self._days = Days(self._filesystem, settings.hdfs_base_path)

    def run(self, chosen: Collection[date], *, changed_only: bool) -> Aggregated:
        """Compute the chosen days (only those changed, if so asked), then give HBase what it is owed."""
        outcome = Aggregated()
        with day_locks(self._locks, chosen):
            states = self._ledger.states(chosen)
            due = {day: state for day, state in states.items() if state.changed or not changed_only}
            manifests = self._manifests(due, outcome)
            lines = self._compute({day: due[day] for day in manifests}, manifests, outcome)
            if self._settings.hbase_enabled:
                self._give_to_hbase(lines, chosen, outcome)
        outcome.days = sorted(lines)
        return outcome

    def _compute(
        self, due: dict[date, DayState], manifests: dict[date, Manifest], outcome: Aggregated
    ) -> dict[date, Lines]:
        if not due:
            return {}
        sizes = file_sizes(self._days, manifests)
        reach("aggregate.before_compute")
        result = run_job(daily_job(self._settings.weather_timezone, set(due)), self._engine, self._settings, sizes)
        reach("aggregate.after_compute")
        outcome.bad_lines, outcome.engine = result.bad_lines, result.engine
        by_day = result.by_day()
        lines = {day: by_day.get(day.isoformat(), []) for day in due}
        outcome.rows = sum(map(len, lines.values()))
        outcome.bytes = sum(len(line) + 1 for day_lines in lines.values() for _, line in day_lines)
        generations = self._publish(manifests, lines)
        self._ledger.published({day: state.files_version for day, state in due.items()}, generations)
        reach("aggregate.after_publish")
        return lines

    def _manifests(self, days: Mapping[date, DayState], outcome: Aggregated) -> dict[date, Manifest]:
        """Return the manifests; a day that has lost its own is left out, and told when the others are done."""
        with ThreadPoolExecutor(THREADS) as pool:
            manifests = dict(zip(days, pool.map(self._days.read, days), strict=True))
        outcome.without_manifest = [
            day for day, manifest in manifests.items() if manifest is None and not days[day].emptied
        ]
        return {day: manifest for day, manifest in manifests.items() if manifest is not None}

    def _publish(self, manifests: dict[date, Manifest], lines: dict[date, Lines]) -> dict[date, int]:
        generations = self._ledger.give_out(lines)
        reach("aggregate.after_generation")

        def publish_day(day: date) -> None:
            content = b"".join(line + b"\n" for _, line in lines[day])
            self._filesystem.publish(self._days.path(day, AGGREGATES), [content])
            reach("aggregate.after_rename")
            manifest = manifests[day]
            manifest.generation = generations[day]
            # Without the lock an export may have added a file, which this manifest does not know.
            with self._asking:
                still_held(self._locks)
            self._days.write(manifest)
            reach("aggregate.after_manifest")

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(publish_day, lines):
                pass
        return generations

    def _give_to_hbase(self, lines: dict[date, Lines], chosen: Collection[date], outcome: Aggregated) -> None:
        owed = {day: state for day, state in self._ledger.states(chosen).items() if state.owed_to_hbase}
        if not owed:
            return
        with ThreadPoolExecutor(THREADS) as pool:
            missing = [day for day in owed if day not in lines]
            lines = lines | dict(zip(missing, pool.map(self.read_lines, missing), strict=True))
        stations = {day: [station for station, _ in lines[day]] for day in owed}
        self._ledger.may_hold(stations)
        writes = [
            DayWrite(
                day,
                state.published_generation,
                [json.loads(line) for _, line in lines[day]],
                [station for station in state.hbase_stations if station not in stations[day]],
            )
            for day, state in owed.items()
        ]
        try:
            with AggregateTable.connect(self._settings) as table:
                table.write_days(writes)
        except UnreachableError as error:
            # HDFS has the aggregates; HBase is owed them, and the next run tries again.
            log.warning("HBase is owed days", days=len(owed), error=str(error))
            outcome.hbase_trouble = str(error)
            return
        reach("hbase.before_bookkeeping")
        self._ledger.holds({day: (state.published_generation, stations[day]) for day, state in owed.items()})
        outcome.hbase_days = len(owed)

    def read_lines(self, day: date) -> Lines:
        """Return the published aggregates of a day."""
        return parse_lines(self._filesystem.read(self._days.path(day, AGGREGATES)))


def parse_lines(content: bytes) -> Lines:
    """Return (station_id, line) of each line of an `aggregates.jsonl`."""
    lines = content.splitlines()
    return [(str(json.loads(line)["station_id"]), line) for line in lines]


def aggregate_once(
    settings: Settings,
    engine: EngineName,
    day: date | None = None,
    *,
    all_days: bool = False,
    changed: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Aggregated:
    """Aggregate one day, all days, or (neither given) the changed ones, and give HBase what it is owed.

    Raises UsageError for a day without a partition, UnreachableError when a server is away.
    """
    started = time.monotonic()
    database = open_database(settings, "aggregate")
    locks = connect(settings, "aggregate")
    try:
        Plans(database, settings.weather_timezone).check_time_zone(keep=False)
        finish_merges(settings, database)
        finish_expiries(settings, database)
        ledger = Ledger(database)
        chosen = _choose(settings, ledger, day, all_days=all_days, changed=changed)
        if chosen:
            tell(f"{numbered(len(chosen), 'day')} to look at")
        outcome = Aggregated()
        aggregator = Aggregator(settings, database, locks, engine)
        for first in range(0, len(chosen), DAYS_AT_ONCE):
            group = chosen[first : first + DAYS_AT_ONCE]
            outcome.add(aggregator.run(group, changed_only=not all_days and day is None))
    finally:
        locks.close()
        database.close()
    if outcome.without_manifest:
        lost = ", ".join(f"dt={name}" for name in outcome.without_manifest[:5])
        raise MismatchError(f"{lost} in {settings.hdfs_base_path} lost its manifest; restore it. Other days are done.")
    outcome.seconds = time.monotonic() - started
    return outcome


def _choose(settings: Settings, ledger: Ledger, day: date | None, *, all_days: bool, changed: bool) -> list[date]:
    states: dict[date, Any] = ledger.states()
    if day is not None:
        if day not in states:
            raise UsageError(f"There is no partition of {day}: nothing of that day has been exported.")
        return [day]
    if all_days:
        return list(states)
    due = [name for name, state in states.items() if state.changed or (settings.hbase_enabled and state.owed_to_hbase)]
    if settings.mr_process_only_today and not changed:
        today = datetime.now(settings.zone).date()
        return [name for name in due if name == today]
    return due
