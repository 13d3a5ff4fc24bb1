"""A tenant with rows to export, and an export of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import tiers

from conftest import Tenant
from meteo_common.database import connect, open_database
from meteo_common.errors import MeteoError
from meteo_common.settings import Settings
from meteo_hadoop.compact import compact
from meteo_hadoop.export import export_once
from meteo_hadoop.reconcile import reconcile_tiers

ROWS = 12
"""A slice: 2 partitions, 6 rows each, over the night in which Paris loses an hour."""


class Work:
    """A tenant with rows to export, written straight into the tables: Kafka and the consumer are not under test."""

    MONTH = "CREATE TABLE weather_2013_03 PARTITION OF weather FOR VALUES FROM ('2013-03-01Z') TO ('2013-04-01Z')"
    TOPIC = "INSERT INTO topics (generation, topic_id, name) VALUES (1, gen_random_uuid(), %s) ON CONFLICT DO NOTHING"
    FIRST = """
        INSERT INTO positions (topic_id, partition, first_offset, next_offset)
        SELECT topic_id, p, 0, 0 FROM topics, generate_series(0, 1) AS p ON CONFLICT DO NOTHING
    """
    MOVE = "UPDATE positions SET next_offset = next_offset + 6"
    ROWS = """
        INSERT INTO weather (date_time, msg_offset, partition, topic_generation, value)
        SELECT at, next_offset + n, partition, 1, %s::jsonb || jsonb_build_object('observed_at', said,
            'collected_at', said)
        FROM positions, generate_series(0, 5) AS n,
            LATERAL (SELECT '2013-03-30T20:30:00Z'::timestamptz + n * interval '1 hour') AS time (at),
            to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS said
    """

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.rows = 0
        with closing(open_database(tenant.settings, "test")) as database, database, database.cursor() as cursor:
            cursor.execute(self.MONTH)
            cursor.execute(self.TOPIC, (tenant.settings.topic_name,))

    def give(self) -> None:
        """Add a slice to export."""
        message = json.dumps(tiers.recorded_message())
        with closing(connect(self.tenant.settings, "test")) as database, database, database.cursor() as cursor:
            cursor.execute(self.FIRST)
            cursor.execute(self.ROWS, (message,))
            cursor.execute(self.MOVE)
        self.rows += ROWS

    def assert_whole(self) -> None:
        """Fail unless each row is in exactly one segment, and the books, the manifests and the files agree."""
        found = sorted((row["partition"], row["msg_offset"]) for _, _, row in tiers.read_lines(self.tenant))
        assert found == sorted(self.tenant.query("SELECT partition, msg_offset FROM weather"))
        assert len(found) == len(set(found)) == self.rows
        report = reconcile_tiers(self.tenant.settings, deep=True)
        assert report.mismatches == []
        assert [day.pending for day in report.days] == [["to be aggregated"]] * 2


Command = Callable[[Settings], object]


def told(tenant: Tenant, command: Command = export_once) -> MeteoError | None:
    """Run a command, and return what it told instead of ending well."""
    try:
        command(tenant.settings)
    except MeteoError as error:
        return error
    return None


def merge(settings: Settings) -> None:
    """Merge the days that have ended."""
    with closing(open_database(settings, "test")) as database:
        compact(settings, database)


def run_apart(command: Command, values: Mapping[str, Any]) -> None:
    """Run a command in another process, with settings of these values."""
    command(Settings.model_construct(**values))
