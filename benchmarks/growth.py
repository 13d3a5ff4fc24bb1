"""How the batch tier's cost grows: the same days with 10, 100 and 1,000 thousand rows, by both engines from HDFS."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.aggregate import run
from benchmarks.days import write_days
from benchmarks.hdfs_days import HdfsDays
from benchmarks.measuring import CORES, Arm, Measured, Options, Run, ratio, take_turns
from meteo_common.errors import TerminalError
from meteo_hadoop.engine import Engine, Result
from meteo_hadoop.local import LocalEngine
from meteo_hadoop.source import Source
from meteo_hadoop.yarn import YarnEngine

MESSAGES = 1_000_000
CLUSTERS = (1, 2, 4, 8, 16)
"""Times the cores that were measured: for each it is reckoned from what size on YARN is faster."""


def measure(options: Options) -> Measured:
    """Measure the seconds of a job of each engine over a hundredth, a tenth and all of 1,000,000 rows."""
    most = options.messages or MESSAGES
    numbers = [max(1, most // 100), max(1, most // 10), most]
    arms: dict[str, Arm] = {}
    with HdfsDays() as days:
        for number in numbers:
            with TemporaryDirectory(prefix="meteo-bench-") as folder:
                sizes = days.upload(write_days(Path(folder), number), str(number))
            seen: list[Result] = []
            source = Source(days.settings.hdfs_url, days.settings.hdfs_user)
            local = LocalEngine(source, processes=CORES, sizes=sizes)
            for engine in (local, YarnEngine(days.settings, sizes=sizes)):
                arms[f"{engine.name}_{number}"] = partial(_timed, engine, sizes, number, seen)
        measured = Measured(take_turns(arms, options.runs))
    for number in numbers:
        above, below = (f"yarn_{number}", "seconds"), (f"local_{number}", "seconds")
        measured.ratios[f"yarn_over_local_{number}"] = ratio(measured.runs, above, below)
    measured.notes["numbers"] = numbers
    measured.notes |= reckon({name: fit(measured.runs, name, numbers) for name in ("local", "yarn")})
    return measured


def _timed(engine: Engine, sizes: Mapping[str, int], number: int, seen: list[Result]) -> dict[str, float]:
    started = time.monotonic()
    result = run(engine, list(sizes), number)
    seconds = time.monotonic() - started
    seen.append(result)
    if result.lines != seen[0].lines:
        raise TerminalError(f"The engine {engine.name} returned other bytes than before.")
    return {"seconds": seconds, "rows_per_second": number / seconds, "bytes": float(sum(sizes.values()))}


def fit(runs: Sequence[Run], name: str, numbers: Sequence[int]) -> dict[str, float]:
    """Return an engine's line, seconds = fixed + marginal * bytes, by least squares over all runs."""
    points = [run[f"{name}_{number}"] for run in runs for number in numbers]
    line = statistics.linear_regression([each["bytes"] for each in points], [each["seconds"] for each in points])
    return {"fixed_seconds": line.intercept, "seconds_per_gb": line.slope * 1e9}


def reckon(lines: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the lines, and where they meet when YARN has k times the cores: None where they never do.

    More cores divide YARN's marginal cost, not its fixed one.
    """
    local, yarn = lines["local"], lines["yarn"]
    meet = {}
    for times in CLUSTERS:
        gained = local["seconds_per_gb"] - yarn["seconds_per_gb"] / times
        dearer = yarn["fixed_seconds"] - local["fixed_seconds"]
        meet[str(times)] = round(dearer / gained, 2) if gained > 0 else None
    return {"lines": {name: dict(line) for name, line in lines.items()}, "yarn_from_gb_by_times_the_cores": meet}
