"""What a service checks after each cycle: the days that have changed since it found them clean, and all once a day."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date

import pytest
import tiers

from conftest import Tenant, TenantMaker
from meteo_hadoop.counts import Report
from meteo_hadoop.hbase import AggregateTable, _delete, row_key
from meteo_hadoop.reconcile import Seen, reconcile_tiers
from meteo_hadoop.webhdfs import FileSystem

FIRST, DAY, LAST = "2013-03-30", "2013-03-31", "2013-04-01"
ROW = "replay:JFK"


@pytest.fixture(scope="module")
def settled(make_tenant: TenantMaker) -> Tenant:
    tenant = make_tenant()
    tiers.publish(tenant, FIRST, LAST)
    carry(tenant)
    return tenant


@pytest.fixture
def seen(settled: Tenant) -> Seen:
    """The memory of a service that has looked once."""
    seen = Seen()
    assert look(settled, seen).looked_at > 2
    assert look(settled, seen).looked_at == 0
    return seen


def carry(tenant: Tenant) -> None:
    for step in (tiers.consume, tiers.export, tiers.aggregate):
        step(tenant)


def look(tenant: Tenant, seen: Seen) -> Report:
    return reconcile_tiers(tenant.settings, seen=seen)


def lose_row(tenant: Tenant, day: str, undo: ExitStack) -> None:
    """Delete a row of HBase behind everybody's back."""
    table = AggregateTable.connect(tenant.settings)
    undo.callback(table.close)
    row = table.row(ROW, date.fromisoformat(day))
    assert row is not None
    again = dict(row.fields)
    undo.callback(table.write_day, row.day, row.generation + 2, [{**again, "station_id": ROW}])
    table._send(_delete, [row_key(ROW, row.day)], row.generation)


def test_what_is_passed_over_is_told_as_it_was_found(settled: Tenant, seen: Seen) -> None:
    quick, full = look(settled, seen), reconcile_tiers(settled.settings)
    assert quick.looked_at == 0
    assert (quick.facts(), quick.partitions) == (full.facts(), full.partitions)
    assert list(quick.lines()) == list(full.lines())


def test_a_day_with_late_rows_is_looked_at_alone_and_in_hbase_too(settled: Tenant, seen: Seen) -> None:
    days = len(look(settled, seen).days)
    tiers.publish(settled, DAY, DAY)
    tiers.consume(settled)
    report = look(settled, seen)
    assert report.mismatches == []
    assert 0 < report.looked_at < days
    carry(settled)
    with ExitStack() as undo:
        lose_row(settled, DAY, undo)
        report = look(settled, seen)
        assert 0 < report.looked_at < days
        assert report.mismatches == [f"day {DAY}: HBase: {ROW} is missing"]
    assert look(settled, seen).mismatches == []
    assert look(settled, seen).looked_at == 0


def test_a_row_deleted_from_postgresql_is_found_at_once(settled: Tenant, seen: Seen) -> None:
    (row,) = settled.query(
        "DELETE FROM weather WHERE (partition, msg_offset) IN (SELECT partition, msg_offset FROM weather"
        " ORDER BY date_time LIMIT 1) RETURNING date_time, msg_offset, partition, topic_generation, value::text"
    )
    report = look(settled, seen)
    settled.query("INSERT INTO weather VALUES (%s, %s, %s, %s, %s)", *row)
    assert report.looked_at == 1
    assert len(report.mismatches) == 2  # its partition, its day
    assert look(settled, seen).mismatches == []


def test_a_directory_that_has_gone_is_found_at_once(settled: Tenant, seen: Seen) -> None:
    files, path = FileSystem(settled.settings), f"{settled.settings.hdfs_base_path}/dt={FIRST}"
    aside = f"{settled.settings.hdfs_base_path}/aside"
    files._client.rename(path, aside)
    report = look(settled, seen)
    files._client.rename(aside, path)
    assert report.looked_at == 1
    assert all(FIRST in mismatch for mismatch in report.mismatches)
    assert report.mismatches
    assert look(settled, seen).mismatches == []


def test_what_changed_without_the_books_is_found_by_the_full_look(settled: Tenant, seen: Seen) -> None:
    with ExitStack() as undo:
        lose_row(settled, LAST, undo)
        assert look(settled, seen).mismatches == []
        seen._full_every = 0.0
        assert look(settled, seen).mismatches == [f"day {LAST}: HBase: {ROW} is missing"]
    assert look(settled, seen).mismatches == []


def test_strange_rows_of_hbase_are_told_until_they_have_gone(settled: Tenant, seen: Seen) -> None:
    strange, told = date(1999, 1, 1), "HBase has rows of 1999-01-01, HDFS has no partition of it"
    with AggregateTable.connect(settled.settings) as table:
        table.write_day(strange, 1, [{"station_id": ROW, "observations": 1}])
        usual, seen._full_every = seen._full_every, 0.0
        assert told in look(settled, seen).mismatches
        seen._full_every = usual
        assert told in look(settled, seen).mismatches
        table._send(_delete, [row_key(ROW, strange)], 1)
    assert look(settled, seen).mismatches == []
    assert look(settled, seen).looked_at == 0


def test_a_merge_makes_the_day_be_looked_at(settled: Tenant, seen: Seen) -> None:
    settled.meteo("export", "--compact")
    with_books = look(settled, seen)
    assert with_books.looked_at == len(with_books.days)
    assert with_books.mismatches == []
