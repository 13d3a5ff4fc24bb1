"""Work on many days at once: each thread on a connection of its own, which holds the locks of its days."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from typing import TypeVar

from psycopg2.extensions import connection as Connection  # noqa: N812

from meteo_common.database import connect
from meteo_common.settings import Settings
from meteo_hadoop.webhdfs import THREADS

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Told of (days done, days in all)."""


def each_day(
    settings: Settings, service: str, days: Sequence[date], work: Callable[[Connection, date], T], report: Report
) -> list[T]:
    """Return what `work` returns for each day, in any order; raises what it raises."""
    done = 0

    def share(own: Sequence[date]) -> list[T]:
        nonlocal done
        results = []
        with closing(connect(settings, service)) as connection:
            for day in own:
                results.append(work(connection, day))
                done += 1
                report(done, len(days))
        return results

    shares = [days[start::THREADS] for start in range(min(THREADS, len(days)))]
    with ThreadPoolExecutor(THREADS, thread_name_prefix=service) as pool:
        return [result for results in pool.map(share, shares) for result in results]
