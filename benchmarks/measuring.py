"""How it is measured: arms take turns run by run, and what is told is the median of ratios, each made in one run."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from meteo_common.console import err

CORES = 2
"""All clients of all arms run on the same so many cores; the servers run where they like."""

PROGRAMS = (
    "kafka-python",
    "psycopg2-binary",
    "msgspec",
    "hdfs",
    "happybase",
    "confluent-kafka",
    "pyspark",
    "duckdb",
)

Run = dict[str, dict[str, float]]
"""What one run measured: figures by name, by arm."""
Arm = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Options:
    """What a person chose: how many runs, how many messages each (None: as many as that benchmark needs)."""

    runs: int
    messages: int | None = None
    peer: bool = True
    engine: str = "local"


@dataclass
class Measured:
    """What a benchmark returns: its runs as they were, and the ratios' pairs of (arm, arm, figure)."""

    runs: list[Run] = field(default_factory=list)
    ratios: dict[str, Mapping[str, float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def pin() -> list[int]:
    """Keep this process, and all that it starts, on the first CORES cores; return them."""
    if not hasattr(os, "sched_setaffinity"):  # macOS
        return []
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    return cores


def take_turns(arms: Mapping[str, Arm], runs: int) -> list[Run]:
    """Run the arms one after the other, `runs` times, each second time backwards: a drift hits all alike."""
    measured = []
    for number in range(runs):
        names = list(arms) if number % 2 == 0 else list(reversed(list(arms)))
        run: Run = {}
        for name in names:
            run[name] = {**arms[name](), "load_1m_before": os.getloadavg()[0]}
            told = ", ".join(f"{figure} {value:,.4g}" for figure, value in run[name].items())
            err.print(f"run {number + 1} of {runs}: {name}: {told}")
        measured.append({name: run[name] for name in arms})
    return measured


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least, greatest and median absolute deviation, to 4 digits."""
    median = statistics.median(values)
    told = {
        "median": median,
        "min": min(values),
        "max": max(values),
        "mad": statistics.median(abs(value - median) for value in values),
    }
    return {name: float(f"{value:.4g}") for name, value in told.items()}


def ratio(runs: Sequence[Run], above: tuple[str, str], below: tuple[str, str]) -> dict[str, float]:
    """Return the spread of a quotient of two (arm, figure), divided within each run."""
    return spread([run[above[0]][above[1]] / run[below[0]][below[1]] for run in runs])


def figures(runs: Sequence[Run]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the spread of each figure of each arm."""
    arms = runs[0] if runs else {}
    return {arm: {name: spread([run[arm][name] for run in runs]) for name in told} for arm, told in arms.items()}


def machine(cores: Sequence[int]) -> dict[str, Any]:
    """Return what the figures depend on, of this machine and its programs."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "client_cores": list(cores),
        "cpu": _proc("cpuinfo", "model name"),
        "memory": _proc("meminfo", "MemTotal"),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load_1m_before": os.getloadavg()[0],
        **{name: _version(name) for name in PROGRAMS},
    }


def write(path: Path, name: str, facts: Mapping[str, Any], measured: Measured) -> None:
    """Write a benchmark's result as JSON."""
    document = {
        "bench": name,
        "machine": facts,
        "runs": measured.runs,
        "figures": figures(measured.runs),
        "ratios": measured.ratios,
        "notes": measured.notes,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _proc(file: str, key: str) -> str | None:
    path = Path("/proc") / file
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
