"""The table `weather` is partitioned by UTC month; a month is made before the first batch that needs it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import transaction

# 'mont' in ASCII: all makers of months wait for one another.
_MONTHS_LOCK = 0x6D6F6E74


def month_name(year: int, month: int, state: str = "") -> str:
    """Return the table of a UTC month: `weather_2013_03`, or `weather_detached_2013_03` with the state `detached_`."""
    return f"weather_{state}{year:04d}_{month:02d}"


class Months:
    """Makes the months that a batch needs; remembers those that exist.

    Retention may detach a month that is remembered here: the batch is then refused (CheckViolation), and its writer
    lets the month be made anew, beside the detached one.
    """

    EXISTS = "SELECT to_regclass(%s) IS NOT NULL"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: set[tuple[int, int]] = set()

    def ensure(self, instants: Iterable[datetime]) -> None:
        """Make the missing months of aware datetimes, in a transaction of their own.

        CREATE … PARTITION OF would wait for every other writer's open batch; create-like and ATTACH does not.
        """
        months = {(utc.year, utc.month) for utc in (instant.astimezone(UTC) for instant in instants)}
        missing = sorted(months - self._known)
        if not missing:
            return
        with transaction(self._connection) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MONTHS_LOCK,))
            for year, month in missing:
                self._make(cursor, year, month)
        self._known.update(missing)

    def forget(self) -> None:
        """Look again at the next batch: a month that was there may have been detached by retention."""
        self._known.clear()

    def _make(self, cursor: Cursor, year: int, month: int) -> None:
        name = month_name(year, month)
        cursor.execute(self.EXISTS, (name,))
        if (cursor.fetchone() or (False,))[0]:
            return
        following = (year + month // 12, month % 12 + 1)
        identifier = sql.Identifier(name)
        cursor.execute(sql.SQL("CREATE TABLE {} (LIKE weather INCLUDING ALL)").format(identifier))
        cursor.execute(
            sql.SQL("ALTER TABLE weather ATTACH PARTITION {} FOR VALUES FROM (%s) TO (%s)").format(identifier),
            (f"{year:04d}-{month:02d}-01 00:00:00+00", f"{following[0]:04d}-{following[1]:02d}-01 00:00:00+00"),
        )
