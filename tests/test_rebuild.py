"""All days written anew: what was damaged is whole again, and the days may be those of another zone."""

from __future__ import annotations

import signal
from datetime import date

import pytest
import tiers
from exporting import Work

from conftest import Tenant, TenantMaker
from meteo_hadoop.manifest import Days
from meteo_hadoop.webhdfs import FileSystem

KIRITIMATI = {"WEATHER_TIMEZONE": "Pacific/Kiritimati"}
"""14 hours ahead of UTC: of the two days in Paris, 2013-03-30 and 31, the rows are all of the 31st."""


@pytest.fixture
def work(make_tenant: TenantMaker) -> Work:
    """A tenant with two slices in HDFS, aggregated."""
    work = Work(make_tenant())
    for _ in range(2):
        work.give()
        tiers.export(work.tenant)
    tiers.aggregate(work.tenant)
    return work


def days_of(tenant: Tenant) -> Days:
    return Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)


def rebuild(work: Work) -> None:
    ran = tiers.run(work.tenant, "export", "--rebuild")
    assert ran.returncode == 0, ran.stderr


def test_damaged_days_are_whole_again(work: Work) -> None:
    before = tiers.read_aggregates(work.tenant)
    days = days_of(work.tenant)
    first, last = days.listed()
    manifest = days.read(first)
    assert manifest is not None
    days.filesystem.delete(days.path(first, next(iter(manifest.files))))
    days.filesystem.delete(days.path(last, "_manifest.json"))
    rebuild(work)
    work.assert_whole()
    tiers.aggregate(work.tenant)
    tiers.assert_clean(work.tenant)
    assert tiers.read_aggregates(work.tenant) == before


@pytest.mark.parametrize("place", ["rebuild.after_forget", "rebuild.after_manifest", "export.after_rename"])
def test_a_rebuild_that_was_killed_is_made_good(work: Work, place: str) -> None:
    process = tiers.start(work.tenant, "export", "--rebuild", extra={"METEO_FAILPOINT": place})
    assert process.wait(60) == -signal.SIGKILL
    rebuild(work)
    work.assert_whole()
    tiers.aggregate(work.tenant)
    tiers.assert_clean(work.tenant)


def test_another_zone_makes_other_days(work: Work) -> None:
    assert "./meteo export --rebuild" in tiers.sentence(tiers.run(work.tenant, "export", extra=KIRITIMATI), 2)
    assert tiers.run(work.tenant, "export", "--rebuild", extra=KIRITIMATI).returncode == 0
    assert tiers.run(work.tenant, "aggregate", extra=KIRITIMATI).returncode == 0
    ran = tiers.run(work.tenant, "reconcile", "--deep", extra=KIRITIMATI)
    assert ran.returncode == 0, ran.stdout
    assert " 0 pending, 0 mismatches" in ran.stdout
    assert {day for day, _, _ in tiers.read_lines(work.tenant)} == {"2013-03-31"}
    assert len(tiers.read_lines(work.tenant)) == work.rows
    assert tiers.read_aggregates(work.tenant)["2013-03-30"] == b""
    assert "made with 'Pacific/Kiritimati'" in tiers.sentence(tiers.run(work.tenant, "export"), 2)


def test_rows_that_only_hdfs_has_are_not_given_up(work: Work) -> None:
    before = tiers.read_lines(work.tenant)
    work.tenant.query("DELETE FROM weather WHERE msg_offset = 0 AND partition = 1")
    told = tiers.sentence(tiers.run(work.tenant, "export", "--rebuild"), 1)
    assert told.startswith(f"PostgreSQL has {work.rows - 1} rows, HDFS {work.rows}: let the consumer catch up")
    work.tenant.query("INSERT INTO detached_months (name, first, rows) VALUES ('weather_detached_2013_02', now(), 5)")
    told = tiers.sentence(tiers.run(work.tenant, "export", "--rebuild"), 1)
    assert told.startswith("weather_detached_2013_02 is not in the table weather any more")
    assert tiers.read_lines(work.tenant) == before
    assert days_of(work.tenant).listed() == [date(2013, 3, 30), date(2013, 3, 31)]
