"""Positions: up to where each partition of the topic has been taken, kept beside the rows themselves.

The position's row is the fence: whoever moves it from `before` to `after` owns the records between, and the rows
are written in that same transaction. Two consumers of one partition can therefore never both write a record.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import transaction
from meteo_common.errors import TerminalError, TransientError
from meteo_consumer.topic import TopicInfo

log = structlog.get_logger()


class FencedError(TransientError):
    """Somebody else has moved the position: roll back, read it again, go on from there."""


@dataclass(frozen=True)
class Generation:
    """A topic as it was created once; deleted and made again it is another generation."""

    number: int
    topic_id: UUID
    name: str


class Positions:
    """The positions of one topic in PostgreSQL."""

    KNOWN = "SELECT generation FROM topics WHERE topic_id = %s"
    OTHERS = "SELECT count(*) FROM topics WHERE name = %s"
    # One registration at a time; an identity column would lose a number to each consumer that dies in between.
    LOCK = "LOCK TABLE topics IN SHARE ROW EXCLUSIVE MODE"
    REGISTER = """
        INSERT INTO topics (generation, topic_id, name)
        SELECT coalesce(max(generation), 0) + 1, %s, %s FROM topics ON CONFLICT DO NOTHING
    """
    CREATE = """
        INSERT INTO positions (topic_id, partition, first_offset, next_offset) VALUES (%(id)s, %(partition)s,
        %(start)s, %(start)s) ON CONFLICT DO NOTHING
    """
    READ = "SELECT next_offset FROM positions WHERE topic_id = %s AND partition = %s"
    ADVANCE = """
        UPDATE positions SET next_offset = %(after)s, control_records = control_records + %(control)s,
        updated_at = now() WHERE topic_id = %(id)s AND partition = %(partition)s AND next_offset = %(before)s
    """
    GAP = "INSERT INTO gaps (topic_id, partition, from_offset, to_offset) VALUES (%s, %s, %s, %s)"

    def __init__(self, connection: Connection, topic: TopicInfo) -> None:
        self._connection = connection
        self.generation = self._register(topic)

    def position(self, partition: int, start: int, end: int) -> int:
        """Return the offset to go on from, given the log's start and end.

        No position yet: the log's start. Below it: what Kafka deleted becomes a row in `gaps`. Above the end:
        TerminalError, since going on would skip whatever is written there next.
        """
        keys = {"id": str(self.generation.topic_id), "partition": partition, "start": start}
        with transaction(self._connection) as cursor:
            cursor.execute(self.CREATE, keys)
            cursor.execute(self.READ, (str(self.generation.topic_id), partition))
            (position,) = cursor.fetchone() or (start,)
            if position < start:
                self.advance(cursor, partition, position, start, control=0)
                cursor.execute(self.GAP, (str(self.generation.topic_id), partition, position, start))
                log.error(
                    "gap: Kafka deleted records before they were taken", partition=partition, lost=start - position
                )
                position = start
        if position > end:
            raise TerminalError(
                f"The position of {self.generation.name} partition {partition} is {position}, the log ends at {end}:"
                " the log was cut back (a restored broker?); restore the database to the same time, or delete and"
                " create the topic, which starts a new generation."
            )
        return int(position)

    def advance(self, cursor: Cursor, partition: int, before: int, after: int, control: int) -> None:
        """Move the position inside the caller's transaction, or raise FencedError."""
        cursor.execute(
            self.ADVANCE,
            {
                "id": str(self.generation.topic_id),
                "partition": partition,
                "before": before,
                "after": after,
                "control": control,
            },
        )
        if cursor.rowcount != 1:
            raise FencedError(f"partition {partition} is no longer at {before}: another consumer has taken it over")

    def _register(self, topic: TopicInfo) -> Generation:
        identity = str(topic.topic_id)
        with transaction(self._connection) as cursor:
            cursor.execute(self.KNOWN, (identity,))
            row = cursor.fetchone()
            if row is None:
                cursor.execute(self.LOCK)
                cursor.execute(self.OTHERS, (topic.name,))
                (others,) = cursor.fetchone() or (0,)
                if others:
                    log.warning(
                        "the topic was made again: a new generation begins", topic=topic.name, topic_id=identity
                    )
                cursor.execute(self.REGISTER, (identity, topic.name))
                cursor.execute(self.KNOWN, (identity,))
                row = cursor.fetchone() or (0,)
        return Generation(int(row[0]), topic.topic_id, topic.name)
