"""The queries of docs/queries.md run as they stand, and those that name an index use it in every month they read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import tiers
from psycopg2.extensions import connection as Connection  # noqa: N812

from conftest import Tenant, TenantMaker
from meteo_hadoop.freshness import MONTHS, NEWEST, read_freshness

PAGE = Path(__file__).parents[1] / "docs" / "queries.md"
OF_INDEX = "SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = %s::regclass"


def statements() -> dict[str, str]:
    """Return the page's SQL statements by the comments above them."""
    (block,) = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found = re.findall(r"^-- (.*)\n((?:(?!--).*\n)+)", block, re.MULTILINE)
    return {comment: statement.strip() for comment, statement in found}


INDEXED = {comment: found[1] for comment in statements() if (found := re.search(r"\(index (\w+)\)", comment))}


@pytest.fixture(scope="module")
def filled(make_tenant: TenantMaker) -> Iterator[Connection]:
    """A database with a year of two months each way of what the queries ask for, analysed."""
    tenant = make_tenant()
    message = tiers.recorded_message("2013-07-01")
    rows = 0
    for partition, station in enumerate(("replay:EWR", "replay:JFK", "replay:LGA")):
        values = []
        for month in ("06", "07", "08"):
            for day in range(1, 29):
                for hour in range(24):
                    message |= {"station_id": station, "quality": ["wind_gust_mps:out_of_range"] if hour == day else []}
                    message["observed_at"] = message["collected_at"] = f"2013-{month}-{day:02}T{hour:02}:00:00Z"
                    values.append(json.dumps(message).encode())
        tiers.send(tenant, values, partition)
        rows += len(values)
    tiers.consume(tenant)
    with closing(psycopg2.connect(tenant.settings.database_url.get_secret_value())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM weather")
            assert cursor.fetchone() == (rows,)
            cursor.execute("ANALYZE weather")
        yield connection


def ask(connection: Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
        return cursor.fetchall()


def scans(connection: Connection, statement: str, parameters: Any = None) -> tuple[set[str], int]:
    """Return the indexes of `weather` that a statement reads, and how many partitions it reads without one."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (FORMAT json) {statement}", parameters)
        ((plans,),) = cursor.fetchall()
    indexes, without, stack = set(), 0, [plans[0]["Plan"]]
    while stack:
        node = stack.pop()
        stack += node.get("Plans", [])
        if name := node.get("Index Name"):
            indexes |= {parent for (parent,) in ask(connection, OF_INDEX, name)}
        without += node["Node Type"] == "Seq Scan" and node["Relation Name"].startswith("weather")
    return indexes, without


def test_the_page_has_queries_for_each_index() -> None:
    assert set(INDEXED.values()) == {"weather_station", "weather_quality"}
    assert len(INDEXED) == 3


@pytest.mark.parametrize("comment", statements())
def test_every_query_runs(filled: Connection, comment: str) -> None:
    with filled.cursor() as cursor:
        cursor.execute(statements()[comment])


@pytest.mark.parametrize("comment", INDEXED)
def test_a_query_uses_its_index_in_every_month(filled: Connection, comment: str) -> None:
    statement = statements()[comment]
    assert scans(filled, statement) == ({INDEXED[comment]}, 0)
    assert ask(filled, statement)
    month = statement.replace("FROM weather\n", "FROM weather_2013_07\n").replace(
        "FROM weather WHERE", "FROM weather_2013_07 WHERE"
    )
    assert month != statement
    assert scans(filled, month) == ({INDEXED[comment]}, 0)


def test_a_range_reads_its_own_months_only(filled: Connection) -> None:
    (comment,) = (comment for comment in INDEXED if "range" in comment)
    plan = "\n".join(line for (line,) in ask(filled, f"EXPLAIN {statements()[comment]}"))
    assert "weather_2013_07" in plan
    assert "weather_2013_06" not in plan


def test_a_month_made_later_has_the_indexes_too(filled: Connection) -> None:
    counts = ask(
        filled,
        "SELECT inhrelid, count(*) FROM pg_inherits JOIN pg_index ON indrelid = inhrelid"
        " WHERE inhparent = 'weather'::regclass GROUP BY 1",
    )
    assert [number for _, number in counts] == [3, 3, 3]


def test_the_status_finds_the_newest_by_the_index(filled: Connection) -> None:
    first = ask(filled, MONTHS)[0][0]
    assert scans(filled, NEWEST, {"first": first}) == ({"weather_station"}, 0)
    (expected,) = ask(filled, "SELECT max(date_time) FROM weather")
    with filled.cursor() as cursor:
        cursor.execute(NEWEST, {"first": first})
        assert cursor.fetchall() == [expected]


def test_the_status_of_an_empty_database_and_of_an_empty_month(tenant: Tenant) -> None:
    assert read_freshness(tenant.settings)["newest_observed_at"] is None
    tiers.publish(tenant, "2013-03-30", "2013-04-01")
    tiers.consume(tenant)
    tenant.query("DELETE FROM weather WHERE date_time >= '2013-04-01Z'")
    assert read_freshness(tenant.settings)["newest_observed_at"] == "2013-04-01T01:00:00+02:00"
