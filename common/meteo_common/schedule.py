"""Cycles of the cron-style services: one at a time, at an interval or by cron, surviving servers that are away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol
from zoneinfo import ZoneInfo

import structlog
from prometheus_client import Counter, Gauge

from meteo_common.errors import MismatchError, TransientError, UsageError
from meteo_common.service import Service

log = structlog.get_logger()

CYCLES = Counter("meteo_cycles", "Cycles of a scheduled service, by how they ended", ["outcome"])
LAST_SUCCESS = Gauge("meteo_cycle_last_success_timestamp_seconds", "When a cycle last ended well")
DURATION = Gauge("meteo_cycle_duration_seconds", "How long the last cycle took")
INTERVAL = Gauge("meteo_cycle_interval_seconds", "From one cycle to the next by the schedule, as it is now")

AGAIN = 30.0
"""Seconds after a cycle that failed, unless its error says how long."""


class Schedule(Protocol):
    """Says when the next cycle is due; `step` is the longest wait after which it asks again, in seconds."""

    @property
    def step(self) -> float: ...

    def interval(self) -> float:
        """Return the seconds between the next two cycles that are due."""
        ...

    def left(self, started: datetime, elapsed: float) -> float:
        """Return the seconds until the cycle after the one begun at `started`, `elapsed` s ago; 0 when overdue."""
        ...


@dataclass(frozen=True)
class Interval:
    """Every `seconds`, from start to start, whatever is done to the clock."""

    seconds: float
    step: float = math.inf

    def interval(self) -> float:
        """Return the seconds; as `Schedule` says."""
        return self.seconds

    def left(self, started: datetime, elapsed: float) -> float:  # noqa: ARG002
        """Return the seconds left; as `Schedule` says."""
        return max(0.0, self.seconds - elapsed)


@dataclass(frozen=True)
class Cron:
    """At the times of a cron expression of five fields, by the clock of `zone`."""

    expression: str
    zone: ZoneInfo
    step: float = 60.0
    """A clock that was set, or a machine that slept, moves the time that is waited for."""

    def __post_init__(self) -> None:
        from croniter import croniter

        if len(self.expression.split()) != 5 or not croniter.is_valid(self.expression):
            raise UsageError(
                f"'{self.expression}' is no cron expression; expected five fields (minute, hour, day, month, weekday),"
                " such as '*/10 * * * *'."
            )

    def interval(self) -> float:
        """Return the seconds between the next two times, which may differ from those between others."""
        from croniter import croniter

        times = croniter(self.expression, datetime.now(self.zone))
        first, second = (times.get_next(datetime).astimezone(UTC) for _ in range(2))
        return float((second - first).total_seconds())

    def left(self, started: datetime, elapsed: float) -> float:  # noqa: ARG002
        """Return the seconds left; the times that passed during the cycle are one that is overdue."""
        from croniter import croniter

        following: datetime = croniter(self.expression, started.astimezone(self.zone)).get_next(datetime)
        # In UTC: the difference of two times of one zone would leave out the hour by which its clock was changed.
        return max(0.0, (following.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def run_every(service: Service, seconds: float, cycle: Callable[[], float | None]) -> None:
    """Run `cycle` now and then every `seconds`; see `run_scheduled`."""
    run_scheduled(service, Interval(seconds), cycle)


def run_scheduled(service: Service, schedule: Schedule, cycle: Callable[[], float | None]) -> None:
    """Run `cycle` now, which makes up what was missed while the service was down, and then by the schedule.

    However many times pass during a cycle, one cycle follows at once. A cycle that has something to do earlier returns
    in how many seconds. A TransientError ends the cycle, not the service: it is tried again in 30 s, or in the seconds
    that it names. So does a MismatchError, which a person has to settle while the rest goes on: the next cycle is the
    schedule's.
    """
    trouble = None
    for outcome in ("done", "failed"):
        CYCLES.labels(outcome)  # a series that begins with its first value hides that one from increase()
    while not service.stopping.is_set():
        started, begun = datetime.now(UTC), time.monotonic()
        # What was waited for is waited for until a cycle ends well: an attempt may take longer than the pause.
        service.beat(trouble)
        INTERVAL.set(schedule.interval())
        try:
            wanted = cycle()
        except TransientError as error:
            CYCLES.labels("failed").inc()
            log.warning("cycle failed", error=str(error))
            trouble = str(error)
            wanted = error.retry_after or AGAIN
        except MismatchError as error:
            CYCLES.labels("failed").inc()
            log.error("cycle failed", error=str(error))
            trouble, wanted = str(error), None
        else:
            trouble = None
            CYCLES.labels("done").inc()
            LAST_SUCCESS.set_to_current_time()
        DURATION.set(time.monotonic() - begun)
        service.beat(trouble)
        _wait(service, schedule, started, begun, wanted)


def _wait(service: Service, schedule: Schedule, started: datetime, begun: float, wanted: float | None) -> None:
    """Wait for the next cycle, or for the seconds that this one wanted."""
    left = schedule.left(started, time.monotonic() - begun)
    if wanted is not None:
        service.wait(min(left, wanted))
        return
    while left > 0 and not service.stopping.is_set():
        service.wait(min(left, schedule.step))
        left = schedule.left(started, time.monotonic() - begun)
