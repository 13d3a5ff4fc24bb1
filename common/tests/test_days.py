"""Days and their bounds, durations, places: the small things that everything else counts on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from meteo_common.days import day_bounds, day_of, format_instant, parse_day
from meteo_common.durations import format_duration, parse_duration
from meteo_common.places import Place, parse_places

PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("day", "first", "hours"),
    [
        (date(2013, 1, 1), datetime(2012, 12, 31, 23, tzinfo=UTC), 24),
        (date(2013, 3, 31), datetime(2013, 3, 30, 23, tzinfo=UTC), 23),
        (date(2013, 7, 14), datetime(2013, 7, 13, 22, tzinfo=UTC), 24),
        (date(2013, 10, 27), datetime(2013, 10, 26, 22, tzinfo=UTC), 25),
    ],
)
def test_a_day_has_23_to_25_hours(day: date, first: datetime, hours: int) -> None:
    assert day_bounds(day, PARIS) == (first, first + timedelta(hours=hours))
    assert day_of(first, PARIS) == day
    assert day_of(first - timedelta(microseconds=1), PARIS) == day - timedelta(days=1)
    assert day_of(first + timedelta(hours=hours), PARIS) == day + timedelta(days=1)


def test_a_day_may_begin_after_midnight() -> None:
    """In Beirut the clock went from 24:00 to 01:00 that night."""
    first, last = day_bounds(date(2013, 3, 31), ZoneInfo("Asia/Beirut"))
    assert (first, last - first) == (datetime(2013, 3, 30, 22, tzinfo=UTC), timedelta(hours=23))


def test_a_day_is_written_in_one_way() -> None:
    assert parse_day("2013-07-14") == date(2013, 7, 14)
    for text in ("20130714", "2013-W28-7", "2013-7-14", "2013-02-30", "someday", ""):
        with pytest.raises(ValueError, match=r"form|range"):
            parse_day(text)


def test_an_instant_shows_its_fraction_only_if_it_has_one() -> None:
    assert format_instant(datetime(2026, 11, 20, 11, tzinfo=PARIS)) == "2026-11-20T10:00:00Z"
    assert format_instant(datetime(2026, 11, 20, 10, 0, 3, 120000, tzinfo=UTC)) == "2026-11-20T10:00:03.120000Z"


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "10m", "1h", " 2d ")] == [90, 600, 3600, 172_800]
    for text in ("", "10", "0s", "-1m", "1.5h", "1w", "ten minutes"):
        with pytest.raises(ValueError, match="expected a whole number with a unit"):
            parse_duration(text)
    assert [format_duration(number) for number in (45, 720, 12_600, 200_000)] == ["45 s", "12 min", "3.5 h", "2.3 d"]


def test_places() -> None:
    assert parse_places("Paris,fr; New York,US@40.7,-74 ;") == (
        Place("Paris", "FR"),
        Place("New York", "US", 40.7, -74.0),
    )
    for text, says in {
        "": "at least one place",
        "Paris": "'Paris' is not of the form Name,CC",
        "Paris,FR;Rome": "'Rome' is not of the form",
        "Paris,FR@48.85": "is not of the form",
        "Paris,FR@91,0": "has coordinates outside",
        "Paris,FR@0,-181": "has coordinates outside",
    }.items():
        with pytest.raises(ValueError, match=says):
            parse_places(text)
