"""Reconciliation: every record counted through all tiers, so that nothing lost or doubled goes unseen.

PostgreSQL's books are read in one snapshot, the cut. A day is then looked at under its lock, so that no export or
aggregation of it runs meanwhile; what came after the cut is pending, not wrong.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date

from meteo_common.database import connect, open_database
from meteo_common.errors import MismatchError, UsageError
from meteo_common.settings import Settings
from meteo_hadoop.books import Books
from meteo_hadoop.counts import DayCount, Report
from meteo_hadoop.day_check import DayCheck
from meteo_hadoop.hbase import AggregateTable, ForeignRow
from meteo_hadoop.ledger import DayState
from meteo_hadoop.locks import day_locks
from meteo_hadoop.manifest import Days
from meteo_hadoop.plans import Plans
from meteo_hadoop.webhdfs import THREADS, FileSystem

FULL_EVERY = 86400.0
"""Seconds after which a service looks at every day again: what changed without PostgreSQL's knowledge is found then."""


ASKED_FOR = 30
"""Days whose rows HBase is asked for one by one, in 10 ms each; for more of them it is scanned."""


class Seen:
    """The days that one process has found clean, so that its next look passes over those whose books are the same."""

    def __init__(self, full_every: float = FULL_EVERY) -> None:
        self._full_every = full_every
        self._began = -math.inf
        self._days: dict[date, tuple[DayState, DayCount]] = {}

    def begin(self) -> None:
        """Forget everything when the last full look is too long ago."""
        if time.monotonic() - self._began >= self._full_every:
            self._days.clear()

    def keep(self, states: Mapping[date, DayState], counts: Iterable[DayCount]) -> None:
        """Remember these days, as they were looked at, in place of all before."""
        if not self._days:
            self._began = time.monotonic()
        self._days = {
            count.day: (states[count.day], count)
            for count in counts
            if count.state in {"clean", "expired"} and count.day in states
        }

    def unchanged(self, books: Books, listed: Collection[date]) -> dict[date, tuple[DayState, DayCount]]:
        """Return the days of which PostgreSQL says what it said then, with the same rows, and which are there still."""
        return {
            day: (state, count)
            for day, (state, count) in self._days.items()
            if books.states.get(day) == state
            and day not in books.open_days
            and books.rows.get(day, (0, 0)) == (count.rows_in_postgresql, 0)
            and (day in listed or state.emptied)
        }


def reconcile_tiers(
    settings: Settings,
    day: date | None = None,
    *,
    deep: bool = False,
    before: date | None = None,
    seen: Seen | None = None,
) -> Report:
    """Compare the tiers, all days, one, or those before a day.

    `deep`: the sha256 of every segment too. `seen`: what this process has found clean is not read again. Raises
    UsageError for a day of which nothing is known, UnreachableError when a server is away.
    """
    with closing(open_database(settings, "reconcile")) as database:
        Plans(database, settings.weather_timezone).check_time_zone(keep=False)
        books = Books(database, settings.weather_timezone)
    passed: dict[date, tuple[DayState, DayCount]] = {}
    if seen is not None:
        seen.begin()
        passed = seen.unchanged(books, Days(FileSystem(settings), settings.hdfs_base_path).listed())
    hbase, foreign = _scan(settings, whole=len(books.states.keys() - passed.keys()) > ASKED_FOR or not passed)
    check = DayCheck(settings, books, hbase)
    listed = check.days.listed()
    known = {*books.rows, *listed, *(hbase or {})}
    if day is not None and day not in known:
        raise UsageError(f"Nothing is known of {day}: no row, no partition.")
    due = sorted(
        each
        for each in known
        if each not in passed and (day is None or each == day) and (before is None or each < before)
    )
    counts = _check_days(settings, check, due, deep=deep) + [count for _, count in passed.values()]
    counts.sort(key=lambda count: count.day)
    report = Report(books.partitions, counts, hbase=hbase is not None, looked_at=len(due))
    strays = sorted(set(hbase or {}) - set(listed))
    # Strangers are seen where HBase is read as a whole: they are looked for again until they have gone.
    if seen is not None and not (strays or foreign):
        seen.keep(check.states | {each: state for each, (state, _) in passed.items()}, counts)
    if day is None and before is None:
        report.other_mismatches += [f"HBase has rows of {stray}, HDFS has no partition of it" for stray in strays]
        report.other_mismatches += [f"HBase has a row {key!r} that is none of ours; delete it" for key in foreign]
        report.other_mismatches += [f"HDFS: {path} is no day's directory; delete it" for path in check.days.foreign()]
    return report


def _check_days(settings: Settings, check: DayCheck, days: list[date], *, deep: bool) -> list[DayCount]:
    shares = [days[start::THREADS] for start in range(min(THREADS, len(days)))]

    def check_share(share: list[date]) -> list[DayCount]:
        connection = connect(settings, "reconcile")
        counts = []
        try:
            for day in share:
                with day_locks(connection, [day]):
                    try:
                        counts.append(check.check(connection, day, deep=deep))
                    except MismatchError as error:
                        counts.append(DayCount(day, mismatches=[str(error).removesuffix(".")]))
        finally:
            connection.close()
        return counts

    with ThreadPoolExecutor(THREADS) as pool:
        return [count for share in pool.map(check_share, shares) for count in share]


def _scan(settings: Settings, *, whole: bool) -> tuple[dict[date, dict[str, dict[str, str]]] | None, list[bytes]]:
    """Return HBase's fields by day and station, and the keys of rows that are none of ours.

    None for a HBase that is switched off, no rows when not the `whole` is wanted.
    """
    rows: dict[date, dict[str, dict[str, str]]] = defaultdict(dict)
    foreign: list[bytes] = []
    if not settings.hbase_enabled:
        return None, foreign
    if not whole:
        return {}, foreign
    with AggregateTable.connect(settings) as table:
        for row in table.scan():
            if isinstance(row, ForeignRow):
                foreign.append(row.key)
            else:
                rows[row.day][row.station_id] = row.fields
    return dict(rows), foreign
