"""The plans made anew from the manifests: for a PostgreSQL that was restored to an earlier state than HDFS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from psycopg2.extensions import connection as Connection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from meteo_common.database import open_database, transaction
from meteo_common.errors import MismatchError, UsageError
from meteo_common.settings import Settings
from meteo_hadoop.compact import finish_merges
from meteo_hadoop.expire import finish_expiries, with_expired
from meteo_hadoop.locks import day_locks
from meteo_hadoop.manifest import Days, Manifest, Segment
from meteo_hadoop.plans import Plans
from meteo_hadoop.webhdfs import THREADS, FileSystem

PartitionKey = tuple[int, int]
"""(topic generation, partition)."""


@dataclass(frozen=True)
class Verified:
    """Days and segments that the manifests have; days of which PostgreSQL did not know all; rows not in HDFS yet."""

    days: int
    segments: int
    days_recovered: int
    rows_owed: int


class Recovery:
    """Replaces the plans, in one transaction, by those that the manifests stand for.

    What is behind a partition's last segment is planned by the next export. Rows before it that no manifest has are
    owed: they get open plans, cut at the bounds of the segments, so that in each day a plan is either in HDFS or not.
    """

    SEGMENTS = """
        CREATE TEMPORARY TABLE segments (day DATE, topic_generation INT, partition INT, from_offset BIGINT,
            to_offset BIGINT, rows BIGINT, first_observed_at TIMESTAMPTZ, last_observed_at TIMESTAMPTZ,
            generation BIGINT) ON COMMIT DROP;
        CREATE TEMPORARY TABLE pieces (topic_generation INT, partition INT, from_offset BIGINT, to_offset BIGINT)
            ON COMMIT DROP
    """
    CONSUMED = """
        SELECT generation, positions.partition, first_offset, positions.next_offset, exported.next_offset
        FROM positions JOIN topics USING (topic_id)
        LEFT JOIN export_positions AS exported
            ON exported.topic_generation = topics.generation AND exported.partition = positions.partition
    """
    OPEN = "SELECT topic_generation, partition, from_offset, to_offset FROM export_plans WHERE finished_at IS NULL"
    # Days whose manifest says more, or other things, than PostgreSQL: they are aggregated again, as a generation above
    # the one that HBase has seen.
    RECOVER_DAYS = """
        INSERT INTO days (day, files_version, generation)
        SELECT day, 1, max(generation) FROM segments
        WHERE NOT EXISTS (SELECT FROM export_plan_days JOIN export_plans USING (plan_id)
                WHERE export_plan_days.day = segments.day AND published_at IS NOT NULL
                    AND export_plans.topic_generation = segments.topic_generation
                    AND export_plans.partition = segments.partition
                    AND export_plans.from_offset = segments.from_offset)
            OR generation > coalesce((SELECT published_generation FROM days WHERE days.day = segments.day), 0)
        GROUP BY day
        ON CONFLICT (day) DO UPDATE SET files_version = days.files_version + 1, changed_at = now(),
            generation = greatest(days.generation, excluded.generation)
        RETURNING day
    """
    FORGET = "DELETE FROM export_plan_days; DELETE FROM export_plans"
    OWED = """
        CREATE TEMPORARY TABLE owed ON COMMIT DROP AS
        WITH missing AS MATERIALIZED (
            SELECT topic_generation, partition, msg_offset, date_time, (date_time AT TIME ZONE %(zone)s)::date AS day
            FROM weather WHERE NOT EXISTS (SELECT FROM segments
                WHERE segments.topic_generation = weather.topic_generation AND segments.partition = weather.partition
                    AND day = (date_time AT TIME ZONE %(zone)s)::date
                    AND msg_offset >= from_offset AND msg_offset < to_offset)
        )
        SELECT topic_generation, partition, from_offset, to_offset, day, count(*) AS rows,
            min(date_time) AS first_observed_at, max(date_time) AS last_observed_at
        FROM missing JOIN pieces USING (topic_generation, partition)
        WHERE msg_offset >= from_offset AND msg_offset < to_offset
        GROUP BY topic_generation, partition, from_offset, to_offset, day
    """
    PLAN = """
        INSERT INTO export_plans (topic_generation, partition, from_offset, to_offset)
        SELECT DISTINCT topic_generation, partition, from_offset, to_offset FROM owed;
        INSERT INTO export_plan_days (plan_id, day, rows, first_observed_at, last_observed_at)
        SELECT plan_id, day, rows, first_observed_at, last_observed_at
        FROM owed JOIN export_plans USING (topic_generation, partition, from_offset);
        INSERT INTO export_plans (topic_generation, partition, from_offset, to_offset, finished_at)
        SELECT topic_generation, partition, from_offset, max(to_offset), now() FROM segments GROUP BY 1, 2, 3
        ON CONFLICT DO NOTHING;
        INSERT INTO export_plan_days (plan_id, day, rows, first_observed_at, last_observed_at, published_at)
        SELECT plan_id, day, sum(rows), min(first_observed_at), max(last_observed_at), now()
        FROM (SELECT day, topic_generation, partition, from_offset, segments.rows, first_observed_at, last_observed_at
            FROM segments) AS found JOIN export_plans USING (topic_generation, partition, from_offset) GROUP BY 1, 2
    """
    ROWS_OWED = "SELECT coalesce(sum(rows), 0) FROM owed"

    def __init__(self, connection: Connection, time_zone: str) -> None:
        self._connection = connection
        self._time_zone = time_zone

    def recover(self, manifests: Mapping[date, Manifest]) -> Verified:
        """Make the plans anew; the caller holds the days' locks. Raises MismatchError, and then changes nothing."""
        for manifest in manifests.values():
            refuse_doubled(manifest)
        with transaction(self._connection) as cursor:
            cursor.execute(Plans.LOCK)
            pieces = self._pieces(cursor, manifests)
            cursor.execute(self.SEGMENTS)
            rows = [_row(*found) for found in _segments(manifests)]
            execute_values(cursor, "INSERT INTO segments VALUES %s", rows, page_size=1000)
            cut = [(*key, *piece) for key, bounds in pieces.items() for piece in pairwise(bounds)]
            execute_values(cursor, "INSERT INTO pieces VALUES %s", cut, page_size=1000)
            cursor.execute(self.RECOVER_DAYS)
            recovered = len(cursor.fetchall())
            cursor.execute(self.FORGET)
            cursor.execute(self.OWED, {"zone": self._time_zone})
            cursor.execute(self.PLAN)
            for key, bounds in pieces.items():
                cursor.execute(Plans.MOVE, (*key, bounds[-1]))
            cursor.execute(self.ROWS_OWED)
            (owed,) = cursor.fetchone() or (0,)
        return Verified(len(manifests), len(rows), recovered, int(owed))

    def _pieces(self, cursor: Cursor, manifests: Mapping[date, Manifest]) -> dict[PartitionKey, list[int]]:
        """Return per partition the offsets at which its plans may begin and end, from its first to the last planned."""
        bounds: dict[PartitionKey, set[int]] = defaultdict(set)
        for _, segment in _segments(manifests):
            bounds[segment.topic_generation, segment.partition] |= {segment.from_offset, segment.to_offset}
        in_hdfs = {key: max(found) for key, found in bounds.items()}
        cursor.execute(self.CONSUMED)
        consumed = {}
        for generation, partition, first, after, exported in cursor.fetchall():
            consumed[generation, partition] = after
            if exported is not None or (generation, partition) in bounds:
                bounds[generation, partition] |= {first, first if exported is None else exported}
        for (generation, partition), end in sorted(in_hdfs.items()):
            if (after := consumed.get((generation, partition), 0)) < end:
                raise MismatchError(
                    f"HDFS has records of partition {partition} (topic generation {generation}) up to offset {end},"
                    f" PostgreSQL only up to {after}: let the consumer catch up (./meteo consume --until-idle), then"
                    " run this again; nothing was changed."
                )
        cursor.execute(self.OPEN)
        for generation, partition, first, end in cursor.fetchall():
            bounds[generation, partition] |= {first, end}
        return {key: sorted(found) for key, found in bounds.items()}


def refuse_doubled(manifest: Manifest) -> None:
    """Raise MismatchError when two segments of the day have records in common."""
    found = sorted(
        ((segment.topic_generation, segment.partition), segment.from_offset, segment.to_offset, name)
        for name, segments in manifest.files.items()
        for segment in segments
    )
    for (key, first, end, name), (other_key, other_first, other_end, other_name) in pairwise(found):
        if key == other_key and other_first < end:
            raise MismatchError(
                f"{name} ({first}-{end}) and {other_name} ({other_first}-{other_end}) of {manifest.day} have records of"
                f" partition {key[1]} in common: rows are doubled there; restore the day's directory from a backup,"
                " nothing was changed."
            )


def verify(settings: Settings) -> Verified:
    """Compare the plans with the manifests of HDFS and make them anew from these.

    Raises MismatchError for ranges that overlap, or while the consumer has not caught up with HDFS; UsageError when
    the manifests were made in another time zone.
    """
    days = Days(FileSystem(settings), settings.hdfs_base_path)
    with closing(open_database(settings, "verify")) as database:
        Plans(database, settings.weather_timezone).check_time_zone(keep=False)
        finish_merges(settings, database)
        finish_expiries(settings, database)
        listed = days.listed()
        with day_locks(database, listed):
            with ThreadPoolExecutor(THREADS) as pool:
                read = dict(zip(listed, pool.map(days.read, listed), strict=True))
            manifests = {day: manifest for day, manifest in read.items() if manifest is not None}
            for manifest in manifests.values():
                if manifest.time_zone != settings.weather_timezone:
                    raise UsageError(
                        f"WEATHER_TIMEZONE is '{settings.weather_timezone}', the partition of {manifest.day} was made"
                        f" with '{manifest.time_zone}': set it back."
                    )
            return Recovery(database, settings.weather_timezone).recover(with_expired(database, manifests))


def _segments(manifests: Mapping[date, Manifest]) -> Iterator[tuple[Manifest, Segment]]:
    for manifest in manifests.values():
        for segments in manifest.files.values():
            for segment in segments:
                yield manifest, segment


def _row(manifest: Manifest, segment: Segment) -> tuple[object, ...]:
    return (
        manifest.day,
        segment.topic_generation,
        segment.partition,
        segment.from_offset,
        segment.to_offset,
        segment.rows,
        manifest.first_observed_at,
        manifest.last_observed_at,
        manifest.generation,
    )
