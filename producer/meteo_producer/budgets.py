"""What the providers' accounts have left, for people and for machines."""

from __future__ import annotations

from typing import Any

from meteo_common.durations import format_duration
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts, Report
from meteo_producer.state import State

HEADINGS = ("account", "window", "used", "left", "limit", "unit")


def read_reports(settings: Settings) -> list[Report]:
    """Return how the accounts stand; none where nothing has been produced yet."""
    state = State.existing(settings)
    if state is None:
        return []
    try:
        return Accounts(settings, state).reports()
    finally:
        state.close()


def rows_of(report: Report) -> list[tuple[str, ...]]:
    """Return one row for each window, as HEADINGS; one in all for an account without a limit."""
    account = report.account
    if not report.windows:
        return [(account.name, "", "", "", "none", account.unit)]
    return [
        (
            account.name,
            format_duration(each.seconds),
            f"{each.used:.10g}",
            f"{each.left:.10g}",
            str(each.limit),
            account.unit,
        )
        for each in report.windows
    ]


def facts_of(report: Report) -> dict[str, Any]:
    """Return the report as plain data: seconds, and unix seconds for `refused_at`. No key is in it."""
    account = report.account
    return {
        "account": account.name,
        "unit": account.unit,
        "setting": account.budget_setting,
        "windows": [
            {"seconds": each.seconds, "used": each.used, "left": each.left, "limit": each.limit}
            for each in report.windows
        ],
        "paused_seconds": round(report.paused_for, 1),
        "refused_keys": [
            {"path": each.path, "refused_at": each.refused_at, "what_to_do": each.sentence} for each in report.refusals
        ],
        "warnings": report.warnings(),
    }
