"""PostgreSQL → HDFS: every row in exactly one file of its day.

A day is one thread's: its files straight from COPY, several at once, then its manifest, then the note in PostgreSQL.
Dying anywhere leaves an open plan, whose files come out the same the next time.
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import connect, open_database, transaction
from meteo_common.errors import MismatchError, UnreachableError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings
from meteo_hadoop.compact import Merger, finish_merges
from meteo_hadoop.expire import Expirer, finish_expiries
from meteo_hadoop.ledger import Ledger
from meteo_hadoop.locks import day_locks, still_held
from meteo_hadoop.manifest import Days, Manifest, Segment
from meteo_hadoop.parquet import write_stale
from meteo_hadoop.plans import PlannedFile, Plans, mark_published, open_files
from meteo_hadoop.webhdfs import THREADS, FileSystem, Written

log = structlog.get_logger()

CHUNK = 256 << 10
"""Bytes handed to HTTP at once: single rows of 1 KB would cost a system call each."""
CHUNKS_AHEAD = 16
"""4 MB between PostgreSQL and HDFS, so that neither waits for the other's pauses."""
DELIMITER = b"\x02"
"""Between a line's columns, and taken out again: JSON has control characters only escaped."""


@dataclass
class Exported:
    """What an export has written."""

    rows: int = 0
    bytes: int = 0
    days: set[date] = field(default_factory=set)
    seconds: float = 0.0


class Exporter:
    """Exports days, each as a whole; every thread of it has a connection of its own."""

    # COPY's text format would double every backslash: hence CSV whose quote and delimiter cannot occur in JSON. The
    # message is a column by itself: as a part of a text it would be copied four times, 2 of 13 µs a row. A topic made
    # again carries its generation, which decides between messages.
    COPY = """
        COPY (SELECT '{{"date_time": "' || to_char(date_time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
            || CASE WHEN date_time = date_trunc('second', date_time) THEN ''
                ELSE to_char(date_time AT TIME ZONE 'UTC', '.US') END
            || 'Z", "partition": ' || partition || ', "msg_offset": ' || msg_offset
            || CASE WHEN topic_generation > 1 THEN ', "topic_generation": ' || topic_generation ELSE '' END
            || ', "value": ', value, '}}'
        FROM weather WHERE topic_generation = {generation} AND partition = {partition}
            AND msg_offset >= {from_offset} AND msg_offset < {to_offset}
            AND date_time >= '{first}' AND date_time < '{last}' AND (date_time AT TIME ZONE '{zone}')::date = '{day}'
        ORDER BY msg_offset)
        TO STDOUT WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')
    """
    # The index has the rows in their order. Left to itself PostgreSQL reads the month, by several processes, once for
    # each file, and sorts it on disk: twice the work.
    BY_INDEX = "SET enable_sort = off; SET max_parallel_workers_per_gather = 0"

    def __init__(self, settings: Settings, filesystem: FileSystem) -> None:
        self._settings = settings
        self._days = Days(filesystem, settings.hdfs_base_path)
        self._filesystem = filesystem
        self._local = threading.local()
        self._connections: list[Connection] = []
        # A process of PostgreSQL prints with one core: the files of a single day, too, are printed side by side.
        self._files = ThreadPoolExecutor(THREADS, thread_name_prefix="export-file")

    def export_day(self, day: date) -> Exported:
        """Write what plans owe the day, under its lock."""
        connection = self._connection()
        with day_locks(connection, [day]):
            files = open_files(connection, day)
            if not files:
                return Exported()
            manifest = self._manifest(connection, day)
            there = {entry.name for entry in self._filesystem.list(self._days.directory(day))}
            due = []
            for file in files:
                if is_published(manifest, file):
                    continue
                refuse_overlap(manifest, file)
                manifest.files[file.name] = [_segment(file)]  # so that the next file is held against this one, too
                manifest.cover(file.first_observed_at, file.last_observed_at)
                due.append(file)
            exported = Exported(days={day})
            for file, written in zip(due, self._write(connection, due, there), strict=True):
                manifest.files[file.name] = [_segment(file, written)]
                exported.rows += written.lines
                exported.bytes += written.bytes
            reach("export.before_manifest")
            if exported.rows:
                still_held(connection)
                self._days.write(manifest)
            reach("export.after_manifest")
            mark_published(connection, day, files)
        reach("export.after_day")
        return exported

    def _manifest(self, connection: Connection, day: date) -> Manifest:
        ledger = Ledger(connection)
        state = ledger.states([day]).get(day)
        if state is not None and state.merge_begun_at is not None:
            Merger(self._settings).settle(connection, day)
        if state is not None and state.expiring:
            Expirer(self._settings, connection).settle(day)
            state = ledger.states([day])[day]
        manifest = self._days.read(day)
        if manifest is None and state is not None and not state.emptied:
            # A new one would drop what the day has already.
            raise MismatchError(f"{self._days.directory(day)} has lost its manifest; restore it from a backup.")
        return manifest or Manifest(day, self._settings.weather_timezone)

    def close(self) -> None:
        """Close the threads and their connections."""
        self._files.shutdown()
        for connection in self._connections:
            connection.close()

    def _connection(self) -> Connection:
        if not hasattr(self._local, "connection"):
            connection = connect(self._settings, "export")
            self._connections.append(connection)
            with transaction(connection) as cursor:
                cursor.execute(self.BY_INDEX)
            self._local.connection = connection
        kept: Connection = self._local.connection
        return kept

    def _write(self, locks: Connection, files: list[PlannedFile], there: set[str]) -> list[Written]:
        """Write the files of a day whose lock the session of `locks` holds. None is being written afterwards."""
        asking = threading.Lock()  # one connection runs one transaction at a time
        lost: list[UnreachableError] = []

        def write(file: PlannedFile) -> Written:
            return self._write_file(self._connection(), file, held, unexplained=file.name in there)

        def held() -> None:
            with asking:
                try:
                    if not lost:
                        still_held(locks)
                except UnreachableError as error:
                    lost.append(error)
                if lost:
                    raise lost[0]

        if len(files) == 1:  # spares a connection
            return [write(files[0])]
        futures = [self._files.submit(write, file) for file in files]
        wait(futures)
        return [future.result() for future in futures]

    def _write_file(
        self, connection: Connection, file: PlannedFile, held: Callable[[], None], *, unexplained: bool
    ) -> Written:
        # The bounds only tell PostgreSQL which months to read: in a few zones a clock once went back over midnight,
        # and a day was not one interval.
        first, last = file.day - timedelta(days=2), file.day + timedelta(days=3)
        statement = self.COPY.format(
            generation=file.topic_generation,
            partition=file.partition,
            from_offset=file.from_offset,
            to_offset=file.to_offset,
            first=first.isoformat(),
            last=last.isoformat(),
            zone=self._settings.weather_timezone,
            day=file.day.isoformat(),
        )

        def chunks() -> Iterator[bytes]:
            yield from copied(connection, statement)
            held()  # or another export may be writing this very file: then nothing is renamed

        reach("export.before_write")
        path = self._days.path(file.day, file.name)
        written = self._filesystem.publish(path, chunks(), file.rows, unexplained=unexplained)
        reach("export.after_rename")
        return written


def _segment(file: PlannedFile, written: Written | None = None) -> Segment:
    return Segment(
        partition=file.partition,
        from_offset=file.from_offset,
        to_offset=file.to_offset,
        rows=written.lines if written else file.rows,
        bytes=written.bytes if written else 0,
        sha256=written.sha256 if written else "",
        topic_generation=file.topic_generation,
    )


def export_once(settings: Settings, report: Callable[[int, int], None] = lambda *_: None) -> Exported:
    """Plan everything consumed so far, and write all that plans owe.

    `report(done, total)` is told of days. Raises UnreachableError when a server is away: the plans stay.
    """
    started = time.monotonic()
    total = Exported()
    database = open_database(settings, "export")
    filesystem = FileSystem(settings)
    exporter = Exporter(settings, filesystem)
    try:
        plans = Plans(database, settings.weather_timezone)
        plans.check_time_zone(keep=True)
        finish_merges(settings, database)
        finish_expiries(settings, database)
        filesystem.make_directory(settings.hdfs_base_path)
        plans.plan()
        days = plans.open_days()
        broken: list[MismatchError] = []
        with ThreadPoolExecutor(THREADS, thread_name_prefix="export") as pool:
            futures = [pool.submit(exporter.export_day, day) for day in days]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    _add(total, future, broken)
                    report(done, len(days))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        plans.finish()
        write_stale(settings, database)
    finally:
        exporter.close()
        database.close()
    if broken:
        more = f" ({len(broken) - 1} more days alike)" if len(broken) > 1 else ""
        raise MismatchError(f"{broken[0]} All other days were exported.{more}")
    total.seconds = time.monotonic() - started
    return total


def _add(total: Exported, future: Future[Exported], broken: list[MismatchError]) -> None:
    """Add a day's outcome; a day that does not add up must not keep the others back."""
    try:
        exported = future.result()
    except MismatchError as error:
        broken.append(error)
        return
    total.rows += exported.rows
    total.bytes += exported.bytes
    total.days |= exported.days


def is_published(manifest: Manifest, file: PlannedFile) -> bool:
    """Say whether the day has just these records already, in whatever file: an export died before it noted so.

    Raises MismatchError when the manifest has another number of rows for them.
    """
    for name, segments in manifest.files.items():
        for segment in segments:
            if (segment.topic_generation, segment.partition, segment.from_offset, segment.to_offset) == (
                file.topic_generation,
                file.partition,
                file.from_offset,
                file.to_offset,
            ):
                if segment.rows != file.rows:
                    raise MismatchError(
                        f"{name} of {file.day} holds {segment.rows} rows, PostgreSQL has {file.rows} for it: were rows"
                        " of the table weather changed? Restore them; nothing has been overwritten."
                    )
                return True
    return False


def refuse_overlap(manifest: Manifest, file: PlannedFile) -> None:
    """Raise MismatchError when another file of the day has some of these records already."""
    for name, segments in manifest.files.items():
        for segment in segments:
            same = (segment.topic_generation, segment.partition) == (file.topic_generation, file.partition)
            if same and segment.from_offset < file.to_offset and file.from_offset < segment.to_offset:
                raise MismatchError(
                    f"{file.name} of {file.day} overlaps {name}, which is there already: PostgreSQL was restored to an"
                    " earlier state than HDFS; run ./meteo export --verify."
                )


def copied(connection: Connection, statement: str) -> Iterator[bytes]:
    """Yield what a COPY … TO STDOUT prints, in chunks, without DELIMITER, while PostgreSQL goes on printing.

    Raises UnreachableError when the server breaks off: what was yielded is then not the whole.
    """
    chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(CHUNKS_AHEAD)
    sink = _Sink(chunks)

    def run() -> None:
        try:
            # psycopg2 writes once a row: into the interpreter's own buffer, without a line of Python for each.
            buffer = io.BufferedWriter(sink, CHUNK)
            with connection, connection.cursor() as cursor:
                cursor.copy_expert(statement, buffer)
            buffer.flush()
            chunks.put(None)
        except BaseException as error:  # told to the reader, who raises it
            chunks.put(error)

    thread = threading.Thread(target=run, name="copy", daemon=True)
    thread.start()
    try:
        while (chunk := chunks.get()) is not None:
            if isinstance(chunk, (psycopg2.OperationalError, psycopg2.InterfaceError)):
                raise UnreachableError(f"PostgreSQL broke off ({str(chunk).strip()}).") from chunk
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        sink.abandoned = True
        while thread.is_alive():
            while not chunks.empty():
                chunks.get_nowait()
            thread.join(0.01)


class _Sink(io.RawIOBase):
    """Hands buffers full of rows on as chunks."""

    def __init__(self, chunks: queue.Queue[bytes | BaseException | None]) -> None:
        self._chunks = chunks
        self._refused = False
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not self.abandoned:
            self._chunks.put(bytes(data).replace(DELIMITER, b""))
        elif not self._refused:  # once, which ends the COPY; then the buffer may be emptied
            self._refused = True
            raise BrokenPipeError("the file could not be written")
        return len(data)
