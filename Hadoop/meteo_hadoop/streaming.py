"""The roles of a job as filters of lines, for Hadoop Streaming or by hand.

    cat weather_*.json | python -m meteo_hadoop.streaming mapper daily --zone Europe/Paris \\
        | LC_ALL=C sort | python -m meteo_hadoop.streaming reducer daily --zone Europe/Paris

`climate` in place of `daily` is the other job. Between the roles a line is the key's fields and the value, separated by
tabs; the reducer writes the partition's fields and the result. A `combiner` may stand, any number of times, wherever
lines are sorted. Counters go to standard error in the form that Hadoop Streaming reads. Runs on Python 3.11 alone; with
msgspec beside it, several times faster.
"""

from __future__ import annotations

import json
import sys
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from meteo_hadoop import climate, daily
from meteo_hadoop.job import Job, Key, Value, combine_sorted, reduce_sorted

JOBS: dict[str, Callable[[Mapping[str, str]], Job]] = {
    "daily": daily.from_parameters,
    "climate": climate.from_parameters,
}
"""How a job is built again from its name and parameters."""
COUNTERS = "meteo"
"""The group of our counters among Hadoop's."""
PACKED_JOB = "job.json"
PACKED_ZONES = "zoneinfo"
_CHUNK = 1 << 20
# Winners held before they are written: 20,000 rows are 20 MB, in a container of 256 MB.
_HELD = 20_000

Record = tuple[Key, Value]


def run_role(role: str, job: Job, lines: Iterable[bytes], write: Callable[[bytes], object]) -> dict[str, int]:
    """Run one role over `lines` (without newlines), give its output to `write`, and return its counters."""
    counters: Counter[str] = Counter()

    def count(name: str, number: int) -> None:
        counters[name] += number

    if role == "mapper":
        output = _encoded(job, _combined(job, job.mapper(lines, count)))
    elif role == "combiner":
        output = _encoded(job, combine_sorted(job, _decoded(job, lines)))
    elif role == "reducer":
        reduced = reduce_sorted(job, combine_sorted(job, _decoded(job, lines)))
        output = (b"\t".join([*map(str.encode, partition), line]) for partition, line in reduced)
    else:
        raise SystemExit(f"There is no role {role}; expected mapper, combiner or reducer.")
    for line in output:
        write(line + b"\n")
    return dict(counters)


def _combined(job: Job, records: Iterable[Record]) -> Iterator[Record]:
    """Combine in the mapper's memory: a combiner's process would decode and encode every record once more."""
    held: dict[Key, Value] = {}
    for key, value in records:
        if key in held:
            held[key] = job.combiner(held[key], value)
            continue
        if len(held) >= _HELD:
            yield from held.items()
            held.clear()
        held[key] = value
    yield from held.items()


def _encoded(job: Job, records: Iterable[Record]) -> Iterator[bytes]:
    return (b"\t".join([*map(str.encode, key), job.encode(value)]) for key, value in records)


def _decoded(job: Job, lines: Iterable[bytes]) -> Iterator[Record]:
    for line in lines:
        *key, value = line.split(b"\t", job.key_fields)
        yield tuple(map(bytes.decode, key)), job.decode(value)


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Return the lines of a stream without their newlines."""
    return chain.from_iterable(_blocks(stream))


def _blocks(stream: BinaryIO) -> Iterator[list[bytes]]:
    rest = b""
    while chunk := stream.read(_CHUNK):
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield lines
    if rest:
        yield [rest]


def _run(role: str, job: Job) -> None:
    counters = run_role(role, job, lines_of(sys.stdin.buffer), sys.stdout.buffer.write)
    sys.stdout.buffer.flush()
    for name, number in sorted(counters.items()):
        sys.stderr.write(f"reporter:counter:{COUNTERS},{name},{number}\n")


def run_packed(folder: str, role: str) -> None:
    """Run a role of the job that was packed into `folder`, by the time zones that were packed with it."""
    packed = json.loads((Path(folder) / PACKED_JOB).read_text("utf-8"))
    zoneinfo.reset_tzpath([str(Path(folder, PACKED_ZONES).resolve())])
    _run(role, JOBS[packed["name"]](packed["parameters"]))


def main(arguments: list[str]) -> None:
    """Run `ROLE JOB [--PARAMETER VALUE]...`."""
    try:
        role, name, *options = arguments
        parameters = {option.removeprefix("--"): value for option, value in zip(*[iter(options)] * 2, strict=True)}
        job = JOBS[name](parameters)
    except (ValueError, KeyError) as error:
        raise SystemExit(
            f"{error!r}; expected: mapper|combiner|reducer {'|'.join(JOBS)} --zone ZONE [--days D,D]"
        ) from None
    _run(role, job)


if __name__ == "__main__":
    main(sys.argv[1:])
