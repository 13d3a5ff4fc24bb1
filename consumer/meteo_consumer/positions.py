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
    OTHERS = "SELECT count(*) FROM topics WHERE name = %s AND topic_id <> %s"
    # One registration at a time; an identity column would lose a number to each consumer that dies in between.
    LOCK = "LOCK TABLE topics IN SHARE ROW EXCLUSIVE MODE"
    REGISTER = """
        INSERT INTO topics (generation, topic_id, name)
        SELECT coalesce(max(generation), 0) + 1, %s, %s FROM topics ON CONFLICT DO NOTHING
    """
    CREATE = """
        INSERT INTO positions (topic_id, partition, first_offset, next_offset) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING
    """
    READ = "SELECT next_offset FROM positions WHERE topic_id = %s AND partition = %s"
    ADVANCE = """
        UPDATE positions SET next_offset = %(after)s, control_records = control_records + %(control)s,
        updated_at = now() WHERE topic_id = %(id)s AND partition = %(partition)s AND next_offset = %(before)s
        AND next_offset <= %(after)s
    """
    GAP = "INSERT INTO gaps (topic_id, partition, from_offset, to_offset) VALUES (%s, %s, %s, %s)"

    def __init__(self, connection: Connection, topic: TopicInfo) -> None:
        self._connection = connection
        self.generation = self._register(topic)

    def read(self, partition: int) -> int | None:
        """Return the position, None when the partition has none yet."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.READ, (str(self.generation.topic_id), partition))
            row = cursor.fetchone()
        return None if row is None else int(row[0])

    def settle(self, partition: int, position: int | None, start: int, end: int) -> int:
        """Return the offset to go on from, given what `read` returned and the log's start and end looked up after it.

        No position yet: the log's start. Below it: what Kafka deleted becomes a row in `gaps`. Above the end:
        TerminalError, since going on would skip whatever is written there next. Raises FencedError when another
        consumer was faster.
        """
        identity = str(self.generation.topic_id)
        if position is not None and position > end:
            raise TerminalError(
                f"The position of {self.generation.name} partition {partition} is {position}, the log ends at {end}:"
                " the log was cut back (a restored broker?); restore the database to the same time, or delete and"
                " create the topic, which starts a new generation."
            )
        if position is None:
            with transaction(self._connection) as cursor:
                cursor.execute(self.CREATE, (identity, partition, start, start))
                if cursor.rowcount != 1:
                    raise FencedError(f"partition {partition} has got its first position from another consumer")
        elif position < start:
            with transaction(self._connection) as cursor:
                self.advance(cursor, partition, position, start, control=0)
                cursor.execute(self.GAP, (identity, partition, position, start))
            log.error("gap: Kafka deleted records before they were taken", partition=partition, lost=start - position)
        return start if position is None else max(position, start)

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
                cursor.execute(self.REGISTER, (identity, topic.name))
                if cursor.rowcount == 1:
                    cursor.execute(self.OTHERS, (topic.name, identity))
                    self._tell_if_made_again(topic, *(cursor.fetchone() or (0,)))
                cursor.execute(self.KNOWN, (identity,))
                row = cursor.fetchone() or (0,)
        return Generation(int(row[0]), topic.topic_id, topic.name)

    def _tell_if_made_again(self, topic: TopicInfo, others: int) -> None:
        if others:
            log.warning(
                "the topic was made again: a new generation begins", topic=topic.name, topic_id=str(topic.topic_id)
            )
