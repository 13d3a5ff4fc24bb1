"""One day looked at through all tiers."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from typing import Any

import msgspec
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.settings import Settings
from meteo_hadoop.books import Books
from meteo_hadoop.counts import DayCount
from meteo_hadoop.hbase import AggregateTable, texts
from meteo_hadoop.ledger import DayState, Ledger
from meteo_hadoop.manifest import AGGREGATES, Days, Manifest, Segment
from meteo_hadoop.plans import PlannedFile, open_files
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import FileSystem

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Key(msgspec.Struct):
    station_id: str
    observed_at: datetime


class _Line(msgspec.Struct):
    value: _Key


_decoder = msgspec.json.Decoder(_Line)


class DayCheck:
    """Looks at one day through all tiers.

    `hbase`: the rows that were found by a scan, by day and station; a day that is not among them is asked for. None:
    HBase is switched off.
    """

    def __init__(self, settings: Settings, books: Books, hbase: dict[date, dict[str, dict[str, str]]] | None) -> None:
        self._books = books
        self._hbase = hbase
        self._settings = settings
        self._filesystem = FileSystem(settings)
        self.days = Days(self._filesystem, settings.hdfs_base_path)
        self.states: dict[date, DayState] = {}
        """What the ledger said of each day when it was looked at."""

    def check(self, connection: Connection, day: date, *, deep: bool) -> DayCount:
        """Return the day's counts; the caller holds its lock."""
        count = DayCount(day)
        below, above = self._books.rows.get(day, (0, 0))
        count.rows_in_postgresql = below
        if above:
            count.pending.append(f"{above} rows to export")
        manifest = self.days.read(day) or Manifest(day, self._settings.weather_timezone)
        state = Ledger(connection).states([day]).get(day)
        if state is not None:
            self.states[day] = state
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
                    key = _decoder.decode(line).value
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
        # The scan is older than the lock, or there was none: only what a fresh look confirms is wrong.
        names = expected.keys() | found.keys() | set(state.hbase_stations)
        with AggregateTable.connect(self._settings) as table:
            fresh = {name: table.row(name, count.day) for name in names}
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
