"""What an engine is: it runs any job over any files, and every engine returns the same bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from meteo_hadoop.job import Job, Key

EngineName = Literal["auto", "local", "yarn"]


@dataclass(frozen=True)
class Result:
    """`lines`: (partition, line without newline) sorted by partition; `counters`: the job's, by name.

    `engine`: whose result it is, where a choice was left.
    """

    lines: list[tuple[Key, bytes]]
    counters: dict[str, int] = field(default_factory=dict)
    engine: str = ""

    def by_day(self) -> dict[str, list[tuple[str, bytes]]]:
        """Return day → [(station_id, line)] sorted by station_id, of a job whose partitions are (day, station_id)."""
        days: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for (day, station_id), line in self.lines:
            days[day].append((station_id, line))
        return dict(days)

    @property
    def lines_read(self) -> int:
        """Lines that were read, good and bad."""
        return self.counters.get("lines", 0)

    @property
    def bad_lines(self) -> dict[str, int]:
        """Lines that did not count, by reason."""
        return {name: number for name, number in self.counters.items() if name.startswith("bad_")}


class Engine(Protocol):
    """Something that runs jobs."""

    name: str

    def run(self, job: Job, inputs: Sequence[str]) -> Result:
        """Run `job` over all lines of `inputs`, absolute HDFS paths of files.

        Raises TransientError or TerminalError; a line that is no good is counted, not raised.
        """
        ...
