"""Which months are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from meteo_consumer.retention import first_kept


@pytest.mark.parametrize(
    ("keep", "first"),
    [(1, (2026, 11)), (2, (2026, 10)), (11, (2026, 1)), (12, (2025, 12)), (13, (2025, 11)), (36, (2023, 12))],
)
def test_the_running_month_is_the_first_that_is_kept(keep: int, first: tuple[int, int]) -> None:
    assert first_kept(keep, datetime(2026, 11, 20, tzinfo=UTC)) == datetime(*first, 1, tzinfo=UTC)


def test_months_are_those_of_utc() -> None:
    new_year_in_paris = datetime(2027, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    assert first_kept(1, new_year_in_paris) == datetime(2026, 12, 1, tzinfo=UTC)
