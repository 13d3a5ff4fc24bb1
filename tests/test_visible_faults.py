"""Injected faults: each raises its alert, shows on the page and in `./meteo status`, and is gone after its repair."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from browsing import browser
from figures import Campaigns, Sight
from injected import LOST, ROUNDS, Fault
from watched import CALM_SECONDS, Watched, eventually

pytestmark = pytest.mark.deployment

SECONDS = 300
"""Within which a fault must be seen, and be gone: the slowest server is back after a minute."""
SIZES = ((1280, 800), (390, 844))

Faults = Sequence[Fault]
Times = dict[str, float]
"""The name of a fault → the seconds after which it was as it was waited for."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Several at once in the short form; in the long one each alone."""
    if "faults" in metafunc.fixturenames:
        alone = [(fault,) for each in (*ROUNDS, (LOST,)) for fault in each]
        rounds: Sequence[Faults] = alone if metafunc.config.getoption("--long") else ROUNDS
        metafunc.parametrize("faults", rounds, ids=[", ".join(fault.name for fault in each) for each in rounds])


@pytest.fixture(scope="module")
def lost(watched: Watched) -> Iterator[ExitStack]:
    """Records are lost; its end lets an hour pass."""
    wait_for_calm(watched, (LOST,))
    with ExitStack() as hour:
        hour.enter_context(LOST.standing(watched))
        yield hour


def test_there_are_twelve_faults_at_least() -> None:
    names = {fault.name for each in ROUNDS for fault in each} | {LOST.name}
    assert len(names) >= 12


def test_lost_records_are_seen(watched: Watched, lost: ExitStack) -> None:
    wait(watched, (LOST,), seen=True)
    assert_status(watched, (LOST,), seen=True)


@pytest.mark.campaign
def test_a_fault_is_seen_and_gone_after_its_repair(watched: Watched, faults: Faults, campaigns: Campaigns) -> None:
    wait_for_calm(watched, faults)
    with ExitStack() as repairs:
        for fault in faults:
            repairs.enter_context(fault.standing(watched))
        alert, page = wait(watched, faults, seen=True)
        assert_status(watched, faults, seen=True)
        assert_verdict(page_state(watched), faults)
    gone = wait(watched, faults, seen=False)
    assert_status(watched, faults, seen=False)
    campaigns.seen += [
        Sight(name, alert[name], page[name], max(each[name] for each in gone)) for name in alert if campaigns.long
    ]


def test_the_first_screen_names_the_hop_that_stands_still(watched: Watched, lost: ExitStack, tmp_path: Path) -> None:
    (fault,) = (fault for each in ROUNDS for fault in each if fault.name == "export stopped")
    with fault.standing(watched):
        eventually(lambda: fault.told(page_state(watched)), "the fault on the page", SECONDS)
        for width, height in SIZES:
            with browser(tmp_path / str(width)) as seen:
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < height}
                seen.tell("Emulation.setDeviceMetricsOverride", **size)
                seen.open(watched.address("page", "page"))
                assert "export stands still" in seen.text("#sentence")
                assert "The service export does not answer" in seen.text("#why")
                assert "./meteo restart export" in seen.text("#remedy")
                assert "export" in seen.text("#chain li.stopped")
                assert LOST.word in seen.text("#concerns")
                for part in ("#sentence", "#why", "#remedy", "#chain", "#concerns"):
                    bottom = seen.run(f"return document.querySelector('{part}').getBoundingClientRect().bottom")
                    assert 0 < bottom <= height, f"{part} at {width} × {height}"
                assert seen.violations() == []
    eventually(lambda: not fault.told(page_state(watched)), "the end of the fault on the page", SECONDS)


def test_lost_records_are_told_for_an_hour(watched: Watched, lost: ExitStack) -> None:
    lost.close()
    wait(watched, (LOST,), seen=False)
    assert_status(watched, (LOST,), seen=False)


def page_state(watched: Watched) -> dict[str, Any]:
    """Return what the page says of the pipeline."""
    answer = requests.get(f"{watched.address('page', 'page')}/api/pipeline", timeout=10)
    answer.raise_for_status()
    state: dict[str, Any] = answer.json()
    return state


def firing(watched: Watched) -> list[dict[str, str]]:
    """Return the labels of the alerts that stand."""
    return [labels for labels, _ in watched.query('ALERTS{alertstate="firing"}')]


def wait_for_calm(watched: Watched, faults: Faults) -> None:
    """Wait until nothing of earlier tests looks like these faults."""

    def calm() -> bool:
        alerts, state = firing(watched), page_state(watched)
        return not any(fault.raised(alerts) or fault.told(state) for fault in faults)

    eventually(calm, "calm", CALM_SECONDS)


def wait(watched: Watched, faults: Faults, *, seen: bool) -> tuple[Times, Times]:
    """Wait until Prometheus and the page both have all faults, or none; return when each began to."""
    begun = time.monotonic()
    alert: Times = {}
    page: Times = {}

    def all_of_them() -> bool:
        alerts, state = firing(watched), page_state(watched)
        now = time.monotonic() - begun
        for fault in faults:
            _note(alert, fault.name, now, fault.raised(alerts) == (len(fault.alerts) if seen else 0))
            _note(page, fault.name, now, fault.told(state) == seen)
        return len(alert) == len(page) == len(faults)

    what = "alert and page of each fault" if seen else "the end of each fault"
    try:
        eventually(all_of_them, what, SECONDS)
    except AssertionError:
        missing = [f"{fault.name}: alert {fault.name in alert}, page {fault.name in page}" for fault in faults]
        raise AssertionError(f"{what} did not come within {SECONDS} s; {'; '.join(missing)}") from None
    return alert, page


def _note(times: Times, name: str, now: float, reached: bool) -> None:
    """Note when it was reached; what does not last was not."""
    if reached:
        times.setdefault(name, now)
    else:
        times.pop(name, None)


def assert_status(watched: Watched, faults: Faults, *, seen: bool) -> None:
    """`./meteo status` says what the page says, to machines and to people."""

    def says() -> bool:
        state = json.loads(watched.meteo("status", "--json"))["pipeline"]
        return all(fault.told(state) == seen for fault in faults)

    eventually(says, "the same of ./meteo status", SECONDS)
    if seen:
        shown = watched.meteo("status")
        assert [fault.name for fault in faults if fault.word not in shown] == []


def assert_verdict(state: dict[str, Any], faults: Faults) -> None:
    """The weather is fresh unless a hop stands still; then the verdict names one that the faults have stopped."""
    if hops := {fault.who for fault in faults if fault.where == "hops"}:
        assert not state["fresh"]
        assert state["hop"] in hops
        assert state["remedy"]
