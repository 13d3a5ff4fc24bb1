"""How far each tier is, from PostgreSQL's books: what `status` shows."""

from __future__ import annotations

from typing import Any

from meteo_common.database import open_database, transaction
from meteo_common.settings import Settings

# Newest per month partition from the top, so that only the last one is looked at.
NEWEST = "SELECT max(date_time) FROM weather WHERE date_time > now() - interval '2 months'"
NEWEST_EVER = "SELECT max(date_time) FROM weather"
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
    SELECT day, changed_at FROM days WHERE files_version > aggregated_version AND aggregated_version > 0
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
            cursor.execute(NEWEST)
            (newest,) = cursor.fetchone() or (None,)
            if newest is None:
                cursor.execute(NEWEST_EVER)
                (newest,) = cursor.fetchone() or (None,)
            cursor.execute(CHANGED)
            changed = [{"day": day.isoformat(), "changed_at": at.isoformat(timespec="seconds")} for day, at in cursor]
    finally:
        database.close()
    facts: dict[str, Any] = {name: int(value) for name, value in counts.items()}
    return {**facts, "newest_observed_at": newest and newest.isoformat(), "changed_days": changed}
