"""Running `meteo consume` as a process of its own, watched from PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from benchmarks.processes import Memory
from benchmarks.servers import PARTITIONS, environment, open_connection
from meteo_common.errors import TerminalError
from meteo_common.settings import Settings
from meteo_consumer.topic import open_consumer

METEO = Path(sys.executable).parent / "meteo"
LOOK_SECONDS = 0.02
"""How often the positions are looked at: the error of every time told here. A look takes 0.2 ms of a server process."""
PATIENCE_SECONDS = 300.0

TAKEN = "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM positions"


def consume_until_idle(settings: Settings, number: int) -> dict[str, float]:
    """Run the one-shot command over a topic of so many messages; return rows/s from its start to its last commit."""
    return _watch(settings, number, [["consume", "--until-idle"]], until_exit=True)


def consume_as_service(settings: Settings, number: int, processes: int) -> dict[str, float]:
    """Run so many deployed consumers, started together; they are stopped when all is taken."""
    return _watch(settings, number, [["consume"]] * processes, until_exit=False)


def read_topic(settings: Settings, number: int) -> Iterator[list[Any]]:
    """Yield so many records of the topic, as polled."""
    consumer = open_consumer(settings, group=None)
    partitions = [TopicPartition(settings.topic_name, partition) for partition in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    left = number
    while left:
        for records in consumer.poll(timeout_ms=500).values():
            yield records[:left]
            left -= len(records[:left])
    consumer.close()


def _watch(settings: Settings, number: int, commands: Sequence[Sequence[str]], *, until_exit: bool) -> dict[str, float]:
    """Return times in seconds from the start, rates in rows/s, memory in MiB.

    `steady_rows_per_second` leaves out the start: it is the rate between the first look that saw rows and the last.
    """
    connection = open_connection(settings)
    connection.autocommit = True
    started = time.monotonic()
    with connection.cursor() as cursor:
        running = [_start(settings, command) for command in commands]
        memories = [Memory(each.pid) for each in running]
        try:
            looks = _look(cursor, number, started, running)
            if until_exit:
                for each in running:
                    each.wait(PATIENCE_SECONDS)
            ended = time.monotonic() - started
        finally:
            for each in running:
                each.terminate()
            for each in running:
                each.communicate(timeout=20)
    connection.close()
    first, last = looks[0], looks[-1]
    steady = (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else number / last[0]
    figures = {
        "rows_per_second": number / last[0],
        "steady_rows_per_second": steady,
        "first_rows_after_seconds": first[0],
        "memory_peak_mib": max(memory.peak for memory in memories),
        "memory_at_quarter_mib": max(memory.at(0.25) for memory in memories),
        "memory_at_end_mib": max(memory.at(1.0) for memory in memories),
    }
    return {**figures, "exit_after_seconds": ended} if until_exit else figures


def _start(settings: Settings, command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [METEO, *command], env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _look(
    cursor: object, number: int, started: float, running: Sequence[subprocess.Popen[str]]
) -> list[tuple[float, int]]:
    """Return (seconds since the start, rows taken) of each look that saw progress, until all is taken."""
    looks: list[tuple[float, int]] = []
    while not looks or looks[-1][1] < number:
        cursor.execute(TAKEN)  # type: ignore[attr-defined]
        taken = cursor.fetchone()[0]  # type: ignore[attr-defined]
        now = time.monotonic() - started
        if taken > (looks[-1][1] if looks else 0):
            looks.append((now, taken))
        ended = next((each for each in running if each.poll() not in {None, 0}), None)
        if ended or now > PATIENCE_SECONDS:
            words = ended.communicate()[0] if ended else "it took too long"
            raise TerminalError(f"meteo consume took {taken} of {number} messages: {words.strip()[-300:]}")
        time.sleep(LOOK_SECONDS)
    return looks
