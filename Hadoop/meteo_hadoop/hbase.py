"""The aggregates in HBase: the table `weather`, one row per station and day.

Row key `<station_id>#<YYYY-MM-DD>`, family `aggregates`, one column per field, UTF-8. A number is the very text it has
in the line of `aggregates.jsonl`, so that equal means equal character by character; a text is itself, without quotes.
A field that is null has no column: HBase has no null, and an empty text would be a value.

A cell's timestamp is the generation of the day's aggregates. Writing generation G deletes the row at G−1, and with it
the columns that are no longer written, then puts at G. Repeating G changes nothing, and what an older writer still
sends stays under the delete or behind the newer put.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from math import isfinite
from operator import itemgetter
from typing import Any, Self, TypeVar

import happybase
from thriftpy2.thrift import TException

from meteo_common.days import parse_day
from meteo_common.errors import UnreachableError
from meteo_common.failpoints import reach
from meteo_common.settings import Settings

FAMILY = "aggregates"
BATCH_ROWS = 1000
"""Rows sent at once: in batches HBase takes 21,000 rows/s, one by one 1,330."""
WRITERS = 4
"""Batches in flight at once: while one is prepared or waits for the disk, others are written."""
# Milliseconds, for connecting and for an answer: making a table takes 2 s, 1,095 rows with their deletes 0.4 s.
_TIMEOUT = 30_000

T = TypeVar("T")


@dataclass(frozen=True)
class DayWrite:
    """A day's aggregates: `rows` as parsed lines, and the stations whose rows are withdrawn."""

    day: date
    generation: int
    rows: Sequence[Mapping[str, Any]]
    withdrawn: Sequence[str] = ()


@dataclass(frozen=True)
class StoredRow:
    """A row as HBase has it; `generation` is the greatest timestamp of its cells."""

    station_id: str
    day: date
    fields: dict[str, str]
    generation: int


@dataclass(frozen=True)
class ForeignRow:
    """A row that is none of ours: its key is no station and day, or its cells are no text."""

    key: bytes


class AggregateTable:
    """The table, over one connection to the Thrift server.

    A connection that broke, or that the server dropped as idle, is made again once and the call repeated; then
    UnreachableError. Not for use by several threads.
    """

    def __init__(self, host: str, port: int, name: str) -> None:
        self._host, self._port, self._name = host, port, name
        self._connection: happybase.Connection | None = None

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return HBASE_TABLE at HBASE_HOST:HBASE_PORT, made if it is not there; raises UnreachableError."""
        table = cls(settings.hbase_host, settings.hbase_port, settings.hbase_table)
        table._call(table._make)
        return table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            with suppress(OSError, EOFError, TException):
                self._connection.close()
            self._connection = None

    def names(self) -> list[str]:
        """Return the names of all tables in HBase. Raises UnreachableError."""
        return self._call(lambda _: [name.decode() for name in self._open().tables()])

    def drop(self) -> None:
        """Delete the table with all that is in it; none there is fine. Raises UnreachableError.

        Whoever connects next makes it again.
        """
        self._call(self._drop)

    def write_day(
        self, day: date, generation: int, rows: Sequence[Mapping[str, Any]], withdrawn: Sequence[str] = ()
    ) -> None:
        """Write the aggregates of one day as generation `generation`; see `write_days`."""
        self.write_days([DayWrite(day, generation, rows, withdrawn)])

    def write_days(self, writes: Sequence[DayWrite]) -> None:
        """Write many days; days of one generation share their batches.

        Repeating a write is harmless, a write of an older generation is without effect. Raises UnreachableError.
        """
        generations: dict[int, list[DayWrite]] = defaultdict(list)
        for write in writes:
            generations[write.generation].append(write)
        for generation, members in sorted(generations.items()):
            puts = {row_key(str(row["station_id"]), write.day): row for write in members for row in write.rows}
            gone = [row_key(station_id, write.day) for write in members for station_id in write.withdrawn]
            # In the order of keys, so that a batch meets few regions.
            self._send(_delete, sorted({*puts, *gone}), generation - 1)
            reach("hbase.after_delete")
            self._send(_put, sorted(puts.items(), key=itemgetter(0)), generation)
            reach("hbase.after_put")

    def row(self, station_id: str, day: date) -> StoredRow | None:
        """Return one row, None when there is none."""
        key = row_key(station_id, day)
        found = self._call(lambda table: table.row(key, columns=[FAMILY.encode()], include_timestamp=True))
        row = _stored(key, found) if found else None
        return row if isinstance(row, StoredRow) else None

    def scan(
        self, first: bytes = b"", after: bytes | None = None, *, newest: bool = False
    ) -> Iterator[StoredRow | ForeignRow]:
        """Yield the rows from key `first` up to, not including, `after` in the order of keys (station, day).

        `newest`: only the last of them, found from the end.
        """
        if newest:
            yield from (_stored(key, found) for key, found in self._page(after, first, 1, backwards=True))
            return
        start: bytes | None = first
        while start is not None:
            page = self._page(start, after, BATCH_ROWS)
            for key, found in page:
                yield _stored(key, found)
            # The next key in the order of bytes; a page that is not full was the last.
            start = page[-1][0] + b"\0" if len(page) == BATCH_ROWS else None

    def _page(
        self, start: bytes | None, after: bytes | None, rows: int, *, backwards: bool = False
    ) -> list[tuple[bytes, dict[bytes, tuple[bytes, int]]]]:
        return self._call(
            lambda table: list(
                table.scan(
                    row_start=start,
                    row_stop=after,
                    columns=[FAMILY.encode()],
                    include_timestamp=True,
                    limit=rows,
                    batch_size=rows,
                    reverse=backwards,
                )
            )
        )

    def _send(self, add: Callable[[Any, Any], None], items: Sequence[Any], timestamp: int) -> None:
        """Send the items in batches, several at once; `add` puts an item into its batch."""
        batches = [items[first : first + BATCH_ROWS] for first in range(0, len(items), BATCH_ROWS)]

        def send(writer: AggregateTable, number: int) -> None:
            for some in batches[number::WRITERS]:
                writer._call(partial(_send_batch, add, some, timestamp))

        others = [AggregateTable(self._host, self._port, self._name) for _ in range(min(WRITERS, len(batches)) - 1)]
        with ExitStack() as stack, ThreadPoolExecutor(WRITERS) as pool:
            writers = [self, *(stack.enter_context(other) for other in others)]
            for sent in [pool.submit(send, writer, number) for number, writer in enumerate(writers)]:
                sent.result()

    def _drop(self, _: Any) -> None:
        connection = self._open()
        if self._name.encode() in connection.tables():
            connection.delete_table(self._name, disable=True)

    def _make(self, _: Any) -> None:
        connection = self._open()
        if self._name.encode() not in connection.tables():
            try:
                # One version: of a column only the newest generation means anything. Thrift's defaults have neither
                # Bloom filter nor block cache, which a table read by single rows wants.
                family = {"max_versions": 1, "bloom_filter_type": "ROW", "block_cache_enabled": True}
                connection.create_table(self._name, {FAMILY: family})
            except TException:
                # Another process may have made it meanwhile.
                if self._name.encode() not in connection.tables():
                    raise

    def _open(self) -> happybase.Connection:
        if self._connection is None:
            self._connection = happybase.Connection(self._host, self._port, timeout=_TIMEOUT)
        return self._connection

    def _call(self, action: Callable[[Any], T]) -> T:
        """Call `action` with the table, twice if the first connection breaks: generations make that safe."""
        try:
            return action(self._open().table(self._name))
        except (OSError, EOFError, TException):
            self.close()
        try:
            return action(self._open().table(self._name))
        except (OSError, EOFError, TException) as error:
            self.close()
            raise UnreachableError(
                f"HBase at {self._host}:{self._port} (HBASE_HOST, HBASE_PORT) cannot be used ({_brief(error)});"
                " is the stack up? (./meteo up)"
            ) from error


def _send_batch(add: Callable[[Any, Any], None], items: Sequence[Any], timestamp: int, table: Any) -> None:
    with table.batch(timestamp=timestamp, transaction=True) as batch:
        for item in items:
            add(batch, item)


def _delete(batch: Any, key: bytes) -> None:
    batch.delete(key, columns=[FAMILY.encode()])


def _put(batch: Any, item: tuple[bytes, Mapping[str, Any]]) -> None:
    key, row = item
    batch.put(key, cells(row))


def row_key(station_id: str, day: date) -> bytes:
    """Return `<station_id>#<YYYY-MM-DD>`; a station_id holds no '#'."""
    return f"{station_id}#{day.isoformat()}".encode()


def cells(row: Mapping[str, Any]) -> dict[bytes, bytes]:
    """Return the columns of a parsed aggregates line."""
    return {f"{FAMILY}:{name}".encode(): text.encode() for name, text in texts(row).items()}


def texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a parsed aggregates line as HBase holds them: null left out, numbers as their JSON text."""
    return {name: value if isinstance(value, str) else _json(value) for name, value in row.items() if value is not None}


def _json(value: Any) -> str:
    # json itself writes finite numbers by repr, with 1.5 µs around it: a third of what a row costs here.
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)
    return json.dumps(value)


def _stored(key: bytes, found: Mapping[bytes, tuple[bytes, int]]) -> StoredRow | ForeignRow:
    try:
        station_id, _, day_text = key.decode().rpartition("#")
        day = parse_day(day_text)
        fields = {name.decode().partition(":")[2]: value.decode() for name, (value, _) in found.items()}
    except ValueError:
        return ForeignRow(key)
    return StoredRow(station_id, day, fields, max(timestamp for _, timestamp in found.values()))


def _brief(error: BaseException) -> str:
    message = getattr(error, "message", None) or str(error)
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    lines = text.strip().splitlines()
    return lines[0].strip()[:200] if lines else type(error).__name__
