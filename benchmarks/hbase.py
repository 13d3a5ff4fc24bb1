"""Aggregates → HBase: the platform's batches against the obvious writer, one put for each row."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, timedelta
from typing import Any

import happybase

from benchmarks.measuring import Arm, Measured, Options, ratio, take_turns
from benchmarks.processes import Accounts, find
from benchmarks.servers import Servers
from benchmarks.workload import STATIONS, make, small_answers
from meteo_common.errors import TerminalError
from meteo_common.settings import Settings
from meteo_hadoop.daily import daily_job
from meteo_hadoop.hbase import AggregateTable, DayWrite, cells, row_key
from meteo_hadoop.job import gather, reduce_groups

ROWS = 20_000
SINGLE_SHARE = 5
"""The arm of single puts writes one in so many rows; its rate does not depend on how many."""
EVERY = timedelta(hours=6)
A_DAY = 4
"""Messages of a station and day."""
ZONE = "UTC"

Day = tuple[date, Sequence[Mapping[str, Any]]]


def measure(options: Options) -> Measured:
    """Measure rates (rows/s) over the aggregates of real-shaped messages, 300 stations a day."""
    days = _aggregates(max(1, (options.messages or ROWS) // STATIONS))
    single = days[: max(1, len(days) // SINGLE_SHARE)]
    with Servers() as servers:
        accounts = Accounts(
            {
                "hbase": find("HMaster", str(servers.directory)),
                "thrift": find("ThriftServer", str(servers.directory)),
                "datanode": find("DataNode", str(servers.directory)),
            }
        )

        def arm(write: Callable[[Settings, Sequence[Day]], float], days: Sequence[Day]) -> Arm:
            def run() -> dict[str, float]:
                settings = servers.make_table()
                used: dict[str, float] = {}
                AggregateTable.connect(settings).close()
                with accounts.counting(used):
                    seconds = write(settings, days)
                rows = _check(settings, days)
                return {"rows_per_second": rows / seconds, **used}

            return run

        arms = {
            "batches": arm(_write_days, days),
            "batches_again": arm(_write_again, days),
            "single_puts": arm(_put_each, single),
        }
        measured = Measured(take_turns(arms, options.runs), notes=servers.facts())
    measured.notes["rows"] = sum(len(rows) for _, rows in days)
    measured.notes["columns_a_row"] = len(cells(days[0][1][0]))
    figure = "rows_per_second"
    for name in ("batches", "batches_again"):
        ending = name.removeprefix("batches")
        measured.ratios[f"ratio_to_single_puts{ending}"] = ratio(measured.runs, (name, figure), ("single_puts", figure))
    return measured


def _aggregates(number: int) -> list[Day]:
    """Return so many days with the aggregates that the platform's job makes of messages."""
    job = daily_job(ZONE, None)
    lines = (
        b'{"date_time": "%s", "partition": %d, "msg_offset": %d, "value": %s}'
        % (record.observed_at.isoformat().encode(), record.partition, record.offset, record.value)
        for record in make(*small_answers(), number * A_DAY * STATIONS, EVERY)
    )
    days: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for (day, *_), line in reduce_groups(job, gather(job, lines, lambda *_: None)):
        days[day].append(json.loads(line))
    return [(date.fromisoformat(day), rows) for day, rows in sorted(days.items())]


def _write_days(settings: Settings, days: Sequence[Day], generation: int = 1_000) -> float:
    """Write as `meteo aggregate` does: what the rows may hold is deleted, then all is put, in batches."""
    with AggregateTable.connect(settings) as table:
        started = time.monotonic()
        table.write_days([DayWrite(day, generation, rows) for day, rows in days])
        return time.monotonic() - started


def _write_again(settings: Settings, days: Sequence[Day]) -> float:
    """Write over what is there: the time of the second of two generations."""
    _write_days(settings, days)
    return _write_days(settings, days, 2_000)


def _put_each(settings: Settings, days: Sequence[Day]) -> float:
    """Put one row at a time, with nothing deleted."""
    with closing(happybase.Connection(settings.hbase_host, settings.hbase_port)) as connection:
        table = connection.table(settings.hbase_table)
        started = time.monotonic()
        for day, rows in days:
            for row in rows:
                table.put(row_key(str(row["station_id"]), day), cells(row))
        return time.monotonic() - started


def _check(settings: Settings, days: Sequence[Day]) -> int:
    """Return the rows; fail unless the table holds as many."""
    expected = sum(len(rows) for _, rows in days)
    with AggregateTable.connect(settings) as table:
        found = sum(1 for _ in table.scan())
    if found != expected:
        raise TerminalError(f"{found} rows were written into HBase, expected {expected}.")
    return expected
