"""Days: the local calendar date of an instant, and the bounds of a date as instants."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """Return the calendar date of an aware datetime in `zone`."""
    return instant.astimezone(zone).date()


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the first instant of `day` in `zone` and of the day after, in UTC; 23 to 25 hours apart."""
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    return start, datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def parse_day(text: str) -> date:
    """Return the date that is written as `2026-11-20`; raises ValueError for any other form, which Python knows too."""
    day = date.fromisoformat(text)
    if day.isoformat() != text:
        raise ValueError(f"'{text}' is not of the form 2026-11-20")
    return day


def format_instant(instant: datetime) -> str:
    """Return `2026-11-20T10:00:00Z`, with the fraction of the second only when there is one."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
