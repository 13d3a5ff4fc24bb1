"""Days that go from HDFS and HBase when they are old enough and clean: their counts stay, and late rows still come."""

from __future__ import annotations

import json
import signal
from datetime import date, datetime

import pytest
import tiers

from conftest import Tenant
from meteo_common.failpoints import FAILPOINTS
from meteo_hadoop.hbase import AggregateTable, StoredRow
from meteo_hadoop.manifest import Days
from meteo_hadoop.parquet import parquet_days
from meteo_hadoop.reconcile import reconcile_tiers
from meteo_hadoop.webhdfs import FileSystem

LIMIT = date(2013, 3, 30)
SLICE = ("2013-03-28", "2013-03-31")
OFF = {"HBASE_ENABLED": "false", "HBASE_PORT": "1"}


def days_back(tenant: Tenant) -> str:
    """Return DAYS such that what is before LIMIT is old enough."""
    return str((datetime.now(tenant.settings.zone).date() - LIMIT).days)


def fill(tenant: Tenant) -> int:
    """Bring the days through every tier, Parquet too; return the records."""
    records = tiers.publish(tenant, *SLICE)
    tiers.consume(tenant)
    tenant.meteo("export", "--compact")
    tiers.aggregate(tenant)
    tiers.assert_clean(tenant)
    return records


def states(tenant: Tenant) -> dict[date, str]:
    report = reconcile_tiers(tenant.settings, deep=True)
    assert report.mismatches == []
    return {day.day: day.state for day in report.days}


def held(tenant: Tenant) -> tuple[set[date], set[date], set[date]]:
    """Return the days that lie in HDFS, as Parquet, and in HBase."""
    filesystem = FileSystem(tenant.settings)
    with AggregateTable.connect(tenant.settings) as table:
        rows = {row.day for row in table.scan() if isinstance(row, StoredRow)}
    return (
        set(Days(filesystem, tenant.settings.hdfs_base_path).listed()),
        set(parquet_days(filesystem, tenant.settings).listed()),
        rows,
    )


def test_old_clean_days_go_from_every_tier_and_are_still_counted(tenant: Tenant) -> None:
    fill(tenant)
    before = held(tenant)
    told = tenant.meteo("export", "--expire", days_back(tenant), "--dry-run")
    assert held(tenant) == before
    old = {day for day in before[0] if day < LIMIT}
    assert old
    assert f"would expire {len(old)} days" in told
    told = tenant.meteo("export", "--expire", days_back(tenant))
    assert f"expired {len(old)} days" in told
    assert held(tenant) == tuple(days - old for days in before)
    assert states(tenant) == {day: "expired" if day in old else "clean" for day in before[0]}
    assert f" {len(old)} expired, 0 mismatches" in tenant.meteo("reconcile", "--deep")
    for command in (("aggregate", "--all"), ("export", "--compact"), ("query", "--latest")):
        tenant.meteo(*command)
    # Plans made anew from HDFS do not bring back what has expired.
    tenant.meteo("export", "--verify")
    tenant.meteo("export")
    assert "expired 0 days" in tenant.meteo("export", "--expire", days_back(tenant))
    assert held(tenant) == tuple(days - old for days in before)


def test_late_rows_of_an_expired_day_come_and_go_like_others(tenant: Tenant) -> None:
    fill(tenant)
    tenant.meteo("export", "--expire", days_back(tenant))
    message = tiers.recorded_message("2013-03-29")
    tiers.send(tenant, [json.dumps(message).encode()])
    tiers.consume(tenant)
    tenant.meteo("export")
    assert states(tenant)[date(2013, 3, 29)] == "pending"
    tenant.meteo("aggregate")
    assert states(tenant)[date(2013, 3, 29)] == "clean"
    assert all(date(2013, 3, 29) in days for days in held(tenant))
    assert "expired 1 day of 1 row" in tenant.meteo("export", "--expire", days_back(tenant))
    assert states(tenant)[date(2013, 3, 29)] == "expired"


def test_what_is_not_clean_stays(tenant: Tenant) -> None:
    fill(tenant)
    days = Days(FileSystem(tenant.settings), tenant.settings.hdfs_base_path)
    days.filesystem.publish(days.path(date(2013, 3, 29), "weather_p9_0-1.json"), [b"{}\n"])
    tiers.send(tenant, [json.dumps(tiers.recorded_message("2013-03-28")).encode()])
    tiers.consume(tenant)
    told = tenant.meteo("export", "--expire", days_back(tenant))
    assert "kept 2013-03-28: pending" in told
    assert "kept 2013-03-29: mismatch" in told
    assert {date(2013, 3, 28), date(2013, 3, 29)} <= held(tenant)[0]
    assert "give both" in tiers.sentence(tiers.run(tenant, "export", "--dry-run"), 2)


def test_without_hbase_days_expire_unless_it_has_their_rows(tenant: Tenant) -> None:
    tiers.publish(tenant, *SLICE)
    tiers.consume(tenant)
    tiers.export(tenant)
    tenant.meteo("aggregate", extra=OFF)
    assert "expired 2 days" in tenant.meteo("export", "--expire", days_back(tenant), extra=OFF)
    tiers.aggregate(tenant)
    assert set(states(tenant).values()) == {"clean", "expired"}
    later = str(int(days_back(tenant)) - 1)
    assert "HBase has rows of it and is switched off" in tenant.meteo("export", "--expire", later, extra=OFF)


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name.startswith("expire.")])
@pytest.mark.parametrize("following", ["export", "aggregate"])
def test_a_killed_expiry_is_settled_by_the_next_command(tenant: Tenant, name: str, following: str) -> None:
    fill(tenant)
    expected = tiers.read_aggregates(tenant)
    process = tiers.start(tenant, "export", "--expire", days_back(tenant), extra={"METEO_FAILPOINT": name})
    assert process.wait(60) == -signal.SIGKILL
    between = tiers.run(tenant, "reconcile")
    assert between.returncode == 0, between.stdout
    assert "an expiry to be settled" in between.stdout
    tenant.meteo(following)
    tenant.meteo("aggregate")
    assert set(states(tenant).values()) == ({"clean", "expired"} if name.endswith("delete") else {"clean"})
    left = tiers.read_aggregates(tenant)
    assert left == {day: content for day, content in expected.items() if day in left}
    tenant.meteo("export", "--expire", days_back(tenant))
    after = states(tenant)
    assert after == {day: "expired" if day < LIMIT else "clean" for day in after}
    assert all(min(days) == LIMIT for days in held(tenant))
