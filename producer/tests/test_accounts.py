"""The providers' rules: no window is ever exceeded, a pause and a refusal outlive the process."""

from __future__ import annotations

import multiprocessing
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from meteo_common.allowances import Allowance
from meteo_common.errors import TransientError, UsageError
from meteo_common.settings import Settings
from meteo_producer.accounts import LONGEST_ASKED_PAUSE, Accounts, pause_seconds
from meteo_producer.intervals import interval_of, shortest_interval
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.openweather import OpenWeather
from meteo_producer.source import FEEDS, BudgetSpentError, KeyRefusedError, RateLimitedError
from meteo_producer.state import State

KEY = "0123456789abcdef0123456789abcdef"
START = 1_764_000_000.5
WEATHER = "/data/2.5/weather"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def settings_of(**values: Any) -> Settings:
    return Settings.model_validate({"openweather_api_key": KEY, **values})


def accounts_of(state: State, clock: Clock, **values: Any) -> Accounts:
    return Accounts(settings_of(**values), state, clock)


@hypothesis_settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.sampled_from([1.0, 1.4, 1.6, 5.0])), min_size=30, max_size=120),
    st.integers(5, 40),
)
def test_no_window_ever_holds_more_than_its_allowance(steps: list[tuple[float, float]], limit: int) -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock, open_meteo_budget=f"{limit}/1m;{3 * limit}/10m")
    taken: deque[tuple[float, float]] = deque()
    for pause, cost in steps:
        clock.now += pause
        try:
            accounts.take("open-meteo", "/v1/forecast", cost)
        except BudgetSpentError as error:
            clock.now += error.retry_after or 0.0  # without one, the next line is refused again
            accounts.take("open-meteo", "/v1/forecast", cost)
        taken.append((clock.now, cost))
        for seconds, allowed in ((60, limit), (600, 3 * limit)):
            within = sum(cost for at, cost in taken if at > clock.now - seconds)
            assert within <= allowed + 1e-6


def test_nearly_all_of_a_budget_can_be_used_and_it_comes_back() -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock, openweather_budget="60/1m")
    for _ in range(60):
        accounts.take("openweather", WEATHER)
    with pytest.raises(BudgetSpentError, match=r"60 of 60 calls in 60 s \(OPENWEATHER_BUDGET\)") as caught:
        accounts.take("openweather", WEATHER)
    assert caught.value.exit_code == 3
    assert 59 < (caught.value.retry_after or 0) <= 61
    clock.now += caught.value.retry_after or 0
    for _ in range(60):
        accounts.take("openweather", WEATHER)


def test_a_restart_forgets_nothing_and_another_key_begins_anew(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "producer.sqlite"
    first = State(file)
    accounts = accounts_of(first, clock, openweather_budget="2/1d")
    accounts.take("openweather", WEATHER)
    accounts.take("openweather", WEATHER)
    first.close()
    again = State(file)
    with pytest.raises(BudgetSpentError):
        accounts_of(again, clock, openweather_budget="2/1d").take("openweather", WEATHER)
    accounts_of(again, clock, openweather_budget="2/1d", openweather_api_key="another").take("openweather", WEATHER)
    # Another limit counts what was spent under the old one.
    assert accounts_of(again, clock, openweather_budget="3/2d").report("openweather").windows[0].left == 1
    again.close()
    assert KEY.encode() not in file.read_bytes()


def _take(file: Path, number: int, results: Any) -> None:
    accounts = accounts_of(State(file), Clock(), openweather_budget="50/1d")
    taken = 0
    for _ in range(number):
        try:
            accounts.take("openweather", WEATHER)
            taken += 1
        except BudgetSpentError:
            pass
    results.put(taken)


def test_processes_share_one_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_take, args=(tmp_path / "producer.sqlite", 30, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert sum(results.get(timeout=60) for _ in processes) == 50
    for process in processes:
        process.join(10)


def test_what_the_answer_says_replaces_what_was_expected() -> None:
    accounts = accounts_of(State(), Clock(), visual_crossing_budget="1000/1d")
    accounts.correct(accounts.take("visual-crossing", "/timeline", 240.0), 24.0)
    assert accounts.report("visual-crossing").windows[0].used == 24


def test_a_request_that_can_never_be_paid_is_wrong_usage() -> None:
    accounts = accounts_of(State(), Clock(), visual_crossing_budget="100/1d")
    with pytest.raises(UsageError, match="costs 240 records, more than VISUAL_CROSSING_BUDGET ever allows"):
        accounts.take("visual-crossing", "/timeline", 240.0)
    assert accounts.report("visual-crossing").windows[0].used == 0


def test_no_limit() -> None:
    accounts = accounts_of(State(), Clock(), open_meteo_budget="none")
    for _ in range(1000):
        accounts.take("open-meteo", "/v1/forecast", 5.0)
    assert accounts.report("open-meteo").windows == ()


def test_a_429_pauses_the_whole_account_across_restarts(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "producer.sqlite"
    accounts = accounts_of(State(file), clock)
    charge = accounts.take("openweather", WEATHER)
    assert accounts.pause("openweather", 17.0, "") == 17.0
    for asked in (accounts, accounts_of(State(file), clock)):
        with pytest.raises(RateLimitedError) as caught:
            asked.take("openweather", "/data/2.5/forecast")
        assert caught.value.retry_after == pytest.approx(17.0)
    accounts.take("open-meteo", "/v1/forecast")
    # An answer to a request from before the pause does not end it.
    accounts.answered(charge)
    with pytest.raises(RateLimitedError):
        accounts.take("openweather", WEATHER)
    clock.now += 17.1
    accounts.take("openweather", WEATHER)


def test_without_retry_after_the_pause_doubles_until_an_answer() -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock)
    pauses = []
    for _ in range(9):
        pauses.append(accounts.pause("openweather", None, ""))
        clock.now += pauses[-1] + 0.1
    for expected, seconds in zip([60, 120, 240, 480, 960, 1920, 3600, 3600, 3600], pauses, strict=True):
        assert min(expected, 3600) <= seconds <= min(expected * 1.5, 3600)
    accounts.answered(accounts.take("openweather", WEATHER))
    assert 60 <= accounts.pause("openweather", None, "") <= 90


def test_answers_that_come_during_a_pause_do_not_double_it() -> None:
    accounts = accounts_of(State(), Clock())
    assert max(accounts.pause("openweather", None, "") for _ in range(5)) <= 90


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [
        ("Minutely API request limit exceeded. Please try again in one minute.", 60),
        ("Hourly API request limit exceeded. Please try again in the next hour.", 3600),
        ("Daily API request limit exceeded. Please try again tomorrow.", 86400),
        ("Maximum daily cost exceeded", 86400),
    ],
)
def test_a_limit_that_is_named_is_waited_for(reason: str, seconds: int) -> None:
    now = START + 700.0
    pause = pause_seconds(None, reason, 1, now)
    assert (now + pause) % seconds <= 30 or pause <= 90
    assert pause <= max(90, seconds + 2)


@pytest.mark.parametrize(("asked", "pause"), [(0.001, 1.0), (17.0, 17.0), (1e9, LONGEST_ASKED_PAUSE)])
def test_an_absurd_retry_after_is_not_believed(asked: float, pause: float) -> None:
    assert pause_seconds(asked, "", 1, START) == pause


@pytest.mark.parametrize("ahead", [1800, 10 * 86400, 10 * 366 * 86400])
def test_a_clock_that_was_ahead_blocks_for_two_windows_at_most(ahead: int) -> None:
    clock, state = Clock(), State()
    clock.now += ahead
    accounts = accounts_of(state, clock, openweather_budget="1/1h;1/1d", open_meteo_budget="1/1d")
    accounts.take("openweather", WEATHER)
    accounts.take("open-meteo", "/v1/forecast")
    accounts.pause("open-meteo", 86400.0, "")
    clock.now = START + 2 * 86400 + 60
    accounts.take("openweather", WEATHER)
    accounts.take("open-meteo", "/v1/forecast")


def test_what_was_spent_before_the_clock_was_set_back_still_counts() -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock, openweather_budget="1/1m")
    accounts.take("openweather", WEATHER)
    clock.now -= 1800
    with pytest.raises(BudgetSpentError):
        accounts.take("openweather", WEATHER)


def test_an_answer_does_not_end_a_pause_that_came_while_it_was_under_way() -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock)
    clock.now += accounts.pause("openweather", 5.0, "")
    charge = accounts.take("openweather", WEATHER)
    accounts.pause("openweather", 60.0, "")
    accounts.answered(charge)
    with pytest.raises(RateLimitedError):
        accounts.take("openweather", WEATHER)


def test_a_refused_key_is_refused_by_path_until_it_changes(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "producer.sqlite"
    accounts_of(State(file), clock).refuse("openweather", "/data/2.5/forecast", "check OPENWEATHER_API_KEY.")
    accounts = accounts_of(State(file), clock)
    with pytest.raises(KeyRefusedError, match=r"check OPENWEATHER_API_KEY\."):
        accounts.take("openweather", "/data/2.5/forecast")
    accounts.take("openweather", WEATHER)
    accounts_of(State(file), clock, openweather_api_key="another").take("openweather", "/data/2.5/forecast")
    assert accounts.report("openweather").warnings() == ["check OPENWEATHER_API_KEY."]
    assert accounts.retry_key("openweather") == 1
    accounts.take("openweather", "/data/2.5/forecast")


def test_a_person_is_told_from_80_percent_on() -> None:
    accounts = accounts_of(State(), Clock(), openweather_budget="10/1h")
    for _ in range(7):
        accounts.take("openweather", WEATHER)
    assert accounts.report("openweather").warnings() == []
    accounts.take("openweather", WEATHER)
    (warning,) = accounts.report("openweather").warnings()
    assert warning == "OpenWeather: 8 of 10 calls in 60 min are used; OPENWEATHER_BUDGET sets the limit."


def test_a_state_that_cannot_be_opened_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "producer.sqlite").write_text("this is no database, " * 100)
    with pytest.raises(UsageError, match="check METEO_STATE_DIR"):
        State.of(settings_of(meteo_state_dir=tmp_path))


@pytest.mark.parametrize(
    ("often", "seldom", "allowance"),
    [(1.4, 1.2, Allowance(10000, 86400)), (70, 60, Allowance(10000, 86400)), (3, 0, Allowance(1000, 86400)),
     (100, 10_000, Allowance(5000, 3600)), (1, 100, Allowance(100, 86400))],
)  # fmt: skip
def test_a_stretched_interval_uses_at_most_90_percent(often: float, seldom: float, allowance: Allowance) -> None:
    interval = shortest_interval(often, seldom, 3600, [allowance])
    # Far longer than any window, so that what is left over at its end does not matter.
    length = 1000 * max(interval, 3600.0, float(allowance.seconds))
    used = length / interval * often + length / max(interval, 3600.0) * seldom
    assert used / length * allowance.seconds == pytest.approx(0.9 * allowance.amount)


def test_many_places_stretch_the_interval_and_few_do_not() -> None:
    places = ";".join(f"P{number},FR@{number / 10:.1f},1" for number in range(100))
    settings = settings_of(city=places)
    accounts = Accounts(settings, State())
    # 100 places x 1.4 every 10 min + 1.2 every hour: 23,040 a day of 10,000.
    stretched = interval_of(OpenMeteo(settings, None), settings, accounts, FEEDS)  # type: ignore[arg-type]
    assert 1600 < stretched < 2400
    per_day = 86400 / stretched * 140 + 24 * 120
    assert per_day == pytest.approx(9000, rel=0.01)
    assert interval_of(OpenWeather(settings, None), settings, accounts, FEEDS) == 600  # type: ignore[arg-type]
    few = settings_of(city="Paris,FR")
    assert interval_of(OpenMeteo(few, None), few, accounts, FEEDS) == 600  # type: ignore[arg-type]


def test_every_error_of_take_says_when_or_what() -> None:
    clock = Clock()
    accounts = accounts_of(State(), clock, openweather_budget="1/1m")
    accounts.take("openweather", WEATHER)
    with pytest.raises(TransientError) as spent:
        accounts.take("openweather", WEATHER)
    assert str(spent.value).endswith(".")
    assert KEY not in repr(accounts["openweather"]) + accounts["openweather"].id + str(spent.value)
