"""When a scheduled service's next cycle comes: at its interval, earlier when it wants to, later than a failure."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import REGISTRY

from meteo_common.errors import MismatchError, TransientError, UsageError
from meteo_common.schedule import AGAIN, Cron, run_every, run_scheduled
from meteo_common.service import Service

INTERVAL = 600.0


class Once(Service):
    """A service that stops where it would wait for its second cycle."""

    waited = -1.0

    def wait(self, seconds: float) -> None:
        self.waited = seconds
        self.stopping.set()


@pytest.fixture
def service() -> Iterator[Once]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Once("test", None)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def failing(after: float, retry_after: float | None) -> Callable[[], None]:
    def cycle() -> None:
        time.sleep(after)
        raise TransientError("away", retry_after)

    return cycle


def test_the_interval_is_from_start_to_start(service: Once) -> None:
    run_every(service, INTERVAL, lambda: time.sleep(0.2))
    assert INTERVAL - 60 < service.waited <= INTERVAL - 0.2


@pytest.mark.parametrize(("wanted", "least", "most"), [(20.0, 20.0, 20.0), (900.0, INTERVAL - 60, INTERVAL)])
def test_a_cycle_may_want_to_come_earlier(service: Once, wanted: float, least: float, most: float) -> None:
    run_every(service, INTERVAL, lambda: wanted)
    assert least <= service.waited <= most


@pytest.mark.parametrize(("asked", "waited"), [(0.2, 0.2), (45.0, 45.0), (None, AGAIN)])
def test_a_failure_that_took_long_is_waited_for_as_long(service: Once, asked: float | None, waited: float) -> None:
    run_every(service, INTERVAL, failing(0.3, asked))
    assert service.waited == waited


def test_what_does_not_add_up_ends_the_cycle_and_not_the_service(service: Once) -> None:
    def cycle() -> None:
        raise MismatchError("a stranger's file")

    run_every(service, INTERVAL, cycle)
    assert INTERVAL - 60 < service.waited <= INTERVAL
    assert service._trouble == "a stranger's file"


def test_a_cycle_longer_than_the_interval_is_followed_at_once(service: Once) -> None:
    run_every(service, 0.1, failing(0.2, None))
    assert service.waited == 0


PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    ("expression", "started", "following"),
    [
        ("*/10 * * * *", "2030-11-20T10:00:00Z", "2030-11-20T10:10:00Z"),
        ("30 3 * * *", "2030-11-20T10:00:00Z", "2030-11-21T02:30:00Z"),
        # By the clock of Paris, also over the night in which it is set.
        ("0 12 * * *", "2030-10-26T11:00:00Z", "2030-10-27T11:00:00Z"),
        ("0 12 * * *", "2030-03-30T12:00:00Z", "2030-03-31T10:00:00Z"),
    ],
)
def test_a_cron_expression_goes_by_the_clock_of_its_zone(expression: str, started: str, following: str) -> None:
    left = Cron(expression, PARIS).left(datetime.fromisoformat(started), 0)
    expected = (datetime.fromisoformat(following) - datetime.now(UTC)).total_seconds()
    assert left == pytest.approx(expected, abs=5)


def test_a_cycle_that_missed_many_times_is_followed_by_one(service: Once) -> None:
    schedule = Cron("* * * * *", PARIS)
    assert schedule.left(datetime.now(UTC) - timedelta(hours=1), 3600) == 0
    assert 0 < schedule.left(datetime.now(UTC), 0) <= 60


def test_a_cron_service_waits_for_the_next_time_in_steps(service: Once) -> None:
    cycles: list[None] = []
    run_scheduled(service, Cron("0 0 29 2 *", PARIS), lambda: cycles.append(None))
    assert len(cycles) == 1
    assert service.waited == 60


@pytest.mark.parametrize("wrong", ["", "10m", "* * * *", "61 * * * *", "* * * * * *", "@daily"])
def test_what_is_no_cron_expression_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="expected five fields"):
        Cron(wrong, PARIS)


def test_the_interval_is_told(service: Once) -> None:
    run_every(service, INTERVAL, lambda: None)
    assert REGISTRY.get_sample_value("meteo_cycle_interval_seconds") == INTERVAL


@pytest.mark.parametrize(
    ("expression", "seconds"), [("*/10 * * * *", {600}), ("5 3 * * *", {82_800, 86_400, 90_000}), ("0 * * * *", {3600})]
)
def test_the_interval_of_cron_is_that_between_its_next_two_times(expression: str, seconds: set[int]) -> None:
    """A day of 23 or 25 hours may lie between them."""
    assert Cron(expression, ZoneInfo("Europe/Paris")).interval() in seconds
