"""A day after its export: aggregated by a schedule, reconciled, changed by late rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import running
import tiers

from conftest import Tenant
from meteo_hadoop.freshness import read_freshness
from meteo_hadoop.webhdfs import FileSystem

DAY = "2013-03-30"


def exported(tenant: Tenant, first: str = DAY, last: str = DAY) -> int:
    """Take these days to HDFS; return their records."""
    records = tiers.publish(tenant, first, last)
    tiers.consume(tenant)
    tiers.export(tenant)
    return records


@pytest.mark.parametrize("schedule", [("--every", "1s"), ("--cron", "* * * * *")], ids=lambda it: it[0])
def test_a_cycle_is_told_with_what_it_moved_and_reconciled(
    tenant: Tenant, tmp_path: Path, schedule: tuple[str, str]
) -> None:
    records = tiers.publish(tenant, DAY, DAY)
    tiers.consume(tenant)
    export = running.start(tenant, "export", *schedule, log=tmp_path / "export.log")
    try:
        tiers.eventually("the export", lambda: export.count("cycle done"))
        assert export.metric("meteo_cycle_rows_total") == records
        assert export.metric("meteo_cycle_bytes_total") > 500 * records
        assert export.metric("meteo_cycle_duration_seconds") > 0
        done = next(event for event in export.events() if event["event"] == "cycle done")
        assert done["rows"] == records
        assert done.keys() >= {"bytes", "seconds", "days"}
        aggregate = running.start(tenant, "aggregate", *schedule, log=tmp_path / "aggregate.log")
        try:
            tiers.eventually("agreement", lambda: aggregate.count("tiers agree", clean=1, pending=0))
            assert aggregate.metric("meteo_reconciled_days", state="clean") == 1
            assert aggregate.metric("meteo_reconcile_mismatches") == 0
        finally:
            aggregate.stop()
    finally:
        export.stop()


def test_a_mismatch_is_told_and_stops_no_service(tenant: Tenant, tmp_path: Path) -> None:
    exported(tenant)
    filesystem = FileSystem(tenant.settings)
    stray = f"{tenant.settings.hdfs_base_path}/dt={DAY}/weather_p9_0-1.json"
    filesystem.publish(stray, [b"{}\n"])
    service = running.start(tenant, "aggregate", "--every", "1s", log=tmp_path / "aggregate.log")
    try:
        tiers.eventually("the mismatch", lambda: service.count("tiers disagree", mismatches=1))
        assert service.metric("meteo_reconcile_mismatches") == 1
        assert service.metric("meteo_reconciled_days", state="mismatch") == 1
        filesystem.delete(stray)
        tiers.eventually("agreement", lambda: service.count("tiers agree", clean=1))
        assert service.metric("meteo_reconcile_mismatches") == 0
    finally:
        service.stop()


def test_every_and_cron_exclude_each_other(tenant: Tenant) -> None:
    for name in ("export", "aggregate"):
        told = tiers.sentence(tiers.run(tenant, name, "--every", "1s", "--cron", "* * * * *"), 2)
        assert "exclude one another" in told
        assert "expected five fields" in tiers.sentence(tiers.run(tenant, name, "--cron", "at noon"), 2)


def test_a_past_day_that_late_rows_changed_is_named_with_their_number(tenant: Tenant) -> None:
    exported(tenant, "2013-03-29", DAY)
    assert read_freshness(tenant.settings)["changed_days"] == []
    tiers.aggregate(tenant)
    assert read_freshness(tenant.settings)["changed_days"] == []
    late = exported(tenant)
    changed = read_freshness(tenant.settings)["changed_days"]
    assert [(day["day"], day["late_rows"]) for day in changed] == [(DAY, late)]
    ran = tiers.run(tenant, "aggregate", "--changed")
    assert "aggregated 1 day" in ran.stdout, ran.stdout + ran.stderr
    assert read_freshness(tenant.settings)["changed_days"] == []
