"""Days and instants: the local calendar date of an instant, and how both are written."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """Return the calendar date of an aware datetime in `zone`."""
    return instant.astimezone(zone).date()


def parse_day(text: str) -> date:
    """Return the date that is written as `2026-11-20`; raises ValueError for any other form, which Python knows too."""
    day = date.fromisoformat(text)
    if day.isoformat() != text:
        raise ValueError(f"'{text}' is not of the form 2026-11-20")
    return day


def format_instant(instant: datetime) -> str:
    """Return `2026-11-20T10:00:00Z`, with the fraction of the second only when there is one."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
