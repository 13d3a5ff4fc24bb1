"""How far each tier is, from PostgreSQL's books: what `status` shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import open_database, transaction
from meteo_common.settings import Settings

MONTHS = "SELECT first FROM weather_months ORDER BY first DESC"
# Each station's newest message, of the months from one on; the stations are found by leaps through their index, so
# that some thousand rows of the index are read and none of the table's other millions.
NEWEST = """
    WITH RECURSIVE stations (station_id) AS (
        (SELECT value->>'station_id' FROM weather WHERE date_time >= %(first)s ORDER BY 1 LIMIT 1)
        UNION ALL
        SELECT (SELECT value->>'station_id' FROM weather
                WHERE date_time >= %(first)s AND value->>'station_id' > stations.station_id ORDER BY 1 LIMIT 1)
        FROM stations WHERE station_id IS NOT NULL
    )
    SELECT max(newest.date_time) FROM stations, LATERAL (
        SELECT date_time FROM weather WHERE date_time >= %(first)s AND value->>'station_id' = stations.station_id
        ORDER BY date_time DESC LIMIT 1
    ) AS newest
"""
COUNTS = """
    SELECT (SELECT coalesce(sum(next_offset - first_offset - control_records), 0) FROM positions)
            - (SELECT coalesce(sum(to_offset - from_offset), 0) FROM gaps)
            - (SELECT count(*) FROM dead_letters) AS rows,
        (SELECT count(*) FROM dead_letters) AS dead_letters,
        (SELECT count(*) FROM gaps) AS gaps,
        (SELECT count(*) FROM days) AS days,
        (SELECT count(*) FROM days WHERE files_version > aggregated_version
            OR generation > published_generation) AS days_changed,
        (SELECT count(*) FROM days WHERE published_generation > hbase_generation) AS days_owed_to_hbase,
        (SELECT coalesce(sum(positions.next_offset - coalesce(exported.next_offset, positions.first_offset)), 0)
            FROM positions JOIN topics USING (topic_id) LEFT JOIN export_positions AS exported
            ON exported.topic_generation = topics.generation AND exported.partition = positions.partition)
            + (SELECT coalesce(sum(rows), 0) FROM export_plan_days WHERE published_at IS NULL) AS rows_to_export
"""
CHANGED = """
    SELECT day, changed_at, (SELECT coalesce(sum(rows), 0) FROM export_plan_days AS late
            WHERE late.day = days.day AND published_at > aggregated_at) AS late_rows
    FROM days WHERE files_version > aggregated_version AND aggregated_version > 0
    ORDER BY day DESC LIMIT 10
"""


def read_freshness(settings: Settings) -> dict[str, Any]:
    """Return counts and the newest observation; raises UnreachableError when PostgreSQL is away."""
    database = open_database(settings, "status")
    try:
        with transaction(database) as cursor:
            cursor.execute(COUNTS)
            counts = dict(
                zip([column.name for column in cursor.description or ()], cursor.fetchone() or (), strict=True)
            )
            newest = _newest(cursor)
            cursor.execute(CHANGED)
            changed = [
                {"day": day.isoformat(), "changed_at": at.isoformat(timespec="seconds"), "late_rows": int(rows)}
                for day, at, rows in cursor
            ]
    finally:
        database.close()
    facts: dict[str, Any] = {name: int(value) for name, value in counts.items()}
    return {**facts, "newest_observed_at": newest and newest.isoformat(), "changed_days": changed}


def _newest(cursor: Cursor) -> datetime | None:
    """Return the newest observation's time: of the newest month that has rows."""
    cursor.execute(MONTHS)
    for (first,) in cursor.fetchall():
        cursor.execute(NEWEST, {"first": first})
        (newest,) = cursor.fetchone() or (None,)
        if newest is not None:
            return cast(datetime, newest)
    return None
