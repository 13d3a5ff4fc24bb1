"""Cycles of the cron-style services: one at a time, at an interval, surviving servers that are away."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from prometheus_client import Counter, Gauge

from meteo_common.errors import TransientError
from meteo_common.service import Service

log = structlog.get_logger()

CYCLES = Counter("meteo_cycles", "Cycles of a scheduled service, by how they ended", ["outcome"])
LAST_SUCCESS = Gauge("meteo_cycle_last_success_timestamp_seconds", "When a cycle last ended well")


def run_every(service: Service, seconds: int, cycle: Callable[[], None]) -> None:
    """Run `cycle` now and then every `seconds` from start to start, until the service stops.

    A TransientError ends the cycle, not the service: it is tried again after at most 30 s.
    """
    trouble = None
    while not service.stopping.is_set():
        started = time.monotonic()
        pause = float(seconds)
        # What was waited for is waited for until a cycle ends well: an attempt may take longer than the pause.
        service.beat(trouble)
        try:
            cycle()
        except TransientError as error:
            CYCLES.labels("failed").inc()
            log.warning("cycle failed", error=str(error))
            trouble = str(error)
            pause = min(pause, error.retry_after or 30.0)
        else:
            trouble = None
            CYCLES.labels("done").inc()
            LAST_SUCCESS.set_to_current_time()
        service.beat(trouble)
        service.wait(max(0.0, pause - (time.monotonic() - started)))
