"""When a scheduled service's next cycle comes: at its interval, earlier when it wants to, later than a failure."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from meteo_common.errors import TransientError
from meteo_common.schedule import AGAIN, run_every
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


def test_a_cycle_longer_than_the_interval_is_followed_at_once(service: Once) -> None:
    run_every(service, 0.1, failing(0.2, None))
    assert service.waited == 0
