"""Merging a day's small files into one, by WebHDFS CONCAT, when the day has ended.

CONCAT is atomic: it appends the other files to the first one and takes their names away, all at once. A reader that
lists `weather_*` therefore finds each row once, before and after. What it meets while it reads is told by the file
system: a name that has gone, or a first file longer than was listed, whose beginning is still what it was.

The manifest follows. Dying in between leaves a day that is noted as being merged; the next command that works on days
makes out from the files' lengths and digests what has become of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import transaction
from meteo_common.errors import MismatchError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.locks import day_locks, still_held
from meteo_hadoop.manifest import Days, Manifest
from meteo_hadoop.plans import open_files
from meteo_hadoop.webhdfs import FileSystem
from meteo_hadoop.workers import Report, each_day

log = structlog.get_logger()

SOURCES_AT_ONCE = 100
"""Their paths are in the request's URL, about 90 bytes each; Hadoop takes 64 KB of it."""


@dataclass(frozen=True)
class Merged:
    """What a run has merged."""

    days: int = 0
    files: int = 0


class Merger:
    """Merges days, each on a connection that holds the day's lock."""

    # Neither what has no files any more, nor what a merge that died has left: that is settled first.
    ENDED = """
        SELECT day FROM days WHERE day < %s AND merged_version < files_version AND merge_begun_at IS NULL
            AND NOT EXISTS (SELECT FROM expired_days AS gone WHERE gone.day = days.day
                AND gone.files_version = days.files_version)
        ORDER BY day LIMIT %s
    """
    INTERRUPTED = "SELECT day FROM days WHERE merge_begun_at IS NOT NULL ORDER BY day"
    BEGIN = "UPDATE days SET merge_begun_at = now() WHERE day = %s"
    END = "UPDATE days SET merge_begun_at = NULL WHERE day = %s"
    # Under the day's lock no file comes meanwhile.
    ONE = "UPDATE days SET merge_begun_at = NULL, merged_version = files_version WHERE day = %s"

    def __init__(self, settings: Settings) -> None:
        self._filesystem = FileSystem(settings)
        self._days = Days(self._filesystem, settings.hdfs_base_path)

    def merge(self, connection: Connection, day: date) -> Merged:
        """Merge the day's files into the first of them by name.

        A day that a plan still owes a file is left to the next time: the plan names files that must not have gone.
        """
        with day_locks(connection, [day]):
            manifest = self._days.read(day)
            if manifest is None or open_files(connection, day):
                return Merged()
            if len(manifest.files) < 2:
                _note(connection, self.ONE, day)
                return Merged()
            files = len(manifest.files)
            _note(connection, self.BEGIN, day)
            target, *sources = sorted(manifest.files)
            for first in range(0, len(sources), SOURCES_AT_ONCE):
                self._concat(connection, manifest, target, sources[first : first + SOURCES_AT_ONCE])
            _note(connection, self.ONE, day)
        return Merged(1, files)

    def settle(self, connection: Connection, day: date) -> None:
        """Bring the manifest in line with a merge that died; raises MismatchError when no merge left the day so."""
        with day_locks(connection, [day]):
            if day not in interrupted(connection):
                return  # it had not died, only not ended yet
            manifest = self._days.read(day)
            if manifest is None:
                raise MismatchError(f"{self._days.directory(day)} has lost its manifest; restore it from a backup.")
            present = {entry.name for entry in self._filesystem.list(self._days.directory(day))}
            target, *sources = sorted(manifest.files)
            take_over(manifest, target, [name for name in sources if name not in present])
            self._verify(manifest, target)
            self._days.write(manifest)
            _note(connection, self.END, day)
        log.info("finished a merge that had been interrupted", day=day.isoformat())

    def _concat(self, connection: Connection, manifest: Manifest, target: str, sources: Sequence[str]) -> None:
        still_held(connection)
        reach("compact.before_concat")
        day = manifest.day
        self._filesystem.concat(self._days.path(day, target), [self._days.path(day, name) for name in sources])
        reach("compact.after_concat")
        take_over(manifest, target, sources)
        expected, length = bytes_of(manifest, target), self._filesystem.length(self._days.path(day, target))
        if length != expected:
            raise MismatchError(
                f"{target} of {day} has {length} bytes, its segments {expected}; see ./meteo reconcile."
            )
        self._days.write(manifest)
        reach("compact.after_manifest")

    def _verify(self, manifest: Manifest, name: str) -> None:
        content = self._filesystem.read(self._days.path(manifest.day, name))
        start = 0
        for segment in manifest.files[name]:
            part = content[start : start + segment.bytes]
            start += segment.bytes
            if hashlib.sha256(part).hexdigest() != segment.sha256:
                raise MismatchError(
                    f"{name} of {manifest.day} is not what its merge made of it; see ./meteo reconcile."
                )
        if start != len(content):
            raise MismatchError(f"{name} of {manifest.day} has {len(content)} bytes, its segments {start}.")


def take_over(manifest: Manifest, target: str, sources: Sequence[str]) -> None:
    """Move the segments of `sources` behind those of `target`, in their order."""
    for name in sources:
        manifest.files[target] += manifest.files.pop(name)


def bytes_of(manifest: Manifest, name: str) -> int:
    """Return the bytes of a file's segments."""
    return sum(segment.bytes for segment in manifest.files[name])


def _note(connection: Connection, statement: str, day: date) -> None:
    with transaction(connection) as cursor:
        cursor.execute(statement, (day,))


def interrupted(connection: Connection) -> list[date]:
    """Return the days whose merge has begun and not ended."""
    with transaction(connection) as cursor:
        cursor.execute(Merger.INTERRUPTED)
        return [day for (day,) in cursor.fetchall()]


def finish_merges(settings: Settings, connection: Connection) -> None:
    """Finish the merges that were cut off; one that cannot be is told in the log and leaves the others alone."""
    for day in interrupted(connection):
        try:
            Merger(settings).settle(connection, day)
        except MismatchError as error:
            log.error("a merge cannot be finished", day=day.isoformat(), error=str(error))


def compact(
    settings: Settings, connection: Connection, report: Report = lambda *_: None, at_most: int | None = None
) -> Merged:
    """Merge the days that have ended and have more than one file, all or the oldest; `report` is told of days.

    Raises UnreachableError when a server is away: what was merged stays merged. Raises MismatchError for a day that
    is not what its manifest says, when the others are merged.
    """
    finish_merges(settings, connection)
    with transaction(connection) as cursor:
        cursor.execute(Merger.ENDED, (datetime.now(settings.zone).date(), at_most))
        days = [day for (day,) in cursor.fetchall()]
    broken: list[MismatchError] = []
    merger = Merger(settings)

    def merge(own: Connection, day: date) -> Merged:
        try:
            return merger.merge(own, day)
        except MismatchError as error:
            broken.append(error)
            return Merged()

    merged = each_day(settings, "compact", days, merge, report)
    if broken:
        raise MismatchError(f"{broken[0]} All other days were merged.")
    return Merged(sum(each.days for each in merged), sum(each.files for each in merged))
