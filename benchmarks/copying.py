"""The server's limit: ready rows through COPY, by clients that do nothing else."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from benchmarks.servers import open_connection
from benchmarks.workload import COPY
from meteo_common.settings import Settings

CHUNK = 1 << 20
_FORK = multiprocessing.get_context("fork")


def copy_in_threads(settings: Settings, forms: Sequence[bytes], connections: int) -> float:
    """Return the seconds to COPY and commit each of the forms through so many connections of one process.

    libpq sends without the interpreter's lock.
    """
    barrier = threading.Barrier(connections)
    with ThreadPoolExecutor(connections) as pool:
        shares = [forms[number::connections] for number in range(connections)]
        spans = list(pool.map(lambda share: _copy(settings, share, barrier), shares))
    return _whole(spans)


def copy_in_processes(settings: Settings, forms: Sequence[bytes], connections: int) -> float:
    """Return the seconds to COPY and commit each of the forms, with a process for each connection."""
    barrier = _FORK.Barrier(connections)
    spans: Any = _FORK.SimpleQueue()

    def work(share: Sequence[bytes]) -> None:
        spans.put(_copy(settings, share, barrier))

    workers = [_FORK.Process(target=work, args=(forms[number::connections],)) for number in range(connections)]
    for worker in workers:
        worker.start()
    told = [spans.get() for _ in workers]
    for worker in workers:
        worker.join()
    return _whole(told)


def _copy(settings: Settings, forms: Sequence[bytes], barrier: Any) -> tuple[float, float]:
    connection = open_connection(settings)
    with connection.cursor() as cursor:
        barrier.wait(30)
        started = time.monotonic()
        for form in forms:
            cursor.copy_expert(COPY, BytesIO(form), CHUNK)
            connection.commit()
        ended = time.monotonic()
    connection.close()
    return started, ended


def _whole(spans: Sequence[tuple[float, float]]) -> float:
    return max(ended for _, ended in spans) - min(started for started, _ in spans)
