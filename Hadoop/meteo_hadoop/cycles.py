"""Cycles of a command: one, or a service of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from meteo_common.console import out
from meteo_common.durations import parse_duration
from meteo_common.errors import UsageError
from meteo_common.logs import configure_logs
from meteo_common.service import Service
from meteo_common.settings import Settings, load_settings

if TYPE_CHECKING:
    from meteo_common.schedule import Schedule

log = structlog.get_logger()

CYCLE_LIMIT = 3600.0
"""A cycle that takes longer than this hangs: a million rows take minutes."""


@dataclass(frozen=True)
class Done:
    """What a cycle has done: for a service's log, and for a person."""

    facts: dict[str, Any]
    lines: list[str]

    def followed_by(self, other: Done) -> Done:
        """Return both as one."""
        return Done({**self.facts, **other.facts}, [*self.lines, *other.lines])


Tell = Callable[[str], None]


def run_cycles(
    name: str,
    cycle: Callable[[Settings, Tell], Done],
    once: bool,
    every: str | None,
    cron: str | None,
    *,
    reconciles: bool = False,
) -> None:
    """Run one cycle, or a service of them, each followed by a reconciliation if it `reconciles`."""
    if once or (every is None and cron is None):
        configure_logs(name, long_running=False)
        for line in cycle(load_settings(), out.print).lines:
            out.print(line, markup=False)
        return
    # Imported here: else every service, which the same command line runs, would tell of cycles, all of them zero.
    from meteo_common.schedule import run_scheduled
    from meteo_hadoop.measures import TierCheck, count_cycle

    configure_logs(name)
    settings = load_settings()
    check = TierCheck() if reconciles else None
    schedule = _schedule(every, cron, settings)

    def logged() -> None:
        log.info("cycle begun")
        facts = cycle(settings, lambda _: None).facts
        count_cycle(facts)
        log.info("cycle done", **facts)
        if check:
            check(settings)

    service = Service(name, settings.metrics_listener, CYCLE_LIMIT)
    try:
        run_scheduled(service, schedule, logged)
    finally:
        service.close()


def _schedule(every: str | None, cron: str | None, settings: Settings) -> Schedule:
    from meteo_common.schedule import Cron, Interval

    if every is None:
        return Cron(cron or "", settings.zone)
    if cron is not None:
        raise UsageError("--every and --cron exclude one another: give one of them.")
    try:
        return Interval(parse_duration(every))
    except ValueError as error:
        raise UsageError(f"--every {every}: {error}.") from None
