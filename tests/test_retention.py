"""Months leave PostgreSQL when they lie in HDFS; every count stays right, whatever comes late or dies."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg2
import pytest
import tiers

from conftest import Tenant
from meteo_common.database import open_database
from meteo_common.errors import TransientError
from meteo_consumer.batch import BatchWriter, sort_records
from meteo_consumer.positions import Positions
from meteo_consumer.retention import Month, Retention
from meteo_consumer.topic import describe_topic

MARCH, APRIL = "2013-03-30", "2013-04-02"
RETAIN = ("retention", "--keep", "12")


def months(tenant: Tenant) -> list[object]:
    return [name for (name,) in tenant.query("SELECT name FROM weather_months ORDER BY first")]


def tables(tenant: Tenant) -> set[object]:
    return {
        name
        for (name,) in tenant.query(
            "SELECT relname::text FROM pg_class WHERE relname LIKE 'weather_detached%%' AND relkind = 'r'"
        )
    }


def settle(tenant: Tenant, first: str = MARCH, last: str = APRIL) -> int:
    records = tiers.publish(tenant, first, last)
    for step in (tiers.consume, tiers.export, tiers.aggregate):
        step(tenant)
    return records


def test_a_month_goes_and_comes_back_and_is_counted_all_the_time(tenant: Tenant) -> None:
    records = settle(tenant)
    before = tiers.read_aggregates(tenant)
    assert months(tenant) == ["weather_2013_03", "weather_2013_04"]
    told = tenant.meteo(*RETAIN, "--dry-run")
    assert "weather_2013_03: would be detached" in told
    assert len(months(tenant)) == 2
    told = tenant.meteo(*RETAIN)
    assert f"2 months detached, {records} rows; 0 dropped" in told
    assert (months(tenant), tables(tenant)) == ([], {"weather_detached_2013_03", "weather_detached_2013_04"})
    assert tenant.query("SELECT count(*) FROM weather") == [(0,)]
    tiers.assert_clean(tenant)
    assert f"{records} rows" in tenant.meteo("reconcile")

    # Late rows for a month that has gone: the partition is made anew, and goes a second time under another name.
    late = tiers.publish(tenant, MARCH, "2013-03-31")
    tiers.consume(tenant)
    assert months(tenant) == ["weather_2013_03"]
    assert f"weather_2013_03: stays, {late} of its rows are not exported" in tenant.meteo(*RETAIN)
    assert "rows to export" in tenant.meteo("reconcile")
    tiers.export(tenant)
    tiers.aggregate(tenant)
    tiers.assert_clean(tenant)
    assert tiers.read_aggregates(tenant) == before
    tenant.meteo(*RETAIN)
    assert tables(tenant) == {"weather_detached_2013_03", "weather_detached_2013_03_2", "weather_detached_2013_04"}
    tiers.assert_clean(tenant)

    assert "0 months detached, 0 rows; 3 dropped" in tenant.meteo("retention", "--drop")
    assert tables(tenant) == set()
    tiers.assert_clean(tenant)
    assert "0 dropped" in tenant.meteo("retention", "--drop")
    assert tenant.query("SELECT sum(rows) FROM detached_months WHERE dropped_at IS NOT NULL") == [(records + late,)]
    assert settle(tenant, MARCH, MARCH)
    tiers.assert_clean(tenant)


def test_a_lost_row_is_still_found_when_its_month_has_gone(tenant: Tenant) -> None:
    settle(tenant)
    tenant.meteo(*RETAIN)
    tenant.query("UPDATE detached_day_rows SET rows = rows - 1 WHERE day = '2013-03-31'")
    told = tiers.sentence(tiers.run(tenant, "reconcile"), 1)
    assert "day 2013-03-31: PostgreSQL has 68 exported rows, the manifest 69" in told


def test_a_month_whose_files_are_owed_stays(tenant: Tenant) -> None:
    tiers.publish(tenant, MARCH, APRIL)
    tiers.consume(tenant)
    assert tiers.run(tenant, "export", extra={"METEO_FAILPOINT": "export.after_plan_commit"}).returncode == -9
    assert "weather_2013_03: stays, the export still owes" in tenant.meteo(*RETAIN)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    assert "2 months detached" in tenant.meteo(*RETAIN)
    tiers.assert_clean(tenant)


def test_a_killed_retention_leaves_the_month_as_it_was(tenant: Tenant) -> None:
    settle(tenant)
    ran = tiers.run(tenant, *RETAIN, extra={"METEO_FAILPOINT": "retention.before_commit:2"})
    assert ran.returncode == -9
    tiers.eventually("the end of the session", lambda: months(tenant) == ["weather_2013_04"])
    tiers.assert_clean(tenant)
    tenant.meteo(*RETAIN)
    tiers.assert_clean(tenant)


@contextmanager
def session(tenant: Tenant) -> Iterator[psycopg2.extensions.connection]:
    with closing(psycopg2.connect(tenant.settings.database_url.get_secret_value())) as connection:
        yield connection


def commit_when_waited_for(tenant: Tenant, writer: psycopg2.extensions.connection) -> None:
    """End a transaction as soon as another waits for its locks."""
    waiting = "SELECT 1 FROM pg_locks JOIN pg_database ON oid = database WHERE NOT granted AND datname = %s"
    name = writer.info.dbname
    tiers.eventually("a lock that is waited for", lambda: tenant.query(waiting, name) != [])
    writer.commit()


def test_rows_that_come_while_a_month_is_counted_keep_it(tenant: Tenant) -> None:
    """A batch is open when the month is counted; the lock waits for it, and then its row is seen."""
    settle(tenant)
    with session(tenant) as writer, closing(open_database(tenant.settings, "test")) as database:
        with writer.cursor() as cursor:
            cursor.execute(
                "INSERT INTO weather SELECT date_time, 100000, partition, topic_generation, value FROM weather"
                " WHERE date_time < '2013-03-31 12:00Z' LIMIT 1"
            )
        retention = Retention(database)
        march = retention.attached()[0]
        threading.Thread(target=commit_when_waited_for, args=(tenant, writer)).start()
        assert retention.detach(march) == "rows of it came meanwhile"
        assert "weather_2013_03" in months(tenant)
        assert retention.detached() == []
    tenant.query("DELETE FROM weather WHERE msg_offset = 100000")


def test_a_table_in_use_is_left_alone(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tenant)
    monkeypatch.setattr("meteo_consumer.retention.LOCK_MS", 50)
    monkeypatch.setattr("meteo_consumer.retention.PAUSES", (0.0, 0.05))
    with session(tenant) as reader, closing(open_database(tenant.settings, "test")) as database:
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM weather")
        retention = Retention(database)
        with pytest.raises(TransientError, match="weather is in use"):
            retention.detach(retention.attached()[0])
    assert len(months(tenant)) == 2
    tiers.assert_clean(tenant)


def test_a_month_that_another_retention_took_is_no_error(tenant: Tenant) -> None:
    settle(tenant)
    with closing(open_database(tenant.settings, "test")) as database:
        march = Retention(database).attached()[0]
        tenant.meteo(*RETAIN)
        assert Retention(database).detach(march) == "another retention has taken it"
        assert Retention(database).detach(Month("weather_1999_01", march.first, march.after)) == (
            "another retention has taken it"
        )


def test_a_writer_that_remembers_a_month_makes_it_anew(tenant: Tenant) -> None:
    settle(tenant)
    with closing(open_database(tenant.settings, "test")) as database:
        positions = Positions(database, describe_topic(tenant.settings))
        writer, offset = BatchWriter(database, positions), positions.read(0) or 0
        writer._months.ensure([datetime(2013, 3, 31, 12, tzinfo=UTC)])
        tenant.meteo(*RETAIN)
        assert months(tenant) == []
        late = SimpleNamespace(offset=offset, value=json.dumps(tiers.recorded_message(MARCH)).encode())
        writer.write(sort_records(0, offset, offset + 1, [late]))
        assert months(tenant) == ["weather_2013_03"]
        assert tenant.query("SELECT msg_offset FROM weather") == [(offset,)]


def test_wrong_usage_is_one_sentence(tenant: Tenant) -> None:
    assert "Expected --keep MONTHS" in tiers.sentence(tiers.run(tenant, "retention"), 2)
    assert "'--keep'" in tiers.sentence(tiers.run(tenant, "retention", "--keep", "0"), 2)
