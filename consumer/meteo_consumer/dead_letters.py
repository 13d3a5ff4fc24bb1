"""Dead letters: listed, shown, and replayed as new records that say where they come from.

Before a letter is sent, that is committed to PostgreSQL; after its acknowledgement, where the new record lies. A replay
that died in between leaves the letter in doubt: the next one looks in the topic for a record with its origin headers,
and sends it only when there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
import psycopg2.errors
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extras import execute_values

from meteo_common.database import transaction
from meteo_common.errors import RefusedError, UsageError
from meteo_common.message import decode

log = structlog.get_logger()

ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET = "origin_topic", "origin_partition", "origin_offset"
STATES = ("new", "replayed", "all")
# 'lett' in ASCII: replays of one database exclude one another.
_REPLAY_LOCK = 0x6C657474
_JSONB_REFUSES = (psycopg2.DataError, psycopg2.errors.ProgramLimitExceeded, psycopg2.errors.StatementTooComplex)

Headers = list[tuple[str, bytes | None]]


@dataclass(frozen=True)
class Letter:
    """A record that is not a valid message, as it was consumed; `headers` as far as they were UTF-8."""

    dead_letter_id: int
    topic: str
    topic_generation: int
    partition: int
    msg_offset: int
    record_timestamp: datetime | None
    record_key: bytes | None
    headers: list[list[str | None]]
    value: bytes | None
    reason: str
    state: str
    received_at: datetime
    replay_started_at: datetime | None
    replayed_at: datetime | None
    replay_partition: int | None
    replay_offset: int | None

    @property
    def in_doubt(self) -> bool:
        """A replay has begun to send it and did not live to note the outcome."""
        return self.state == "new" and self.replay_started_at is not None

    @property
    def origin(self) -> Origin:
        """Where the record lies that became this letter."""
        return (self.topic, self.partition, self.msg_offset)

    def replay_headers(self) -> Headers:
        """Return the record's headers and the three that say where it comes from, which replace older ones."""
        own = (ORIGIN_TOPIC, ORIGIN_PARTITION, ORIGIN_OFFSET)
        kept = [(str(name), None if text is None else text.encode()) for name, text in self.headers if name not in own]
        return kept + [(name, str(value).encode()) for name, value in zip(own, self.origin, strict=True)]


Origin = tuple[str, int, int]
"""(topic, partition, offset) of the record that a replayed one stands for."""


class DeadLetters:
    """The table `dead_letters`."""

    FIELDS = ", ".join(Letter.__dataclass_fields__)
    LIST = f"""
        SELECT {FIELDS} FROM dead_letters WHERE (%(state)s = 'all' OR state = %(state)s)
            AND position(lower(%(reason)s) IN lower(reason)) > 0
        ORDER BY dead_letter_id DESC LIMIT %(limit)s
    """  # noqa: S608
    # Values and numbers in reasons differ from record to record; the sentence around them is the reason.
    REASONS = """
        SELECT regexp_replace(reason, '''[^'']*''|(?<![A-Za-z]-?)[0-9][0-9.]*', '…', 'g') AS kind, count(*)
        FROM dead_letters WHERE (%(state)s = 'all' OR state = %(state)s)
            AND position(lower(%(reason)s) IN lower(reason)) > 0
        GROUP BY kind ORDER BY 2 DESC, 1
    """
    GET = f"SELECT {FIELDS} FROM dead_letters WHERE dead_letter_id = ANY(%s) ORDER BY dead_letter_id"  # noqa: S608
    NEXT = f"""
        SELECT {FIELDS} FROM dead_letters WHERE state = 'new' AND dead_letter_id > %s
        ORDER BY dead_letter_id LIMIT %s
    """  # noqa: S608
    LOCK = "SELECT pg_try_advisory_lock(%s)"
    WAIT = "SELECT pg_advisory_lock(%s)"
    BEGUN = "UPDATE dead_letters SET replay_started_at = clock_timestamp() WHERE dead_letter_id = ANY(%s)"
    REPLAYED = """
        UPDATE dead_letters SET state = 'replayed', replayed_at = now(), replay_partition = done.partition,
            replay_offset = done.msg_offset
        FROM (VALUES %s) AS done (id, partition, msg_offset) WHERE dead_letter_id = done.id
    """
    PROBE = "SELECT %s::text::jsonb IS NULL"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self, *, reason: str, state: str, limit: int) -> list[Letter]:
        """Return the newest letters in a state, or all, whose reason contains a text."""
        return self._letters(self.LIST, {"reason": reason, "state": state, "limit": limit})

    def reasons(self, *, reason: str, state: str) -> dict[str, int]:
        """Return how many letters there are of each kind of reason, the most frequent first."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.REASONS, {"reason": reason, "state": state})
            return {kind: int(number) for kind, number in cursor.fetchall()}

    def get(self, ids: Sequence[int]) -> list[Letter]:
        """Return these letters; raises UsageError when there is no such letter."""
        letters = self._letters(self.GET, (list(ids),))
        for missing in sorted(set(ids) - {letter.dead_letter_id for letter in letters}):
            raise UsageError(f"There is no dead letter {missing}; ./meteo dead-letters list shows those that are.")
        return letters

    def next_new(self, after: int, limit: int) -> list[Letter]:
        """Return letters in the state `new` with ids above `after`, in their order."""
        return self._letters(self.NEXT, (after, limit))

    def lock(self) -> None:
        """Wait until no other replay of this database runs, and keep others out until this session ends."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.LOCK, (_REPLAY_LOCK,))
            if not (cursor.fetchone() or (False,))[0]:
                log.warning("waiting for another replay of dead letters")
                cursor.execute(self.WAIT, (_REPLAY_LOCK,))

    def mark_begun(self, ids: Sequence[int]) -> None:
        """Note that these are about to be sent."""
        with transaction(self._connection) as cursor:
            cursor.execute(self.BEGUN, (list(ids),))

    def mark_replayed(self, done: dict[int, tuple[int, int]]) -> None:
        """Note where the new records lie: id → (partition, offset)."""
        with transaction(self._connection) as cursor:
            execute_values(cursor, self.REPLAYED, [(number, *place) for number, place in done.items()])

    def refusal(self, value: bytes | None) -> str | None:
        """Return the reason for which these bytes would become a dead letter now; None when they would be a row."""
        try:
            decode(value)
        except RefusedError as error:
            return str(error)
        try:
            with transaction(self._connection) as cursor:
                cursor.execute(self.PROBE, ((value or b"").decode("utf-8"),))
        except _JSONB_REFUSES as error:
            return f"JSONB cannot hold it: {str(error).splitlines()[0]}"
        return None

    def _letters(self, statement: str, parameters: Any) -> list[Letter]:
        with transaction(self._connection) as cursor:
            cursor.execute(statement, parameters)
            return [_letter(row) for row in cursor.fetchall()]


def _letter(row: tuple[Any, ...]) -> Letter:
    facts = dict(zip(Letter.__dataclass_fields__, row, strict=True))
    for name in ("record_key", "value"):
        facts[name] = None if facts[name] is None else bytes(facts[name])
    return Letter(**facts)
