"""What the table `days` says of each day: changed, aggregated, given to HBase."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from meteo_common.database import transaction


@dataclass(frozen=True)
class DayState:
    """One row of `days`."""

    day: date
    files_version: int
    aggregated_version: int
    generation: int
    published_generation: int
    hbase_generation: int
    hbase_stations: list[str]
    changed_at: datetime
    merge_begun_at: datetime | None
    merged_version: int
    expired_rows: int
    """Rows that the day had when it expired; late rows may have come since."""
    emptied: bool
    """It has expired, and nothing has come since."""
    expiring: bool
    """Its expiry has begun and not ended."""

    @property
    def changed(self) -> bool:
        """The aggregates in HDFS are not, or may not be, those of the files."""
        return self.files_version > self.aggregated_version or self.generation > self.published_generation

    @property
    def owed_to_hbase(self) -> bool:
        """HBase does not hold the published aggregates in whole."""
        return self.published_generation > self.hbase_generation


class Ledger:
    """Reads and writes `days`."""

    STATES = """
        SELECT day, files_version, aggregated_version, generation, published_generation, hbase_generation,
            hbase_stations, changed_at, merge_begun_at, merged_version,
            (SELECT coalesce(sum(rows), 0)::bigint FROM expired_days WHERE expired_days.day = days.day),
            EXISTS (SELECT FROM expired_days AS gone WHERE gone.day = days.day
                AND gone.files_version = days.files_version),
            EXISTS (SELECT FROM expired_days AS gone WHERE gone.day = days.day AND expired_at IS NULL)
        FROM days
    """
    # From the clock, so that a ledger restored from a backup still gives out more than HBase has seen.
    GIVE_OUT = """
        UPDATE days SET generation = greatest(generation + 1, %s) WHERE day = ANY(%s) RETURNING day, generation
    """
    PUBLISHED = """
        UPDATE days SET published_generation = done.generation, aggregated_version = done.version, aggregated_at = now()
        FROM unnest(%s::date[], %s::bigint[], %s::bigint[]) AS done (day, version, generation)
        WHERE days.day = done.day AND days.generation = done.generation
    """
    MAY_HOLD = """
        UPDATE days SET hbase_stations = ARRAY(SELECT DISTINCT unnest(hbase_stations || %s::text[])) WHERE day = %s
    """
    HOLDS = "UPDATE days SET hbase_generation = %s, hbase_stations = %s WHERE day = %s"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def states(self, days: Collection[date] | None = None) -> dict[date, DayState]:
        """Return the state of these days, or of all."""
        with transaction(self._connection) as cursor:
            return read_states(cursor, days)

    def give_out(self, days: Collection[date]) -> dict[date, int]:
        """Return a new generation for the aggregates of each day: milliseconds of the clock, always growing.

        From here to `published` the day counts as changed.
        """
        with transaction(self._connection) as cursor:
            cursor.execute(self.GIVE_OUT, (time.time_ns() // 1_000_000, list(days)))
            return {day: int(generation) for day, generation in cursor.fetchall()}

    def published(self, versions: Mapping[date, int], generations: Mapping[date, int]) -> None:
        """Note that the aggregates of the files' versions lie in HDFS, as these generations.

        A day for which another generation was given out meanwhile stays changed.
        """
        days = list(generations)
        with transaction(self._connection) as cursor:
            cursor.execute(self.PUBLISHED, (days, [versions[day] for day in days], [generations[day] for day in days]))

    def may_hold(self, stations: Mapping[date, Sequence[str]]) -> None:
        """Note, before HBase is written, which rows it may hold from now on."""
        with transaction(self._connection) as cursor:
            for day, names in stations.items():
                cursor.execute(self.MAY_HOLD, (list(names), day))

    def holds(self, written: Mapping[date, tuple[int, Sequence[str]]]) -> None:
        """Note that HBase holds these generations in whole, with just these stations."""
        with transaction(self._connection) as cursor:
            for day, (generation, stations) in written.items():
                cursor.execute(self.HOLDS, (generation, list(stations), day))


def read_states(cursor: Cursor, days: Collection[date] | None = None) -> dict[date, DayState]:
    """Return the state of these days, or of all, in the transaction of this cursor."""
    if days is None:
        cursor.execute(f"{Ledger.STATES} ORDER BY day")
    else:
        cursor.execute(f"{Ledger.STATES} WHERE day = ANY(%s) ORDER BY day", (list(days),))
    return {row[0]: DayState(*row) for row in cursor.fetchall()}
