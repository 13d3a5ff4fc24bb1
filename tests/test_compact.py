"""Merging a day's files while others read them, killed in the middle, and with late rows afterwards."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from functools import partial

import exporting
import pytest
import tiers
from exporting import Command

from conftest import Tenant
from meteo_common.database import open_database
from meteo_common.failpoints import FAILPOINTS
from meteo_common.settings import Settings
from meteo_hadoop.aggregate import aggregate_once
from meteo_hadoop.compact import Merged, compact
from meteo_hadoop.manifest import Days
from meteo_hadoop.reconcile import reconcile_tiers
from meteo_hadoop.source import FileVanishedError
from meteo_hadoop.webhdfs import FileSystem

DAY = "2013-03-30"
SLICE = ("2013-03-30", "2013-03-31")
MANY = ("2013-03-01", "2013-03-31")


def grow(tenant: Tenant, days: tuple[str, str], times: int) -> int:
    """Bring the days to HDFS several times, each time in files of their own; return the records."""
    records = 0
    for _ in range(times):
        records += tiers.publish(tenant, *days)
        tiers.consume(tenant)
        tiers.export(tenant)
    return records


def merge(tenant: Tenant) -> Merged:
    with closing(open_database(tenant.settings, "test")) as database:
        return compact(tenant.settings, database)


def files(tenant: Tenant) -> dict[str, int]:
    """Return how many files each day has."""
    found = {(day, name) for day, name, _ in tiers.read_lines(tenant)}
    return dict(Counter(day for day, _ in found))


def test_days_that_have_ended_become_one_file_each_and_stay_whole(tenant: Tenant) -> None:
    message = tiers.recorded_message()
    # Twenty hours on, which the contract allows, so that its day does not end while the test runs.
    now = datetime.now(UTC)
    message["observed_at"], message["collected_at"] = (now + timedelta(hours=20)).isoformat(), now.isoformat()
    for _ in range(2):
        tiers.send(tenant, [json.dumps(message).encode()])
        tiers.consume(tenant)
        tiers.export(tenant)
    records = 2 + grow(tenant, SLICE, 3)
    tiers.aggregate(tenant)
    before, expected = files(tenant), tiers.read_aggregates(tenant)
    today = max(before)
    assert before.pop(today) == 2
    assert min(before.values()) >= 3
    told = tenant.meteo("export", "--compact")
    assert f"merged {sum(before.values())} files of {len(before)} days" in told
    assert files(tenant) == {**dict.fromkeys(before, 1), today: 2}
    tiers.assert_whole(tenant, records, expected)
    tenant.meteo("aggregate", "--all")
    tiers.assert_whole(tenant, records, expected)
    assert merge(tenant) == Merged()
    # Late rows come in files of their own, and are merged in turn.
    records += grow(tenant, (DAY, DAY), 1)
    assert files(tenant)[DAY] > 1
    assert merge(tenant).days >= 1
    assert files(tenant)[DAY] == 1
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


def test_a_service_merges_the_oldest_days_first_and_looks_at_none_twice(tenant: Tenant) -> None:
    grow(tenant, SLICE, 2)
    days = sorted(files(tenant))
    with closing(open_database(tenant.settings, "test")) as database:
        assert compact(tenant.settings, database, at_most=1).days == 1
        assert {day: number for day, number in files(tenant).items() if number == 1} == {days[0]: 1}
        assert compact(tenant.settings, database).days == len(days) - 1
        looked_at: list[int] = []
        assert compact(tenant.settings, database, lambda _, days: looked_at.append(days)) == Merged()
        assert looked_at == []


def by_listing(days: Days, day: date) -> int:
    """Count a day's rows as anybody does who lists the directory and reads what is there."""
    listed = [each.name for each in days.filesystem.list(days.directory(day)) if each.name.startswith("weather_")]
    return sum(days.filesystem.read(days.path(day, name)).count(b"\n") for name in listed)


def by_manifest(days: Days, day: date) -> int:
    """Count a day's rows by its manifest: of each file the bytes that it names, whatever has been appended since."""
    manifest = days.read(day)
    assert manifest is not None
    counted = 0
    # The first file last, when the others may have been appended to it.
    for name, segments in sorted(manifest.files.items(), reverse=True):
        content = days.filesystem.read(days.path(day, name))[: sum(segment.bytes for segment in segments)]
        assert content.endswith(b"\n")
        counted += content.count(b"\n")
    return counted


class Reader(threading.Thread):
    """Counts the rows of all days, over and over; a file that has gone is looked for anew."""

    def __init__(self, days: Days, rows: dict[date, int], count: Callable[[Days, date], int]) -> None:
        super().__init__(daemon=True)
        self._days, self._rows, self._count = days, rows, count
        self.done = threading.Event()
        self.read = self.vanished = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self.done.is_set():
                for day, expected in self._rows.items():
                    counted = tiers.eventually("a day that can be read", partial(self._try, day))
                    self.read += 1
                    if counted != expected:
                        self.wrong.append(f"{day} has {counted} of {expected} rows")
        except BaseException as error:
            self.wrong.append(repr(error))

    def _try(self, day: date) -> int | None:
        try:
            return self._count(self._days, day)
        except FileVanishedError:
            self.vanished += 1
            return None


@pytest.mark.parametrize("count", [by_listing, by_manifest], ids=lambda it: it.__name__)
def test_a_reader_counts_each_row_once_while_files_are_merged(
    tenant: Tenant, count: Callable[[Days, date], int]
) -> None:
    records = grow(tenant, MANY, 3)
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    rows: dict[date, int] = {day: manifest.rows for day in days.listed() if (manifest := days.read(day))}
    assert sum(rows.values()) == records
    assert len(rows) >= 31
    readers = [Reader(days, rows, count) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        tiers.eventually("some reading", lambda: all(reader.read > 5 for reader in readers))
        merged = merge(tenant)
        end = [reader.read + len(rows) for reader in readers]
        tiers.eventually("more reading", lambda: all(map(lambda it, to: it.read > to or it.wrong, readers, end)))
    finally:
        for reader in readers:
            reader.done.set()
            reader.join(60)
    assert [reader.wrong for reader in readers] == [[], []]
    assert merged.days == len(rows)
    assert merged.files >= 3 * len(rows)
    assert max(files(tenant).values()) == 1
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


def test_a_stream_that_was_open_goes_on_to_the_end_of_what_it_opened(tenant: Tenant) -> None:
    message = tiers.recorded_message()
    # 20 MB: more than lies in buffers between HDFS and here.
    value = json.dumps({**message, "raw": {"filler": "x" * 700_000}}).encode()
    for partition in (0, 1):
        tiers.send(tenant, [value] * 30, partition)
    tiers.consume(tenant)
    tiers.export(tenant)
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    manifest = days.read(date.fromisoformat(DAY))
    assert manifest is not None
    assert len(manifest.files) == 2
    streams = {name: days.filesystem.source.open(days.path(manifest.day, name)) for name in manifest.files}
    digests = {name: hashlib.sha256(next(stream)) for name, stream in streams.items()}
    assert merge(tenant) == Merged(1, 2)
    for name, (segment,) in manifest.files.items():
        for chunk in streams[name]:
            digests[name].update(chunk)
        assert digests[name].hexdigest() == segment.sha256


def aggregate_changed(settings: Settings) -> None:
    """Aggregate the changed days."""
    aggregate_once(settings, "local")


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("compact.")])
@pytest.mark.parametrize("following", [exporting.merge, aggregate_changed], ids=lambda it: it.__name__)
def test_a_killed_merge_is_finished_by_the_next_command(tenant: Tenant, name: str, following: Command) -> None:
    records = grow(tenant, SLICE, 2)
    tiers.aggregate(tenant)
    expected = tiers.read_aggregates(tenant)
    process = tiers.start(tenant, "export", "--compact", extra={"METEO_FAILPOINT": name})
    assert process.wait(60) == -signal.SIGKILL
    between = reconcile_tiers(tenant.settings)
    assert between.mismatches == []
    assert "a merge to be finished" in "\n".join(between.lines())
    records += tiers.publish(tenant, *SLICE)
    tiers.consume(tenant)
    following(tenant.settings)
    tiers.export(tenant)
    exporting.merge(tenant.settings)
    tiers.aggregate(tenant)
    assert set(files(tenant).values()) == {1}
    tiers.assert_whole(tenant, records, expected)


def test_a_day_that_is_owed_a_file_is_left_to_the_next_time(tenant: Tenant) -> None:
    records = grow(tenant, (DAY, DAY), 1)
    records += tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    process = tiers.start(tenant, "export", extra={"METEO_FAILPOINT": "export.after_manifest"})
    assert process.wait(60) == -signal.SIGKILL
    before = files(tenant)
    assert merge(tenant).days < len(before)
    assert DAY not in {day for day, number in files(tenant).items() if number == 1}
    tenant.meteo("export", "--compact")
    assert set(files(tenant).values()) == {1}
    tiers.aggregate(tenant)
    tiers.assert_whole(tenant, records)


def test_a_file_that_no_merge_took_is_not_passed_over(tenant: Tenant) -> None:
    grow(tenant, (DAY, DAY), 2)
    process = tiers.start(tenant, "export", "--compact", extra={"METEO_FAILPOINT": "compact.before_concat"})
    assert process.wait(60) == -signal.SIGKILL
    ((day,),) = tenant.query("SELECT day FROM days WHERE merge_begun_at IS NOT NULL LIMIT 1")
    assert isinstance(day, date)
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    manifest = days.read(day)
    assert manifest is not None
    days.filesystem.delete(days.path(day, max(manifest.files)))
    told = tiers.run(tenant, "export")
    assert "a merge cannot be finished" in told.stdout + told.stderr
    assert days.read(day) == manifest
