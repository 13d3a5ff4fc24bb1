"""Which source answers, what is asked for when, and how long anything is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from recordings import PARIS

from meteo_common.errors import MeteoError, UnreachableError
from meteo_common.message import Message, Observation
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.outbox import Outbox
from meteo_producer.poll import Poll, within
from meteo_producer.source import Answers, Feed, build
from meteo_producer.state import State


class Fake:
    """A source that answers, or fails as told, and remembers what it was asked."""

    needs_coordinates = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: MeteoError | None = None
        self.missing: dict[str, MeteoError] = {}
        self.asked: list[Collection[Feed]] = []
        self.fetching: Callable[[], None] = lambda: None

    def ready(self) -> None:
        pass

    def poll_cost(self, feeds: Collection[Feed]) -> float:
        return float(len(feeds))

    def fetch(self, place: Place, feeds: Collection[Feed], collected_at: datetime) -> Answers:
        self.asked.append(feeds)
        self.fetching()
        if self.error:
            raise self.error
        return Answers(place, collected_at, {}, missing=self.missing)

    def normalise(self, answers: Answers) -> Message:
        observed_at = datetime.now(UTC) - timedelta(minutes=1)
        return build(self.name, answers, "1", observed_at, Observation(temperature_celsius=7.0))


@pytest.fixture
def coordinates(tmp_path: Path) -> Coordinates:
    return Coordinates(Settings.model_validate({"meteo_state_dir": tmp_path}), Api())


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(State(), "topic")


def test_forecast_and_air_quality_only_when_due(coordinates: Coordinates, outbox: Outbox) -> None:
    source = Fake("first")
    poll = Poll([source], coordinates, outbox, 3600)
    poll.ask(PARIS)
    poll.ask(PARIS)
    poll.ask(Place("Berlin", "DE", 52.5, 13.4))
    everything = ["current", "forecast", "air_quality"]
    assert source.asked == [everything, ["current"], everything]


def test_a_slow_answer_does_not_put_the_next_forecast_off(coordinates: Coordinates, outbox: Outbox) -> None:
    clock, source = [0.0], Fake("first")
    poll = Poll([source], coordinates, outbox, 3600, clock=lambda: clock[0])
    # The place's turn in a round, by how long those before it took; its own answer takes 20 s.
    for round_, turn in enumerate([30.0, 25, 25, 25, 25, 25, 5]):
        clock[0] = round_ * 600 + turn
        source.fetching = lambda: clock.__setitem__(0, clock[0] + 20)
        poll.ask(PARIS)
    assert [len(feeds) for feeds in source.asked] == [3, 1, 1, 1, 1, 1, 3]


def test_what_was_missing_is_asked_for_again(coordinates: Coordinates, outbox: Outbox) -> None:
    source = Fake("first")
    source.missing = {"forecast": UnreachableError("away")}
    poll = Poll([source], coordinates, outbox, 3600)
    poll.ask(PARIS)
    poll.ask(PARIS)
    assert source.asked[1] == ["current", "forecast"]


def test_the_fallback_answers_and_the_first_is_tried_again(coordinates: Coordinates, outbox: Outbox) -> None:
    first, second = Fake("first"), Fake("second")
    poll = Poll([first, second], coordinates, outbox, 3600)
    first.error = UnreachableError("away")
    assert poll.ask(PARIS).station_id == "second:1"
    first.error = None
    assert poll.ask(PARIS).station_id == "first:1"
    assert len(first.asked) == 2


def test_the_first_sources_error_is_told_when_none_answers(coordinates: Coordinates, outbox: Outbox) -> None:
    first, second = Fake("first"), Fake("second")
    first.error, second.error = UnreachableError("first is away"), UnreachableError("second is away")
    with pytest.raises(UnreachableError, match="first is away"):
        Poll([first, second], coordinates, outbox, 3600).ask(PARIS)


def test_neither_a_hanging_api_nor_a_stop_is_waited_for() -> None:
    stopping = threading.Event()
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="did not answer within"):
        within(0.3, stopping, lambda: time.sleep(30))
    stopping.set()
    with pytest.raises(UnreachableError):
        within(60, stopping, lambda: time.sleep(30))
    assert time.monotonic() - started < 20
