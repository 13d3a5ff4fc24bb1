"""The engine `local`: processes of this machine, one per core; small inputs stay in this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import posixpath
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby

from meteo_common.errors import TransientError
from meteo_hadoop.engine import Result
from meteo_hadoop.job import Job, Key, gather, merge, reduce_groups
from meteo_hadoop.readahead import lines_of
from meteo_hadoop.source import Opener

POOL_FROM_SECONDS = 2.0
"""A pool takes 0.5 s to start; below this much work, one process is as fast."""
SECONDS_PER_BYTE = 1 / 800e6
SECONDS_PER_FILE = 0.004
"""Measured on one core: 1.2 KB lines at 700,000/s; two WebHDFS requests of small files."""
TASK_BYTES = 64 << 20
TASK_FILES = 16
"""A task's winners are in memory at once: 64 MB of lines are about 50,000 rows."""
_UNKNOWN_SIZE = 1 << 20
_PR_SET_PDEATHSIG = 1

Progress = Callable[[int], None]
"""Called with the number of files that were read since it was called last."""


@dataclass(frozen=True)
class _Task:
    paths: tuple[str, ...]
    # A task that shares a folder with another one cannot reduce: its partitions are surely elsewhere too.
    reduces: bool
    # Of these partitions only (None: of all), for the second look at partitions that were found in two tasks.
    partitions: frozenset[Key] | None = None


@dataclass(frozen=True)
class _Part:
    lines: list[tuple[Key, bytes]]
    records: list[tuple[Key, bytes]]
    counters: dict[str, int]


class LocalEngine:
    """MapReduce over processes.

    Files of one folder make one task, whose process maps, combines and reduces them: rows then never cross
    processes. That a partition lies in one folder is a guess that the engine checks; where it is wrong, the tasks
    concerned hand over that partition's combined records and it is reduced from all of them.

    `processes`: None for one per core. `sizes`: bytes by path where known, which makes tasks equal.
    """

    name = "local"

    def __init__(
        self,
        source: Opener,
        processes: int | None = None,
        sizes: Mapping[str, int] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._source = source
        self._processes = processes or len(os.sched_getaffinity(0))
        self._sizes = sizes or {}
        self._progress = progress or (lambda _: None)

    def run(self, job: Job, inputs: Sequence[str]) -> Result:
        """Run `job` over all lines of `inputs`; raises what the source raises."""
        tasks = self._tasks(inputs)
        counters: Counter[str] = Counter()
        with self._workers(inputs, tasks) as work:
            parts = []
            for task, part in zip(tasks, work(job, tasks), strict=True):
                counters.update(part.counters)
                self._progress(len(task.paths))
                parts.append(part)
            contested = _contested(parts)
            again = [
                _Task(task.paths, reduces=False, partitions=contested)
                for task, part in zip(tasks, parts, strict=True)
                if task.reduces and any(partition in contested for partition, _ in part.lines)
            ]
            shared = [*parts, *work(job, again)]
        lines = [(key, line) for part in parts for key, line in part.lines if key not in contested]
        records = ((key, job.decode(value)) for part in shared for key, value in part.records)
        lines += reduce_groups(job, merge(job, records))
        lines.sort()
        return Result(lines, dict(counters))

    def _size(self, path: str) -> int:
        return self._sizes.get(path, _UNKNOWN_SIZE)

    def _tasks(self, inputs: Sequence[str]) -> list[_Task]:
        """Return the inputs as tasks, folders whole, except that a folder far too large for one is divided."""
        tasks: list[_Task] = []
        bundle: list[str] = []
        for _, members in groupby(sorted(set(inputs)), key=posixpath.dirname):
            paths = list(members)
            total = sum(map(self._size, paths))
            if total > 8 * TASK_BYTES and len(paths) > 1 and self._processes > 1:
                tasks += [_Task(tuple(share), reduces=False) for share in _shares(paths, self._size)]
                continue
            bundle += paths
            if len(bundle) >= TASK_FILES or sum(map(self._size, bundle)) >= TASK_BYTES:
                tasks.append(_Task(tuple(bundle), reduces=True))
                bundle = []
        if bundle:
            tasks.append(_Task(tuple(bundle), reduces=True))
        return tasks

    @contextlib.contextmanager
    def _workers(
        self, inputs: Sequence[str], tasks: Sequence[_Task]
    ) -> Iterator[Callable[[Job, Sequence[_Task]], Iterable[_Part]]]:
        """Give a function that runs tasks: here, or in processes if that is worth their start."""
        workers = min(self._processes, len(tasks))
        seconds = sum(self._size(path) * SECONDS_PER_BYTE + SECONDS_PER_FILE for path in inputs)
        if workers < 2 or seconds < POOL_FROM_SECONDS:
            yield lambda job, some: (_work(job, self._source, task) for task in some)
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)

        def run(job: Job, some: Sequence[_Task]) -> Iterator[_Part]:
            futures = [pool.submit(_work, job, self._source, task) for task in some]
            for future in futures:
                yield future.result()

        try:
            yield run
        except BrokenProcessPool:
            raise TransientError(
                "A worker process of the aggregation was killed (out of memory?); try again."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _work(job: Job, source: Opener, task: _Task) -> _Part:
    counters: Counter[str] = Counter()

    def count(name: str, number: int) -> None:
        counters[name] += number

    with _no_collection():
        groups = gather(job, lines_of(source, task.paths), count)
        if task.reduces:
            return _Part(reduce_groups(job, groups), [], dict(counters))
        wanted, fields = task.partitions, job.partition_fields
        records = [
            (key, job.encode(value)) for key, value in groups.items() if wanted is None or key[:fields] in wanted
        ]
        return _Part([], records, dict(counters))


def _contested(parts: Sequence[_Part]) -> frozenset[Key]:
    """Return the partitions of which more than one part knows."""
    seen: Counter[Key] = Counter()
    for part in parts:
        seen.update({partition for partition, _ in part.lines})
    return frozenset(key for key, number in seen.items() if number > 1)


def _shares(paths: Sequence[str], size: Callable[[str], int]) -> Iterator[list[str]]:
    share: list[str] = []
    total = 0
    for path in paths:
        share.append(path)
        total += size(path)
        if total >= TASK_BYTES:
            yield share
            share, total = [], 0
    if share:
        yield share


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Rows hold no cycles: looking for some among 50,000 of them took a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _begin_worker() -> None:
    """End with the parent, even if it is killed; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
