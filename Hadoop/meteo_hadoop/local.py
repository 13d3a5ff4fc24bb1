"""The engine `local`: processes of this machine, one per core; small inputs stay in this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import os
import posixpath
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from types import ModuleType

from meteo_common.errors import TransientError
from meteo_hadoop.engine import Result
from meteo_hadoop.job import Job, Key, combine_sorted, gather, reduce_groups, reduce_sorted
from meteo_hadoop.readahead import lines_of
from meteo_hadoop.source import Opener

POOL_FROM_SECONDS = 2.0
"""A pool takes half a second to start; below this much work, one process is as fast."""
SECONDS_PER_BYTE = 1 / 150e6
SECONDS_PER_FILE = 0.004
"""Measured on one core: 7 to 10 µs for a line of 1.5 KB; 1,460 small files over WebHDFS in 7 s."""
TASK_BYTES = 64 << 20
TASK_FILES = 16
"""What a process is given at a time; a larger folder is one task nevertheless, up to 8 times as large."""
_UNKNOWN_SIZE = 1 << 20
_PR_SET_PDEATHSIG = 1

Progress = Callable[[int], None]
"""Called with the number of files that were read since it was called last."""


@dataclass(frozen=True)
class _Task:
    paths: tuple[str, ...]
    # A task that shares a folder with another one cannot reduce: its partitions are surely elsewhere too.
    reduces: bool = True
    # Of these partitions only (None: of all), for the second look at partitions that were found in two tasks.
    partitions: frozenset[Key] | None = None


@dataclass(frozen=True)
class _Part:
    """What a task has come to: reduced lines, or combined records in text."""

    lines: list[tuple[Key, bytes]]
    records: list[tuple[Key, bytes]]
    counters: dict[str, int]


_Run = Callable[[Job, Sequence[_Task]], Iterator[_Part]]


class LocalEngine:
    """MapReduce over processes.

    The files of one folder are one task, mapped, combined and reduced in one process: rows then never cross
    processes, and only a folder's winners are in memory (with 8 folders' it took a quarter more time). That a
    partition lies in one folder is a guess that the engine checks; where it is wrong, the tasks
    concerned hand over that partition's combined records and it is reduced from all of them. Tasks of a job whose
    partitions span the folders do so at once.

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
        tasks = self._tasks(job, inputs)
        counters: Counter[str] = Counter()
        with self._workers(tasks) as work:
            parts = []
            for task, part in zip(tasks, work(job, tasks), strict=True):
                counters.update(part.counters)
                self._progress(len(task.paths))
                parts.append(part)
            contested = _contested(parts, job.partition_fields)
            again = [
                _Task(task.paths, reduces=False, partitions=contested)
                for task, part in zip(tasks, parts, strict=True)
                if any(partition in contested for partition, _ in part.lines)
            ]
            shared = [*parts, *work(job, again)]
        lines = [(key, line) for part in parts for key, line in part.lines if key not in contested]
        # Decoded one after the other: of a job whose partitions span the folders, these are all its records.
        records = sorted((record for part in shared for record in part.records), key=itemgetter(0))
        lines += reduce_sorted(job, combine_sorted(job, ((key, job.decode(value)) for key, value in records)))
        lines.sort()
        return Result(lines, dict(counters))

    def _size(self, path: str) -> int:
        return self._sizes.get(path, _UNKNOWN_SIZE)

    def _tasks(self, job: Job, inputs: Sequence[str]) -> list[_Task]:
        """Return the inputs as tasks, folders whole, except that a folder far too large for one is divided."""
        tasks: list[_Task] = []
        for _, members in groupby(sorted(set(inputs)), key=posixpath.dirname):
            paths = tuple(members)
            if self._processes > 1 and self._total(paths) > 8 * TASK_BYTES:
                tasks += [_Task(share, reduces=False) for share in self._shares(paths)]
            else:
                tasks.append(_Task(paths, reduces=not job.partitions_span_folders))
        return tasks

    def _total(self, paths: Iterable[str]) -> int:
        return sum(map(self._size, paths))

    def _shares(self, paths: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Divide paths into shares of about a task's size."""
        share: list[str] = []
        for path in paths:
            if share and (len(share) >= TASK_FILES or self._total(share) >= TASK_BYTES):
                yield tuple(share)
                share = []
            share.append(path)
        if share:
            yield tuple(share)

    def _bundles(self, tasks: Sequence[_Task]) -> Iterator[list[_Task]]:
        """Give small tasks to a process together, so that their files are read ahead of each other."""
        bundle: list[_Task] = []
        for task in tasks:
            held = [path for some in bundle for path in some.paths]
            if held and (len(held) >= TASK_FILES or self._total(held) >= TASK_BYTES):
                yield bundle
                bundle = []
            bundle.append(task)
        if bundle:
            yield bundle

    @contextlib.contextmanager
    def _workers(self, tasks: Sequence[_Task]) -> Iterator[_Run]:
        """Give a function that runs tasks, in their order: here, or in processes if that is worth their start."""
        bundles = list(self._bundles(tasks))
        workers = min(self._processes, len(bundles))
        files = [path for task in tasks for path in task.paths]
        seconds = self._total(files) * SECONDS_PER_BYTE + len(files) * SECONDS_PER_FILE
        if workers < 2 or seconds < POOL_FROM_SECONDS:
            yield lambda job, some: _work(job, self._source, some)
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)

        def run(job: Job, some: Sequence[_Task]) -> Iterator[_Part]:
            with _without_main():
                futures = [pool.submit(_work_out, job, self._source, bundle) for bundle in self._bundles(some)]
            for future in futures:
                yield from future.result()

        try:
            yield run
        except BrokenProcessPool:
            raise TransientError(
                "A worker process of the aggregation was killed (out of memory?); try again."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _work_out(job: Job, source: Opener, tasks: Sequence[_Task]) -> list[_Part]:
    return list(_work(job, source, tasks))


def _work(job: Job, source: Opener, tasks: Sequence[_Task]) -> Iterator[_Part]:
    """Run tasks one after the other, their files read ahead."""
    for task, lines in zip(tasks, lines_of(source, [task.paths for task in tasks]), strict=True):
        with _no_collection():
            part = _part(job, task, lines)
        yield part


def _part(job: Job, task: _Task, lines: Iterator[bytes]) -> _Part:
    counters: Counter[str] = Counter()

    def count(name: str, number: int) -> None:
        counters[name] += number

    groups = gather(job, lines, count)
    if task.reduces:
        return _Part(reduce_groups(job, groups), [], dict(counters))
    wanted, fields = task.partitions, job.partition_fields
    records = [(key, job.encode(value)) for key, value in groups.items() if wanted is None or key[:fields] in wanted]
    return _Part([], records, dict(counters))


def _contested(parts: Sequence[_Part], fields: int) -> frozenset[Key]:
    """Return the partitions of which more than one part knows."""
    seen: Counter[Key] = Counter()
    for part in parts:
        seen.update({partition for partition, _ in part.lines} | {key[:fields] for key, _ in part.records})
    return frozenset(key for key, number in seen.items() if number > 1)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not import the program that was started: all of the command line took each 1.1 s."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Rows hold no cycles: looking for some took 6 % of the time."""
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
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(1)  # it died before there was a signal to send
