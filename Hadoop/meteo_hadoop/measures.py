"""What the scheduled services tell of their cycles: what they moved, and whether the tiers agree afterwards."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from meteo_common.errors import MeteoError, UnreachableError
from meteo_common.settings import Settings

log = structlog.get_logger()

ROWS = Counter("meteo_cycle_rows", "Rows that cycles of a scheduled service have written")
BYTES = Counter("meteo_cycle_bytes", "Bytes that cycles of a scheduled service have written")
LINES = Counter("meteo_mapreduce_lines", "Lines that jobs have read", ["job"])
BAD_LINES = Counter("meteo_mapreduce_bad_lines", "Lines that jobs have read and that do not count", ["job", "reason"])
DAYS = Gauge("meteo_reconciled_days", "Days at the last reconciliation, by what it found", ["state"])
MISMATCHES = Gauge("meteo_reconcile_mismatches", "Mismatches at the last reconciliation")
RECONCILED = Gauge("meteo_reconcile_last_timestamp_seconds", "When the tiers were last reconciled")
STATES = ("clean", "pending", "expired", "mismatch")


def count_cycle(facts: Mapping[str, Any]) -> None:
    """Add a cycle's rows and bytes to the service's metrics."""
    ROWS.inc(facts.get("rows", 0))
    BYTES.inc(facts.get("bytes", 0))


class TierCheck:
    """What follows each cycle of a service: a reconciliation, told in log and metrics.

    It reads the days that have changed since this process found them clean, and all of them once a day.
    """

    def __init__(self) -> None:
        from meteo_hadoop.reconcile import Seen

        self._seen = Seen()

    def __call__(self, settings: Settings) -> None:
        """Reconcile. A mismatch is an error in the log and stops nothing: the service does what it still can.

        Raises UnreachableError when a server is away.
        """
        from meteo_hadoop.reconcile import reconcile_tiers

        started = time.monotonic()
        try:
            report = reconcile_tiers(settings, seen=self._seen)
        except UnreachableError:
            raise
        except MeteoError as error:
            log.error("not reconciled", error=str(error))
            return
        states = Tally(day.state for day in report.days)
        for state in STATES:
            DAYS.labels(state).set(states[state])
        MISMATCHES.set(len(report.mismatches))
        RECONCILED.set_to_current_time()
        facts = {
            **{state: states[state] for state in STATES[:3]},
            "looked_at": report.looked_at,
            "seconds": round(time.monotonic() - started, 3),
        }
        if report.mismatches:
            log.error("tiers disagree", mismatches=len(report.mismatches), first=report.mismatches[0], **facts)
        else:
            log.info("tiers agree", **facts)
