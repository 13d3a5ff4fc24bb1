"""The lock of a day: export, merge, aggregate and expire of one day exclude one another through PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import transaction

log = structlog.get_logger()

# 'days' in ASCII: the first half of the two-part advisory lock, the day's ordinal is the second.
_CLASS = 0x64617973
# 'clim' in ASCII, likewise.
_CLIMATE = 0x636C696D


def still_held(connection: Connection) -> None:
    """Raise UnreachableError when the session that holds the locks is gone, and with it the locks."""
    with transaction(connection) as cursor:
        cursor.execute("SELECT 1")


@contextmanager
def day_locks(connection: Connection, days: Iterable[date]) -> Iterator[None]:
    """Hold the locks of these days; taken in the order of the days, so that no two holders wait for each other.

    They belong to the session: a process that dies leaves none behind.
    """
    taken: list[date] = []
    try:
        for day in sorted(set(days)):
            _lock(connection, _CLASS, day.toordinal(), "the day", day=day.isoformat())
            taken.append(day)
        yield
    finally:
        with suppress(psycopg2.Error), connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_unlock(%s, day) FROM unnest(%s::int[]) AS day",
                (_CLASS, [day.toordinal() for day in taken]),
            )


@contextmanager
def climate_lock(connection: Connection) -> Iterator[None]:
    """Hold the lock of the climate's file: whoever publishes it does so alone."""
    _lock(connection, _CLIMATE, 0, "the climate")
    try:
        yield
    finally:
        with suppress(psycopg2.Error), connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, 0)", (_CLIMATE,))


def _lock(connection: Connection, kind: int, number: int, what: str, **facts: str) -> None:
    with transaction(connection) as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (kind, number))
        if (cursor.fetchone() or (False,))[0]:
            return
        log.warning(f"waiting for another command that works on {what}", **facts)
        cursor.execute("SELECT pg_advisory_lock(%s, %s)", (kind, number))
