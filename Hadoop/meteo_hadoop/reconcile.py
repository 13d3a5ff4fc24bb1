"""Reconciliation: every record counted through all tiers, so that nothing lost or doubled goes unseen.

PostgreSQL's books are read in one snapshot, the cut. A day is then looked at under its lock, so that no export or
aggregation of it runs meanwhile; what came after the cut is pending, not wrong.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import msgspec
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.console import numbered
from meteo_common.database import connect, open_database, transaction
from meteo_common.errors import MismatchError, UsageError
from meteo_common.settings import Settings
from meteo_hadoop.hbase import AggregateTable, ForeignRow, texts
from meteo_hadoop.ledger import DayState, Ledger
from meteo_hadoop.locks import day_locks
from meteo_hadoop.manifest import AGGREGATES, Days, Manifest, Segment
from meteo_hadoop.plans import PlannedFile, Plans, open_files
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import THREADS, FileSystem

PartitionKey = tuple[int, int]
"""(topic generation, partition)."""


@dataclass(frozen=True)
class PartitionCount:
    """Where the records of one partition are, from its first position to the cut."""

    topic: str
    topic_generation: int
    partition: int
    records: int
    rows: int
    dead_letters: int
    gaps: int
    control_records: int

    @property
    def difference(self) -> int:
        """Records minus what became of them; 0 when all are accounted for."""
        return self.records - self.rows - self.dead_letters - self.gaps - self.control_records


@dataclass
class DayCount:
    """What the tiers hold of one day."""

    day: date
    rows_in_postgresql: int = 0
    rows_in_manifest: int = 0
    rows_in_hdfs: int = 0
    observations_in_hdfs: int = 0
    observations_aggregated: int = 0
    expired_rows: int = 0
    pending: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """`clean`, `pending`, `expired` or `mismatch`."""
        if self.mismatches or self.pending:
            return "mismatch" if self.mismatches else "pending"
        return "expired" if self.expired_rows and not self.rows_in_manifest else "clean"


@dataclass
class Report:
    """The outcome; `mismatches` names tier, day or partition, and numbers."""

    partitions: list[PartitionCount]
    days: list[DayCount]
    other_mismatches: list[str] = field(default_factory=list)
    hbase: bool = True

    @property
    def mismatches(self) -> list[str]:
        """Every mismatch, a sentence each."""
        found = [
            f"Kafka → PostgreSQL, partition {count.partition}: {count.records} records, {count.difference} of them"
            " neither row, dead letter, gap nor control record"
            for count in self.partitions
            if count.difference
        ]
        found += [f"day {count.day}: {text}" for count in self.days for text in count.mismatches]
        return found + self.other_mismatches

    def facts(self) -> dict[str, Any]:
        """Return the report as plain data."""
        days = [{**asdict(count), "day": count.day.isoformat(), "state": count.state} for count in self.days]
        partitions = [asdict(count) for count in self.partitions]
        return {"clean": not self.mismatches, "partitions": partitions, "days": days, "mismatches": self.mismatches}

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        for count in self.partitions:
            yield (
                f"{count.topic} {count.topic_generation}/{count.partition}: {count.records} records ="
                f" {count.rows} rows + {count.dead_letters} dead letters + {count.gaps} in gaps"
                f" + {count.control_records} control records{'' if not count.difference else '  MISMATCH'}"
            )
        states = Counter(count.state for count in self.days)
        expired = f" {states['expired']} expired," if states["expired"] else ""
        yield (
            f"{numbered(len(self.days), 'day')}: {states['clean']} clean, {states['pending']} pending,{expired}"
            f" {states['mismatch']} mismatches; {sum(count.rows_in_hdfs for count in self.days)} rows in HDFS,"
            f" {sum(count.observations_aggregated for count in self.days)} observations"
        )
        if not self.hbase:
            yield "HBase is switched off (HBASE_ENABLED) and was not compared"
        for day in self.days:
            if day.pending and not day.mismatches:
                yield f"  pending {day.day}: {'; '.join(day.pending)}"
        for text in self.mismatches:
            yield f"  MISMATCH {text}"


class _Books:
    """What PostgreSQL says at the cut."""

    PARTITIONS = """
        SELECT topics.name, topics.generation, positions.partition, next_offset - first_offset,
            (SELECT count(*) FROM weather WHERE topic_generation = topics.generation
                AND weather.partition = positions.partition)
            + (SELECT coalesce(sum(rows), 0) FROM detached_partition_rows AS gone
                WHERE gone.topic_generation = topics.generation AND gone.partition = positions.partition),
            (SELECT count(*) FROM dead_letters WHERE topic_generation = topics.generation
                AND dead_letters.partition = positions.partition),
            (SELECT coalesce(sum(to_offset - from_offset), 0) FROM gaps WHERE gaps.topic_id = topics.topic_id
                AND gaps.partition = positions.partition),
            control_records
        FROM positions JOIN topics USING (topic_id) ORDER BY 2, 3
    """
    EXPORTED = "SELECT topic_generation, partition, next_offset FROM export_positions"
    # Rows of months that retention took out were all exported.
    ROWS = """
        SELECT day, sum(exported), sum(above) FROM (
            SELECT (date_time AT TIME ZONE %s)::date AS day,
                count(*) FILTER (WHERE msg_offset < next_offset) AS exported,
                count(*) FILTER (WHERE next_offset IS NULL OR msg_offset >= next_offset) AS above
            FROM weather LEFT JOIN export_positions USING (topic_generation, partition) GROUP BY 1
            UNION ALL SELECT day, rows, 0 FROM detached_day_rows
        ) AS counted GROUP BY day
    """

    def __init__(self, connection: Connection, time_zone: str) -> None:
        connection.set_isolation_level(ISOLATION_LEVEL_REPEATABLE_READ)
        with transaction(connection) as cursor:
            cursor.execute(self.PARTITIONS)
            self.partitions = [PartitionCount(row[0], *map(int, row[1:])) for row in cursor.fetchall()]
            cursor.execute(self.EXPORTED)
            self.exported: dict[PartitionKey, int] = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
            cursor.execute(self.ROWS, (time_zone,))
            self.rows = {day: (int(below), int(above)) for day, below, above in cursor.fetchall()}


_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Key(msgspec.Struct):
    station_id: str
    observed_at: datetime


class _Line(msgspec.Struct):
    value: _Key


class _DayCheck:
    """Looks at one day through all tiers."""

    def __init__(self, settings: Settings, books: _Books, hbase: dict[date, dict[str, dict[str, str]]] | None) -> None:
        self._books = books
        self._hbase = hbase
        self._settings = settings
        self._filesystem = FileSystem(settings)
        self.days = Days(self._filesystem, settings.hdfs_base_path)
        self._decoder = msgspec.json.Decoder(_Line)

    def check(self, connection: Connection, day: date, *, deep: bool) -> DayCount:
        """Return the day's counts; the caller holds its lock."""
        count = DayCount(day)
        below, above = self._books.rows.get(day, (0, 0))
        count.rows_in_postgresql = below
        if above:
            count.pending.append(f"{above} rows to export")
        manifest = self.days.read(day) or Manifest(day, self._settings.weather_timezone)
        state = Ledger(connection).states([day]).get(day)
        # Read under the lock: what an export that died still owes is known only now.
        owed = open_files(connection, day)
        if state is not None and state.merge_begun_at is not None:
            count.pending.append("a merge to be finished by the next export or aggregation")
            return count
        if state is not None and state.expiring:
            count.pending.append("an expiry to be settled by the next export or aggregation")
            return count
        count.expired_rows = state.expired_rows if state is not None else 0
        self._check_rows(count, manifest, owed, deep=deep)
        if state is None or state.changed or owed:
            if manifest.files or owed:
                count.pending.append("to be aggregated")
        else:
            aggregates = {} if state.emptied else self._check_aggregates(count, manifest, state)
            if self._hbase is not None:
                self._check_hbase(count, state, aggregates)
        return count

    def _check_rows(self, count: DayCount, manifest: Manifest, owed: list[PlannedFile], *, deep: bool) -> None:
        observations: set[tuple[str, datetime]] = set()
        rows_at_cut = 0
        for name, segments in sorted(manifest.files.items()):
            try:
                content = self._filesystem.read(self.days.path(count.day, name))
            except FileVanishedError:
                count.mismatches.append(f"HDFS: {name} is in the manifest and not in the directory")
                continue
            lines = content.splitlines()
            count.rows_in_hdfs += len(lines)
            for number, line in enumerate(lines, start=1):
                try:
                    key = self._decoder.decode(line).value
                except _BROKEN:
                    count.mismatches.append(f"HDFS: line {number} of {name} is not a row")
                    continue
                observations.add((key.station_id, key.observed_at))
            rows_at_cut += sum(segment.rows for segment in segments if self._at_cut(segment))
            if deep:
                self._check_digests(count, name, segments, content)
        count.rows_in_manifest = manifest.rows
        count.observations_in_hdfs = len(observations)
        missing = [file for file in owed if file.name not in manifest.files]
        if missing:
            count.pending.append(f"{sum(file.rows for file in missing)} rows planned, not yet in HDFS")
        owed_at_cut = sum(file.rows for file in missing if self._at_cut(file))
        # What has expired had been exported, and is counted as it was.
        in_postgresql = count.rows_in_postgresql - owed_at_cut - count.expired_rows
        if in_postgresql != rows_at_cut:
            count.mismatches.append(f"PostgreSQL has {in_postgresql} exported rows, the manifest {rows_at_cut}")
        if count.rows_in_hdfs != count.rows_in_manifest:
            count.mismatches.append(f"the manifest has {count.rows_in_manifest} rows, its files {count.rows_in_hdfs}")
        listed = {entry.name for entry in self._filesystem.list(self.days.directory(count.day))}
        for name in sorted(listed - manifest.files.keys()):
            if name.startswith("weather_"):
                text = f"HDFS: {name} is in the directory and not in the manifest"
                (count.pending if missing else count.mismatches).append(text)

    def _at_cut(self, segment: Segment | PlannedFile) -> bool:
        return segment.to_offset <= self._books.exported.get((segment.topic_generation, segment.partition), 0)

    def _check_digests(self, count: DayCount, name: str, segments: list[Segment], content: bytes) -> None:
        start = 0
        for segment in segments:
            part = content[start : start + segment.bytes]
            start += segment.bytes
            if hashlib.sha256(part).hexdigest() != segment.sha256:
                count.mismatches.append(
                    f"HDFS: {name} differs from its sha256 at offsets {segment.from_offset}-{segment.to_offset}"
                )

    def _check_aggregates(self, count: DayCount, manifest: Manifest, state: DayState) -> dict[str, dict[str, str]]:
        try:
            content = self._filesystem.read(self.days.path(count.day, AGGREGATES))
        except FileVanishedError:
            count.mismatches.append(f"HDFS: {AGGREGATES} is gone")
            return {}
        try:
            aggregates = [msgspec.json.decode(line, type=dict[str, Any]) for line in content.splitlines()]
            count.observations_aggregated = sum(int(row["observations"]) for row in aggregates)
            texts_of = {str(row["station_id"]): texts(row) for row in aggregates}
        except (*_BROKEN, KeyError, TypeError, ValueError):
            count.mismatches.append(f"HDFS: {AGGREGATES} has a line that is none of ours")
            return {}
        if count.observations_aggregated != count.observations_in_hdfs:
            count.mismatches.append(
                f"the files have {count.observations_in_hdfs} observations, the aggregates"
                f" {count.observations_aggregated}"
            )
        if manifest.generation != state.published_generation:
            count.mismatches.append(
                f"the manifest has generation {manifest.generation}, PostgreSQL {state.published_generation}"
            )
        return texts_of

    def _check_hbase(self, count: DayCount, state: DayState, expected: dict[str, dict[str, str]]) -> None:
        if state.owed_to_hbase:
            count.pending.append("HBase is owed the aggregates")
            return
        found = (self._hbase or {}).get(count.day, {})
        if found == expected:
            return
        # The scan is older than the lock: only what a fresh look confirms is wrong.
        with AggregateTable.connect(self._settings) as table:
            fresh = {name: table.row(name, count.day) for name in expected.keys() | found.keys()}
        found = {name: row.fields for name, row in fresh.items() if row is not None}
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                count.mismatches.append(f"HBase: {_difference(name, expected.get(name), found.get(name))}")


def _difference(station: str, expected: dict[str, str] | None, found: dict[str, str] | None) -> str:
    if found is None:
        return f"{station} is missing"
    if expected is None:
        return f"{station} is there and not in the aggregates"
    field_name = min(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{station} has {field_name} {found.get(field_name)}, the aggregates {expected.get(field_name)}"


def reconcile_tiers(settings: Settings, day: date | None = None, *, deep: bool = False) -> Report:
    """Compare the tiers, all days or one.

    `deep`: the sha256 of every segment too. Raises UsageError for a day of which nothing is known, UnreachableError
    when a server is away.
    """
    database = open_database(settings, "reconcile")
    try:
        plans = Plans(database, settings.weather_timezone)
        plans.check_time_zone(keep=False)
        hbase, foreign = _scan(settings) if settings.hbase_enabled else (None, [])
        books = _Books(database, settings.weather_timezone)
    finally:
        database.close()
    check = _DayCheck(settings, books, hbase)
    listed = check.days.listed()
    known = sorted({*books.rows, *listed, *(hbase or {})})
    if day is not None:
        if day not in known:
            raise UsageError(f"Nothing is known of {day}: no row, no partition.")
        known = [day]
    report = Report(books.partitions, _check_days(settings, check, known, deep=deep), hbase=hbase is not None)
    if day is None:
        strays = sorted(set(hbase or {}) - set(listed))
        report.other_mismatches += [f"HBase has rows of {stray}, HDFS has no partition of it" for stray in strays]
        report.other_mismatches += [f"HBase has a row {key!r} that is none of ours; delete it" for key in foreign]
        report.other_mismatches += [f"HDFS: {path} is no day's directory; delete it" for path in check.days.foreign()]
    return report


def _check_days(settings: Settings, check: _DayCheck, days: list[date], *, deep: bool) -> list[DayCount]:
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
        counts = [count for share in pool.map(check_share, shares) for count in share]
    return sorted(counts, key=lambda count: count.day)


def _scan(settings: Settings) -> tuple[dict[date, dict[str, dict[str, str]]], list[bytes]]:
    """Return HBase's fields by day and station, and the keys of rows that are none of ours."""
    rows: dict[date, dict[str, dict[str, str]]] = defaultdict(dict)
    foreign = []
    with AggregateTable.connect(settings) as table:
        for row in table.scan():
            if isinstance(row, ForeignRow):
                foreign.append(row.key)
            else:
                rows[row.day][row.station_id] = row.fields
    return dict(rows), foreign
