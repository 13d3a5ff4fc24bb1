"""Files of days → daily aggregates: the engine local against DuckDB, Spark and steps of JSON; yarn against identity."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import json_steps
from benchmarks.days import ZONE, stations_of, write_days
from benchmarks.duckdb_peer import aggregate_by_duckdb
from benchmarks.hdfs_days import HdfsDays, run_identity
from benchmarks.local_files import LocalFiles
from benchmarks.measuring import CORES, Arm, Measured, Options, ratio, take_turns
from benchmarks.processes import Accounts
from benchmarks.same import check
from benchmarks.spark_peer import Spark
from meteo_common.errors import TerminalError
from meteo_hadoop.daily import daily_job
from meteo_hadoop.engine import Engine, Result
from meteo_hadoop.local import LocalEngine
from meteo_hadoop.yarn import YarnEngine

MESSAGES = 1_000_000
FIGURE = "rows_per_second"
_PIPE = 'mapper="$1 mapper $2" reducer="$1 reducer $2"; shift 2; cat "$@" | $mapper | LC_ALL=C sort | $reducer'
Lines = list[dict[str, Any]]


def measure(options: Options) -> Measured:
    """Measure 1,000,000 rows of 1.2 KB (1.45 KB as a line), in 24 days of 3 files."""
    number = options.messages or MESSAGES
    with TemporaryDirectory(prefix="meteo-bench-") as folder:
        sizes = write_days(Path(folder), number)
        measured = (_on_yarn if options.engine == "yarn" else _locally)(options, sizes, number)
    measured.notes |= {
        "rows": number,
        "bytes": sum(sizes.values()),
        "files": len(sizes),
        "stations": stations_of(number),
    }
    return measured


def _locally(options: Options, sizes: Mapping[str, int], number: int) -> Measured:
    """Let all programs read the same local files, which are in the page cache: none of the others reads WebHDFS."""
    paths = list(sizes)
    engine = LocalEngine(LocalFiles(), processes=CORES, sizes=sizes)
    wanted = lines_of(run(engine, paths, number))
    with ExitStack() as stack:
        work: dict[str, Callable[[], Lines]] = {
            "engine": lambda: lines_of(run(engine, paths, number)),
            "duckdb": lambda: aggregate_by_duckdb(paths),
            "json_steps": lambda: _by_json_steps(sizes),
        }
        accounts = {}
        if options.peer:
            spark = stack.enter_context(Spark("daily.py", ZONE, str(CORES)))
            accounts["spark"] = spark.pid
            work["spark"] = lambda: list(spark.ask({"paths": paths})["rows"])
            # Its code is compiled while it runs; the first query would tell of that.
            check("spark", work["spark"](), wanted)
        counted = Accounts(accounts)
        arms = {name: partial(_timed, name, does, counted, wanted, number) for name, does in work.items()}
        measured = Measured(take_turns(arms, options.runs))
    for name in list(work)[1:]:
        measured.ratios[f"ratio_to_{name}"] = ratio(measured.runs, ("engine", FIGURE), (name, FIGURE))
    return measured


def _timed(name: str, work: Callable[[], Lines], accounts: Accounts, wanted: Lines, number: int) -> dict[str, float]:
    """Return rows/s and the processor's seconds; what was computed must be what is wanted."""
    used: dict[str, float] = {}
    with accounts.counting(used):
        started = time.monotonic()
        found = work()
        seconds = time.monotonic() - started
    check(name, found, wanted)
    return {FIGURE: number / seconds, **used}


def _by_json_steps(sizes: Mapping[str, int]) -> Lines:
    """Run one pipe of mapper, sort and reducer for each core, each with its share of the days."""
    days = sorted({str(Path(path).parent) for path in sizes})
    command = f"{sys.executable} {json_steps.__file__}"
    pipes = []
    for share in range(CORES):
        paths = [path for path in sizes if str(Path(path).parent) in days[share::CORES]]
        arguments = ["sh", "-c", _PIPE, "sh", command, ZONE, *paths]
        pipes.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True))
    lines = [json.loads(line) for pipe in pipes for line in pipe.communicate()[0].splitlines()]
    if any(pipe.returncode for pipe in pipes):
        raise TerminalError("A pipe of mapper, sort and reducer failed; its last words are above.")
    return sorted(lines, key=lambda fields: (fields["date"], fields["station_id"]))


def _on_yarn(options: Options, sizes: Mapping[str, int], number: int) -> Measured:
    """Measure both jobs on the stack's YARN, from its HDFS."""
    with HdfsDays() as days:
        there = days.upload(sizes)
        engine = YarnEngine(days.settings, sizes=there)
        wanted = lines_of(run(LocalEngine(LocalFiles(), processes=CORES, sizes=sizes), list(sizes), number))

        def aggregate() -> dict[str, float]:
            started = time.monotonic()
            found = lines_of(run(engine, list(there), number))
            seconds = time.monotonic() - started
            check("yarn", found, wanted)
            return {FIGURE: number / seconds, "seconds": seconds}

        def identity() -> dict[str, float]:
            seconds = run_identity(engine, there)
            return {FIGURE: number / seconds, "seconds": seconds}

        arms: dict[str, Arm] = {"yarn": aggregate, "identity": identity}
        measured = Measured(take_turns(arms, options.runs))
    measured.ratios["ratio_to_identity"] = ratio(measured.runs, ("yarn", "seconds"), ("identity", "seconds"))
    return measured


def run(engine: Engine, paths: Sequence[str], number: int) -> Result:
    """Return the aggregates by an engine, which must have read `number` good lines."""
    result = engine.run(daily_job(ZONE, None), paths)
    if result.lines_read != number or result.bad_lines:
        raise TerminalError(f"The engine {engine.name} read {result.counters}, expected {number} good lines.")
    return result


def lines_of(result: Result) -> Lines:
    """Return the fields of each line."""
    return [json.loads(line) for _, line in result.lines]
