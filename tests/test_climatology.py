"""The climate as a command, and what bad lines in HDFS do to a job: counted, told, and limited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import running
import tiers

from conftest import Tenant
from meteo_hadoop.manifest import Days
from meteo_hadoop.webhdfs import FileSystem

FIRST, LAST = "2013-03-30", "2013-04-01"


@pytest.fixture
def exported(tenant: Tenant) -> tuple[Tenant, int]:
    """A tenant with three days in HDFS, and their rows."""
    records = tiers.publish(tenant, FIRST, LAST)
    tiers.consume(tenant)
    tiers.export(tenant)
    return tenant, records


def climate(tenant: Tenant) -> bytes:
    return FileSystem(tenant.settings).read(f"{tenant.settings.hdfs_base_path}_climate/climate.jsonl")


def spoil(tenant: Tenant, share: float) -> tuple[int, int]:
    """Break this share of the lines of one file, its length kept; return (lines broken, lines)."""
    filesystem, base = FileSystem(tenant.settings), tenant.settings.hdfs_base_path
    days = Days(filesystem, base)
    day = days.listed()[0]
    path = next(f"{days.directory(day)}/{e.name}" for e in filesystem.list(days.directory(day)) if "weather_" in e.name)
    lines = filesystem.read(path).splitlines(keepends=True)
    broken = max(1, int(share * len(lines)))
    filesystem.publish(path, [b"x" + line[1:] for line in lines[:broken]] + lines[broken:])
    return broken, len(lines)


def test_the_climate_is_published_the_same_by_every_engine(exported: tuple[Tenant, int]) -> None:
    tenant, records = exported
    told = tenant.meteo("climate")
    assert "climate of 3 stations over 3 days" in told
    local = climate(tenant)
    fields = [json.loads(line) for line in local.splitlines()]
    assert [item["station_id"] for item in fields] == ["replay:EWR", "replay:JFK", "replay:LGA"]
    assert sum(item["observations"] for item in fields) == records
    assert {item["last_date"] for item in fields} == {LAST}
    assert {month["month"] for item in fields for month in item["months"]} == {3, 4}
    tenant.meteo("climate", "--engine", "yarn")
    assert climate(tenant) == local


def test_bad_lines_are_counted_up_to_a_limit_beyond_which_nothing_is_published(
    exported: tuple[Tenant, int], tmp_path: Path
) -> None:
    tenant, records = exported
    tiers.aggregate(tenant)
    before = tiers.read_aggregates(tenant)
    broken, _ = spoil(tenant, 0.5)
    assert broken > 0.01 * records
    for command in (("aggregate", "--all"), ("climate",)):
        told = tiers.sentence(tiers.run(tenant, *command), 1)
        assert f"{broken} of {records} lines in HDFS do not count ({broken} bad_json)" in told
    assert tiers.read_aggregates(tenant) == before
    assert FileSystem(tenant.settings).list(f"{tenant.settings.hdfs_base_path}_climate") == []
    allowed = {"BAD_LINES_LIMIT": "0.5"}
    assert f"{broken} lines did not count: bad_json" in tenant.meteo("climate", extra=allowed)
    assert tiers.read_aggregates(tenant) == before
    assert f"{broken} lines did not count: bad_json" in tenant.meteo("aggregate", "--all", extra=allowed)
    tenant.query("UPDATE days SET files_version = files_version + 1")
    service = running.start(tenant, "aggregate", "--every", "1s", log=tmp_path / "log", extra=allowed)
    try:
        tiers.eventually("a cycle", lambda: service.count("cycle done"))
        assert service.metric("meteo_mapreduce_bad_lines_total", job="daily", reason="bad_json") == broken
        assert service.metric("meteo_mapreduce_lines_total", job="daily") == records
    finally:
        service.stop()
