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


AGAIN = 30.0
"""Seconds after a cycle that failed, unless its error says how long."""


def run_every(service: Service, seconds: float, cycle: Callable[[], float | None]) -> None:
    """Run `cycle` now and then every `seconds` from start to start, until the service stops.

    A cycle that has something to do before that returns in how many seconds. A TransientError ends the cycle, not the
    service: it is tried again in 30 s, or in the seconds that it names.
    """
    trouble = None
    while not service.stopping.is_set():
        started = time.monotonic()
        # What was waited for is waited for until a cycle ends well: an attempt may take longer than the pause.
        service.beat(trouble)
        try:
            wanted = cycle()
        except TransientError as error:
            CYCLES.labels("failed").inc()
            log.warning("cycle failed", error=str(error))
            trouble = str(error)
            wanted = error.retry_after or AGAIN
        else:
            trouble = None
            CYCLES.labels("done").inc()
            LAST_SUCCESS.set_to_current_time()
        service.beat(trouble)
        left = max(0.0, seconds - (time.monotonic() - started))
        service.wait(left if wanted is None else min(left, wanted))
