"""What PostgreSQL says of all tiers at one cut."""

from __future__ import annotations

from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import transaction
from meteo_hadoop.counts import PartitionCount
from meteo_hadoop.ledger import read_states
from meteo_hadoop.plans import Plans

PartitionKey = tuple[int, int]
"""(topic generation, partition)."""


class Books:
    """The counts of PostgreSQL, and what its ledger says of each day, all of one instant."""

    PARTITIONS = """
        SELECT topics.name, topics.generation, positions.partition, next_offset - first_offset,
            (SELECT count(*) FROM weather WHERE topic_generation = topics.generation
                AND weather.partition = positions.partition)
            + (SELECT coalesce(sum(rows), 0) FROM detached_partition_rows AS gone
                WHERE gone.topic_generation = topics.generation AND gone.partition = positions.partition),
            (SELECT count(*) FROM dead_letters WHERE topic_generation = topics.generation
                AND dead_letters.partition = positions.partition),
            (SELECT coalesce(sum(to_offset - from_offset), 0) FROM gaps WHERE gaps.topic_id = topics.topic_id
                AND gaps.partition = positions.partition),
            control_records
        FROM positions JOIN topics USING (topic_id) ORDER BY 2, 3
    """
    EXPORTED = "SELECT topic_generation, partition, next_offset FROM export_positions"
    # Rows of months that retention took out were all exported.
    ROWS = """
        SELECT day, sum(exported), sum(above) FROM (
            SELECT (date_time AT TIME ZONE %s)::date AS day,
                count(*) FILTER (WHERE msg_offset < next_offset) AS exported,
                count(*) FILTER (WHERE next_offset IS NULL OR msg_offset >= next_offset) AS above
            FROM weather LEFT JOIN export_positions USING (topic_generation, partition) GROUP BY 1
            UNION ALL SELECT day, rows, 0 FROM detached_day_rows
        ) AS counted GROUP BY day
    """

    def __init__(self, connection: Connection, time_zone: str) -> None:
        connection.set_isolation_level(ISOLATION_LEVEL_REPEATABLE_READ)
        with transaction(connection) as cursor:
            cursor.execute(self.PARTITIONS)
            self.partitions = [PartitionCount(row[0], *map(int, row[1:])) for row in cursor.fetchall()]
            cursor.execute(self.EXPORTED)
            self.exported: dict[PartitionKey, int] = {(row[0], row[1]): row[2] for row in cursor.fetchall()}
            cursor.execute(self.ROWS, (time_zone,))
            self.rows = {day: (int(below), int(above)) for day, below, above in cursor.fetchall()}
            self.states = read_states(cursor)
            cursor.execute(Plans.OPEN_DAYS)
            self.open_days = {day for (day,) in cursor.fetchall()}
