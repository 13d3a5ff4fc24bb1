"""A MapReduce job as plain data, and what every engine does with it: map, combine, reduce.

A job knows nothing of processes, files or YARN, and an engine knows nothing of weather. Keys are tuples of texts that
sort by their bytes and hold no tab or newline; what a value is, only the job knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from itertools import groupby
from operator import itemgetter
from typing import Any

Key = tuple[str, ...]
Value = Any
Count = Callable[[str, int], None]
"""`count(name, n)` adds n to a counter of the job."""


@dataclass(frozen=True)
class Job:
    """A job of pure functions; everything in it can be pickled.

    `mapper(lines, count)` yields (key, value) for each good line; lines come without their newline.
    `combiner(a, b)` returns one of two values of the same key, or what stands for both: associative and commutative,
    because an engine applies it in any order, any number of times.
    `reducer(partition, records)` gets all records of one partition, each key once, sorted by key; it yields lines.
    `encode` and `decode` turn a value into bytes without tab or newline and back, where it crosses processes.
    `key_fields`, `partition_fields`: a key's length; how many of its first fields are reduced together.
    `name`, `parameters`: with these `streaming` builds the same job again on another machine.
    `zones`: time zones whose data travel with the job, so that every node reckons with the caller's.
    `partitions_span_folders`: a partition's lines lie all over the inputs; otherwise mostly in one folder.
    """

    name: str
    mapper: Callable[[Iterable[bytes], Count], Iterator[tuple[Key, Value]]]
    combiner: Callable[[Value, Value], Value]
    reducer: Callable[[Key, Iterable[tuple[Key, Value]]], Iterator[bytes]]
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value]
    key_fields: int
    partition_fields: int
    parameters: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[str, ...] = ()
    partitions_span_folders: bool = False


def gather(job: Job, lines: Iterable[bytes], count: Count, into: dict[Key, Value] | None = None) -> dict[Key, Value]:
    """Map `lines` and combine what has the same key; the result is `into`, or a new dict."""
    return merge(job, job.mapper(lines, count), into)


def merge(job: Job, records: Iterable[tuple[Key, Value]], into: dict[Key, Value] | None = None) -> dict[Key, Value]:
    """Combine records of the same key into one each; the result is `into`, or a new dict."""
    groups: dict[Key, Value] = {} if into is None else into
    combine = job.combiner
    first = groups.setdefault
    for key, value in records:
        held = first(key, value)
        if held is not value:
            groups[key] = combine(held, value)
    return groups


def combine_sorted(job: Job, records: Iterable[tuple[Key, Value]]) -> Iterator[tuple[Key, Value]]:
    """Combine neighbours of the same key, holding one key's at a time."""
    for key, members in groupby(records, key=itemgetter(0)):
        yield key, reduce(job.combiner, (value for _, value in members))


def reduce_sorted(job: Job, records: Iterable[tuple[Key, Value]]) -> Iterator[tuple[Key, bytes]]:
    """Reduce records sorted by key, each key once; yield (partition, line)."""
    fields = job.partition_fields
    reducer = job.reducer
    for partition, members in groupby(records, key=lambda record: record[0][:fields]):
        for line in reducer(partition, members):
            yield partition, line


def reduce_groups(job: Job, groups: dict[Key, Value]) -> list[tuple[Key, bytes]]:
    """Reduce what `gather` or `merge` returned; (partition, line) sorted by partition."""
    fields = job.partition_fields
    partitions: dict[Key, list[tuple[Key, Value]]] = {}
    # Sorted by the partition: its records mostly come in their order, and sorting them is then hardly any work.
    for record in groups.items():
        partition = record[0][:fields]
        if partition in partitions:
            partitions[partition].append(record)
        else:
            partitions[partition] = [record]
    return [
        (partition, line)
        for partition in sorted(partitions)
        for line in job.reducer(partition, sorted(partitions[partition], key=itemgetter(0)))
    ]
