"""The page's API on the real servers: its answers against what PostgreSQL and HBase hold, and its refusals."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import tiers
from paging import Page, simulate, start_page
from prometheus_client.parser import text_string_to_metric_families

from conftest import Tenant, TenantMaker
from meteo_hadoop.query import Selection, query

FIRST, LAST = "2013-03-29", "2013-04-01"
STATION = "replay:JFK"
FIELDS = {
    "temperature_celsius", "apparent_temperature_celsius", "humidity_percent", "pressure_hpa", "wind_speed_mps",
    "wind_gust_mps", "wind_direction_degrees", "cloud_cover_percent", "visibility_metres", "precipitation_1h_mm",
}  # fmt: skip


@pytest.fixture(scope="module")
def filled(make_tenant: TenantMaker) -> Tenant:
    """A tenant with four recorded days and one current observation in every tier."""
    tenant = make_tenant()
    tiers.publish(tenant, FIRST, LAST)
    simulate(tenant)
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    return tenant


@pytest.fixture(scope="module")
def page(filled: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = start_page(filled, tmp_path_factory.mktemp("page") / "page.log")
    page.until("a state", lambda state: state["stations"])
    yield page
    page.service.kill()


def samples(page: Page) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return /metrics as (name, labels) → value."""
    families = text_string_to_metric_families(page.get("/metrics").text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def test_stations_have_the_newest_row_of_each(page: Page, filled: Tenant) -> None:
    newest = filled.query(
        "SELECT DISTINCT ON (value->>'station_id') value->>'station_id', date_time, value->'observation',"
        " value->>'city'"
        " FROM weather ORDER BY value->>'station_id', date_time DESC"
    )
    found = page.get("/api/stations").json()["stations"]
    assert len(found) == len(newest) == 4
    told = {each["station_id"]: each for each in found}
    for station_id, observed_at, observation, city in newest:
        assert datetime.fromisoformat(told[station_id]["observed_at"]) == observed_at
        assert told[station_id]["observation"] == observation
        assert told[station_id]["city"] == city
    assert [each["current"] for each in found if each["data_origin"] == "simulated"] == [True]
    assert not any(each["current"] for each in found if each["data_origin"] == "replay")


def test_observations_are_the_rows_of_the_range(page: Page, filled: Tenant) -> None:
    first, after = "2013-03-30T05:00:00Z", "2013-03-31T05:00:00Z"
    rows = filled.query(
        "SELECT date_time, value->'observation' FROM weather WHERE value->>'station_id' = %s"
        " AND date_time >= %s AND date_time < %s ORDER BY date_time", STATION, first, after,
    )  # fmt: skip
    answer = page.get(f"/api/stations/{STATION}/observations", **{"from": first, "to": after}).json()
    assert len(rows) == 24
    assert [datetime.fromisoformat(each["observed_at"]) for each in answer["observations"]] == [row[0] for row in rows]
    for told, (_, held) in zip(answer["observations"], rows, strict=True):
        assert isinstance(held, dict)
        assert {name: told[name] for name in held} == held
    assert answer["more"] is False
    some = page.get(f"/api/stations/{STATION}/observations", **{"from": first, "to": after, "limit": 5}).json()
    assert some["more"] is True
    assert some["observations"] == answer["observations"][-5:]


def test_without_bounds_the_last_48_hours_that_there_are(page: Page, filled: Tenant) -> None:
    ((newest,),) = filled.query("SELECT max(date_time) FROM weather WHERE value->>'station_id' = %s", STATION)
    answer = page.get(f"/api/stations/{STATION}/observations").json()
    times = [datetime.fromisoformat(each["observed_at"]) for each in answer["observations"]]
    assert isinstance(newest, datetime)
    assert times[-1] == newest
    assert 40 < len(times) <= 49
    assert (newest - times[0]).total_seconds() <= 48 * 3600


def test_one_observation_for_each_time_and_the_winner_of_several(page: Page, filled: Tenant) -> None:
    message = tiers.recorded_message("2013-06-01")
    later = {**message, "collected_at": "2013-06-02T00:00:00Z", "observation": {"temperature_celsius": 11.5}}
    tiers.send(filled, [json.dumps(each).encode() for each in (message, later, message)])
    tiers.consume(filled)
    told = page.get(f"/api/stations/{message['station_id']}/observations", **{"from": message["observed_at"]}).json()
    assert [each["temperature_celsius"] for each in told["observations"]] == [11.5]


def test_aggregates_are_those_of_hbase(page: Page, filled: Tenant) -> None:
    first, last = date(2013, 3, 30), date(2013, 3, 31)
    expected = query(filled.settings, Selection(STATION, first, last))
    answer = page.get(f"/api/stations/{STATION}/aggregates", **{"from": str(first), "to": str(last)}).json()
    assert len(expected) == 2
    assert answer == {"station_id": STATION, "read_from": "hbase", "more": False, "aggregates": expected}
    newest = page.get(f"/api/stations/{STATION}/aggregates", limit=1).json()
    assert newest["more"] is True
    assert [each["date"] for each in newest["aggregates"]] == [query(filled.settings, Selection(STATION))[-1]["date"]]


def test_aggregates_come_from_hdfs_where_hbase_is_off(filled: Tenant, tmp_path: Path) -> None:
    page = start_page(filled, tmp_path / "page.log", extra={"HBASE_ENABLED": "false"})
    try:
        answer = page.get(f"/api/stations/{STATION}/aggregates", **{"from": FIRST, "to": FIRST}).json()
        assert answer["read_from"] == "hdfs"
        assert answer["aggregates"] == query(filled.settings, Selection(STATION, date(2013, 3, 29), date(2013, 3, 29)))
        state = page.until("a state", lambda state: state["stations"])
        assert "hbase" not in {server["name"] for server in state["servers"]}
        assert state["hops"][-1]["state"] == "ok"
    finally:
        page.service.kill()


def test_metrics_say_how_new_each_tier_is(page: Page, filled: Tenant) -> None:
    told = samples(page)
    ((newest,),) = filled.query(
        "SELECT max(date_time) FROM weather WHERE value->>'station_id' = 'replay:LGA' AND date_time < '2013-05-01'"
    )
    assert isinstance(newest, datetime)
    for tier in ("kafka", "postgresql", "hdfs", "aggregates", "hbase"):
        labels = frozenset({("tier", tier), ("station", "replay:LGA")})
        assert told["meteo_newest_observation_timestamp_seconds", labels] == newest.timestamp(), tier
    collected = {dict(labels)["station"]: value for (name, labels), value in told.items() if "collection" in name}
    assert list(collected) == ["simulation:59.91,10.75"]
    assert time.time() - collected["simulation:59.91,10.75"] < 600
    weather = {name for name, labels in told if name.startswith("meteo_weather_")}
    assert weather == {f"meteo_weather_{field}" for field in FIELDS}
    stations = {dict(labels)["station"] for name, labels in told if name.startswith("meteo_weather_")}
    assert stations == {"simulation:59.91,10.75"}, "a recorded year is no weather of now"
    ((held,),) = filled.query(
        "SELECT (value#>>'{observation,temperature_celsius}')::float FROM weather WHERE value->>'source' = 'simulation'"
    )
    labels = frozenset({("station", "simulation:59.91,10.75"), ("city", "Oslo")})
    assert told["meteo_weather_temperature_celsius", labels] == held
    assert not [name for name, _ in told if name.startswith(("meteo_cycle", "meteo_consumer"))]


def test_the_description_names_every_answer(page: Page) -> None:
    description = page.get("/api/openapi.json").json()
    assert set(description["paths"]) == {
        "/api/stations",
        "/api/stations/{station_id}/observations",
        "/api/stations/{station_id}/aggregates",
        "/api/pipeline",
    }
    for path, methods in description["paths"].items():
        assert list(methods) == ["get"], path
        assert "503" in methods["get"]["responses"], path


@pytest.mark.parametrize(
    ("path", "parameters", "status", "words"),
    [
        ("/api/stations/replay:ZZZ/observations", {}, 404, "no station 'replay:ZZZ'"),
        ("/api/stations/replay:ZZZ/aggregates", {}, 404, "no station 'replay:ZZZ'"),
        ("/api/stations/nonsense/observations", {}, 422, "'station_id'"),
        ("/api/stations/replay:' OR 1=1--/observations", {}, 422, "'station_id'"),
        ("/api/stations/replay:JFK/observations", {"limit": 10_001}, 422, "'limit'"),
        ("/api/stations/replay:JFK/observations", {"limit": "0"}, 422, "'limit'"),
        ("/api/stations/replay:JFK/observations", {"limit": "1; DROP TABLE weather"}, 422, "'limit'"),
        ("/api/stations/replay:JFK/observations", {"from": "yesterday"}, 422, "'from'"),
        ("/api/stations/replay:JFK/observations", {"from": "2013-03-30T00:00:00"}, 422, "'from'"),
        (
            "/api/stations/replay:JFK/observations",
            {"from": "2013-03-30T00:00:00Z", "to": "2013-03-29T00:00:00Z"},
            422,
            "'from'",
        ),
        ("/api/stations/replay:JFK/aggregates", {"from": "2013-03-30", "to": "2013-03-29"}, 422, "'from'"),
        ("/api/stations/replay:JFK/aggregates", {"to": "2013-02-30"}, 422, "'to'"),
        ("/api/nothing", {}, 404, "openapi.json"),
        ("/../etc/passwd", {}, 404, "openapi.json"),
    ],
)
def test_a_wrong_question_is_answered_by_a_sentence(
    page: Page, path: str, parameters: dict[str, Any], status: int, words: str
) -> None:
    answer = page.get(path, **parameters)
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert words in problem["detail"]
    assert problem["detail"].endswith(".")
    assert "Traceback" not in answer.text


def test_every_answer_bears_the_headers_that_keep_strangers_out(page: Page) -> None:
    for path in ("/", "/page.js", "/api/stations", "/api/nothing", "/metrics", "/healthz"):
        policy = page.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy, path
        assert page.get(path).headers["X-Content-Type-Options"] == "nosniff", path


def test_the_page_writes_nothing(page: Page, filled: Tenant) -> None:
    """Its sessions are read-only ones: PostgreSQL itself would refuse."""
    before = filled.query("SELECT count(*), (SELECT count(*) FROM migrations) FROM weather")
    for path in ("/", "/api/stations", "/api/pipeline", f"/api/stations/{STATION}/observations"):
        assert page.get(path).ok
    assert filled.query("SELECT count(*), (SELECT count(*) FROM migrations) FROM weather") == before
    modes = filled.query(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'meteo-page' AND datname = current_database()"
    )
    assert modes[0][0] in {0, 1}, "connections are given back"


def test_an_empty_platform_has_a_page(make_tenant: TenantMaker, tmp_path: Path) -> None:
    tenant = make_tenant()
    page = start_page(tenant, tmp_path / "page.log")
    try:
        state = page.until("a state", lambda _: True)
        assert state["fresh"] is False
        assert state["stations"] == []
        assert page.get("/api/stations").json() == {"stations": []}
        assert page.get("/api/stations/replay:JFK/observations").status_code == 404
        assert datetime.now(UTC).timestamp() - datetime.fromisoformat(state["at"]).timestamp() < 30
    finally:
        page.service.stop()
