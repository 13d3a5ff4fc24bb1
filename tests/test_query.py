"""The aggregates as a user asks for them: the same from HBase and from HDFS, and everything else without HBase."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
import tiers

from conftest import Tenant, TenantMaker
from meteo_hadoop.query import Selection, query

WITHOUT_HBASE = {"HBASE_ENABLED": "false", "HBASE_PORT": "1"}
STATIONS = ["replay:EWR", "replay:JFK", "replay:LGA"]


@pytest.fixture(scope="module")
def aggregated(make_tenant: TenantMaker) -> Tenant:
    tenant = make_tenant()
    tiers.publish(tenant, "2013-03-28", "2013-04-01")
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    return tenant


def lines(tenant: Tenant, wanted: Callable[[Any], bool]) -> list[Any]:
    content = tiers.read_aggregates(tenant)
    return [row for day in sorted(content) for row in map(json.loads, content[day].splitlines()) if wanted(row)]


@pytest.mark.parametrize("hbase", [True, False], ids=["hbase", "hdfs"])
@pytest.mark.parametrize(
    ("selection", "wanted", "rows"),
    [
        (Selection(), lambda _: True, 15),
        (Selection("replay:JFK"), lambda row: row["station_id"] == "replay:JFK", 5),
        (
            Selection("replay:JFK", date(2013, 3, 30), date(2013, 3, 31)),
            lambda row: row["station_id"] == "replay:JFK" and row["date"] in {"2013-03-30", "2013-03-31"},
            2,
        ),
        (Selection(first=date(2013, 3, 31)), lambda row: row["date"] >= "2013-03-31", 6),
        (Selection(last=date(2013, 3, 28)), lambda row: row["date"] <= "2013-03-28", 3),
        (Selection("replay:J"), lambda _: False, 0),
    ],
    ids=["all", "station", "range", "from", "to", "unknown"],
)
def test_the_lines_come_back_field_by_field(
    aggregated: Tenant, hbase: bool, selection: Selection, wanted: Callable[[Any], bool], rows: int
) -> None:
    settings = aggregated.settings.model_copy(update={"hbase_enabled": hbase})
    found = query(settings, selection)
    expected = lines(aggregated, wanted)
    assert [json.dumps(row) for row in found] == [json.dumps(row) for row in expected]
    assert len(found) == rows


@pytest.mark.parametrize("hbase", [True, False], ids=["hbase", "hdfs"])
def test_the_latest_is_each_stations_newest_day(aggregated: Tenant, hbase: bool) -> None:
    settings = aggregated.settings.model_copy(update={"hbase_enabled": hbase})
    newest = max(tiers.read_aggregates(aggregated))
    latest = query(settings, Selection(latest=True))
    assert [row["station_id"] for row in latest] == STATIONS
    assert max(row["date"] for row in latest) == newest
    for row in latest:
        assert query(settings, Selection(row["station_id"], latest=True)) == [row]
    (bounded,) = query(settings, Selection("replay:JFK", last=date(2013, 3, 29), latest=True))
    assert bounded["date"] == "2013-03-29"


def test_the_command_prints_a_table_or_json_and_says_when_there_is_nothing(aggregated: Tenant) -> None:
    shown = aggregated.meteo("query", "--station", "replay:JFK", "--date", "2013-03-30")
    assert shown.splitlines()[0].split()[:3] == ["day", "station", "city"]
    assert "2013-03-30  replay:JFK" in shown
    printed = json.loads(aggregated.meteo("query", "--date", "2013-03-30", "--json", extra=WITHOUT_HBASE))
    assert printed == lines(aggregated, lambda row: row["date"] == "2013-03-30")
    assert "no such aggregates" in tiers.sentence(tiers.run(aggregated, "query", "--date", "1999-01-01"), 1)
    assert "is after" in tiers.sentence(tiers.run(aggregated, "query", "--from", "2013-04-01", "--to", "2013-03-01"), 2)
    assert "HBASE_PORT" in tiers.sentence(tiers.run(aggregated, "query", extra={"HBASE_PORT": "1"}), 3)


def test_without_hbase_every_stage_works_and_is_owed_later(tenant: Tenant) -> None:
    tiers.publish(tenant, "2013-03-30", "2013-03-30")
    for step in (("consume", "--until-idle"), ("export", "--once"), ("aggregate", "--changed")):
        tenant.meteo(*step, extra=WITHOUT_HBASE)
    assert "2013-03-30" in tenant.meteo("query", "--latest", extra=WITHOUT_HBASE)
    reconciled = tenant.meteo("reconcile", "--deep", extra=WITHOUT_HBASE)
    assert "1 clean, 0 pending, 0 mismatches" in reconciled
    assert "HBase is switched off" in reconciled
    assert "1 day into HBase" in tenant.meteo("aggregate")
    tiers.assert_clean(tenant)
