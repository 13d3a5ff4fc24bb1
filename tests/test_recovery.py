"""PostgreSQL restored to an earlier state than HDFS: nothing is written twice, `export --verify` mends the plans."""

from __future__ import annotations

import signal
import uuid
from dataclasses import replace
from datetime import date

import pytest
import tiers
from exporting import ROWS, Work
from pydantic import SecretStr

from conftest import Tenant, TenantMaker
from meteo_hadoop.manifest import Days
from meteo_hadoop.webhdfs import FileSystem

DAY = date(2013, 3, 31)
PLANS = """
    SELECT topic_generation, partition, from_offset, to_offset, day, rows, published_at IS NULL
    FROM export_plans JOIN export_plan_days USING (plan_id) ORDER BY 2, 3, 5
"""


class Backup:
    """A copy of the tenant's database, as it is now."""

    def __init__(self, work: Work, maker: TenantMaker) -> None:
        self._work, self._rows = work, work.rows
        url, _, name = work.tenant.settings.database_url.get_secret_value().rpartition("/")
        copy = f"t{uuid.uuid4().hex[:10]}"
        maker.as_superuser(f"CREATE DATABASE {copy} TEMPLATE {name} OWNER meteo")
        self._url = SecretStr(f"{url}/{copy}")

    def restore(self) -> None:
        """Give the tenant the copy for its database."""
        tenant = self._work.tenant
        settings = tenant.settings.model_copy(update={"database_url": self._url})
        self._work.tenant, self._work.rows = replace(tenant, settings=settings), self._rows


@pytest.fixture
def work(make_tenant: TenantMaker) -> Work:
    """A tenant with a slice in HDFS."""
    work = Work(make_tenant())
    work.give()
    tiers.export(work.tenant)
    return work


def verify(tenant: Tenant) -> str:
    ran = tiers.run(tenant, "export", "--verify")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_after_a_restore_every_row_is_still_in_hdfs_once(work: Work, make_tenant: TenantMaker) -> None:
    tiers.aggregate(work.tenant)
    backup = Backup(work, make_tenant)
    work.give()
    tiers.export(work.tenant)
    tiers.aggregate(work.tenant)
    backup.restore()
    told = tiers.sentence(tiers.run(work.tenant, "export", "--verify"), 1)
    assert "up to offset 12, PostgreSQL only up to 6: let the consumer catch up" in told
    work.give()  # the consumer reads the records again
    work.give()  # and goes on
    told = tiers.sentence(tiers.run(work.tenant, "export"), 1)
    assert "overlaps weather_p" in told
    assert "run ./meteo export --verify." in told
    assert "PostgreSQL did not know all of 2 days; 12 rows of planned ranges to export" in verify(work.tenant)
    tiers.export(work.tenant)
    work.assert_whole()
    tiers.aggregate(work.tenant)
    tiers.assert_clean(work.tenant)


def test_a_restore_to_the_time_before_the_first_export(make_tenant: TenantMaker) -> None:
    work = Work(make_tenant())
    work.give()
    backup = Backup(work, make_tenant)
    tiers.export(work.tenant)
    tiers.aggregate(work.tenant)
    backup.restore()
    assert "PostgreSQL did not know all of 2 days; 0 rows of planned ranges" in verify(work.tenant)
    work.give()
    tiers.export(work.tenant)
    work.assert_whole()
    tiers.aggregate(work.tenant)
    tiers.assert_clean(work.tenant)


def test_where_nothing_is_wrong_nothing_changes(work: Work) -> None:
    tiers.aggregate(work.tenant)
    before = work.tenant.query(PLANS)
    assert len(before) == 4
    assert "PostgreSQL did not know all of 0 days; 0 rows of planned ranges" in verify(work.tenant)
    assert work.tenant.query(PLANS) == before
    tiers.assert_clean(work.tenant)


@pytest.mark.parametrize("place", ["export.after_plan_commit", "export.before_manifest", "export.after_manifest"])
def test_what_a_killed_export_owes_stays_owed(work: Work, place: str) -> None:
    work.give()
    process = tiers.start(work.tenant, "export", extra={"METEO_FAILPOINT": place})
    assert process.wait(60) == -signal.SIGKILL
    verify(work.tenant)
    tiers.export(work.tenant)
    work.assert_whole()
    assert work.tenant.query("SELECT count(*) FROM export_plans WHERE finished_at IS NULL") == [(0,)]


def test_a_day_with_fewer_rows_than_its_range_gets_the_rest_alone(work: Work) -> None:
    """An export after a restore may have written one day under a longer range before the other day was refused."""
    tenant = work.tenant
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    manifest = days.read(DAY)
    assert manifest is not None
    (name,) = [name for name in manifest.files if name.startswith("weather_p0")]
    del manifest.files[name]
    days.write(manifest)
    days.filesystem.delete(days.path(DAY, name))
    assert "PostgreSQL did not know all of 0 days; 3 rows of planned ranges" in verify(tenant)
    work.give()
    tiers.export(tenant)
    work.assert_whole()


def test_ranges_that_overlap_in_a_day_are_refused(work: Work) -> None:
    tenant = work.tenant
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    before, manifest = tenant.query(PLANS), days.read(DAY)
    assert manifest is not None
    (segment,) = manifest.files["weather_p0_0-6.json"]
    manifest.files["weather_p0_3-9.json"] = [type(segment)(0, 3, 9, 3, segment.bytes, segment.sha256)]
    days.write(manifest)
    told = tiers.sentence(tiers.run(tenant, "export", "--verify"), 1)
    assert told.startswith(
        f"weather_p0_0-6.json (0-6) and weather_p0_3-9.json (3-9) of {DAY} have records of partition 0"
    )
    assert tenant.query(PLANS) == before
    assert work.rows == ROWS
