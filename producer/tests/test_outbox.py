"""The outbox: what was put there is there after a kill, in its order, until somebody else has it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from recordings import NOW, PARIS

from meteo_common.errors import MeteoError, RefusedError, UnreachableError
from meteo_common.settings import Settings
from meteo_producer.outbox import Outbox
from meteo_producer.source import Answers
from meteo_producer.state import State

KILLED = """
import os, signal, sys
from pathlib import Path
from meteo_producer.outbox import Outbox
from meteo_producer.state import State
outbox = Outbox(State(Path(sys.argv[1])), "weather-api")
for number in range(20):
    outbox.put(b"key", b"%d" % number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_put_survives_a_kill_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "producer.sqlite"
    ran = subprocess.run([sys.executable, "-c", KILLED, str(file)], timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    outbox = Outbox(State(file), "weather-api")
    assert [entry.value for entry in outbox.pending()] == [b"%d" % number for number in range(20)]
    outbox.forget([entry.id for entry in outbox.pending()[:19]])
    outbox.put(b"key", b"20")
    assert [entry.value for entry in Outbox(State(file), "weather-api").pending()] == [b"19", b"20"]
    assert len(outbox) == 2


def test_each_topic_has_its_own(tmp_path: Path) -> None:
    state = State(tmp_path / "producer.sqlite")
    Outbox(state, "one").put(b"key", b"1")
    assert Outbox(state, "other").pending() == []
    assert len(Outbox(state, "other")) == 0


def test_refused_answers_wait_until_they_are_taken() -> None:
    outbox = Outbox(State(), "weather-api")
    # Half of a surrogate pair has no UTF-8; it is one of the reasons to refuse an answer.
    answers = Answers(PARIS, NOW, {"current": {"name": "\ud800", "wind": [1.5, None]}}, "metric")
    outbox.put_refused("openweather", answers, "the answer has no time")
    outbox.put_refused("openweather", answers, "again")
    stored: list[tuple[str, Answers, str]] = []
    error: MeteoError | None = UnreachableError("PostgreSQL is away")

    def store(source: str, answers: Answers, reason: str) -> None:
        if error:
            raise error
        stored.append((source, answers, reason))

    outbox.pass_on_refused(store)
    assert len(outbox) == 2
    error = None
    outbox.pass_on_refused(store)
    assert stored == [("openweather", answers, "the answer has no time"), ("openweather", answers, "again")]
    assert len(outbox) == 0


def test_an_answer_that_is_nested_too_deeply_is_left_out() -> None:
    outbox = Outbox(State(), "weather-api")
    body: list[Any] = []
    for _ in range(5000):
        body = [body]
    outbox.put_refused("openweather", Answers(PARIS, NOW, {"current": body}), "nested too deeply")
    assert len(outbox) == 0


def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    state = State(tmp_path / "producer.sqlite")
    with state.transaction() as database:
        database.execute("PRAGMA max_page_count = 1")
    outbox = Outbox(state, "weather-api")
    with pytest.raises(UnreachableError, match="cannot be written"):
        outbox.put(b"key", b"x" * 100_000_000)
    with pytest.raises(RefusedError), state.transaction():
        raise RefusedError("and the state can be used again")


def test_nothing_is_made_by_who_only_looks(tmp_path: Path) -> None:
    settings = Settings.model_validate({"meteo_state_dir": tmp_path / "producer"})
    assert State.existing(settings) is None
    assert list(tmp_path.iterdir()) == []
    State.of(settings).close()
    assert State.existing(settings) is not None
