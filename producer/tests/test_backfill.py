"""Past days through real servers: each taken once, whatever is killed, refused, spent or away."""

from __future__ import annotations

import re
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tiers
from archived import archive
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from conftest import Tenant
from meteo_common.days import day_bounds
from meteo_common.errors import RefusedError, TransientError, UnreachableError, UsageError
from meteo_common.failpoints import FAILPOINTS
from meteo_common.settings import Settings
from meteo_producer.backfill import backfill
from meteo_producer.open_meteo_archive import VARIABLES
from meteo_producer.source import BudgetSpentError, RateLimitedError

CITY = "Paris,FR@48.853,2.349"
FIRST, LAST = "2025-03-10", "2025-04-12"
"""34 days, three calls, and the night in which Paris loses an hour."""
DAYS = [date(2025, 3, 10) + timedelta(days=number) for number in range(34)]
HOURS = 34 * 24 - 1
CALLS = [("2025-03-09", "2025-03-22"), ("2025-03-22", "2025-04-04"), ("2025-04-04", "2025-04-12")]
COMMAND = ("backfill", "--source", "open-meteo", "--city", CITY, "--from", FIRST, "--to", LAST)


class Archive:
    """A stand-in for the provider: it answers any days, and remembers which were asked for."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("").rstrip("/")
        self.asked: list[tuple[str, str]] = []
        self.answers: list[Response] = []
        self.changes: dict[str, Any] = {}
        self.held = threading.Event()
        self.held.set()
        server.expect_request("/v1/archive").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        days = request.args["start_date"], request.args["end_date"]
        self.asked.append(days)
        self.held.wait(20)
        if self.answers:
            return self.answers.pop(0)
        return Response(msgspec.json.encode(archive(*days, **self.changes)), content_type="application/json")


@pytest.fixture
def provider(httpserver: HTTPServer) -> Archive:
    return Archive(httpserver)


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory for the producer's state: the budget is counted there. The command runs as another user."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
        yield Path(directory)


@pytest.fixture
def here(tenant: Tenant, provider: Archive, state: Path) -> Settings:
    """The settings of the tenant with the provider's stand-in."""
    urls = {"open_meteo_archive_url": provider.url, "visual_crossing_url": provider.url}
    return tenant.settings.model_copy(update={"city": CITY, "meteo_state_dir": state, **urls})


@pytest.fixture
def environment(provider: Archive, state: Path) -> dict[str, str]:
    """The same for the command line."""
    return {"OPEN_METEO_ARCHIVE_URL": provider.url, "METEO_STATE_DIR": str(state)}


def take(settings: Settings, first: str = FIRST, last: str = LAST, **more: Any) -> None:
    backfill(settings, "open-meteo", date.fromisoformat(first), date.fromisoformat(last), **more)


def collected(tenant: Tenant) -> dict[Any, tuple[Any, Any]]:
    """Return state and rows of each day."""
    rows = tenant.query(
        "SELECT day, state, rows FROM collections WHERE (source, place) = ('open-meteo', 'Paris,FR@48.85,2.35')"
    )
    return {day: (state, number) for day, state, number in rows}


def observed(tenant: Tenant) -> list[Any]:
    """Return the hours that PostgreSQL has, each once."""
    tiers.consume(tenant)
    assert tenant.query("SELECT count(*) FROM dead_letters") == [(0,)]
    rows = tenant.query("SELECT DISTINCT date_time FROM weather WHERE value->>'station_id' = 'open-meteo:48.85,2.35'")
    return sorted(instant for (instant,) in rows)  # type: ignore[type-var]


def assert_complete(tenant: Tenant) -> None:
    zone = tenant.settings.zone
    lengths = {day: day_bounds(day, zone)[1] - day_bounds(day, zone)[0] for day in DAYS}
    assert collected(tenant) == {day: ("done", length // timedelta(hours=1)) for day, length in lengths.items()}
    start = day_bounds(DAYS[0], zone)[0]
    assert observed(tenant) == [start + timedelta(hours=hour) for hour in range(HOURS)]


def test_days_become_observations_and_are_asked_for_once(
    tenant: Tenant, provider: Archive, here: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    take(here, dry_run=True)
    planned = capsys.readouterr().out
    assert f"Paris,FR  {FIRST}…{LAST}  34      3      3\n" in planned
    assert "needs 3 weighted calls of 480 that are left for past days now; nothing was asked" in planned
    assert provider.asked == []

    take(here)
    said = capsys.readouterr().out
    assert said == f"Paris,FR: 34 days taken as {HOURS} messages; cost 3 weighted calls\n"
    assert provider.asked == CALLS
    assert_complete(tenant)
    assert tenant.query("SELECT count(*) FROM weather") == [(HOURS,)]
    assert tenant.query("SELECT sum(cost) FROM collections") == [(pytest.approx(3),)]

    take(here)
    assert capsys.readouterr().out.endswith("Paris,FR: 34 days, all there already\n")
    take(here, "2025-03-08", "2025-04-13", dry_run=True)
    planned = capsys.readouterr().out
    assert "2025-03-08…2025-03-09  2       1      1\n" in planned
    assert "2025-04-13             1       1      1\n" in planned
    assert "there already          34      0      0\n" in planned
    assert "needs 2 weighted calls of 477 " in planned
    assert provider.asked == CALLS


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("backfill.after_fetch", [*CALLS[:2], *CALLS[1:]]),
        ("backfill.after_send", [*CALLS[:2], *CALLS[1:]]),
        ("backfill.after_mark", CALLS),
    ],
)
def test_a_kill_at_a_named_place_is_made_good_by_the_next_run(
    tenant: Tenant, provider: Archive, environment: dict[str, str], name: str, asked: list[tuple[str, str]]
) -> None:
    process = tiers.start(tenant, *COMMAND, extra={**environment, "METEO_FAILPOINT": f"{name}:2"})
    assert process.wait(60) == -signal.SIGKILL
    assert {state for state, _ in collected(tenant).values()} == {"done"}
    tenant.meteo(*COMMAND, extra=environment)
    assert provider.asked == asked, "no day that is done is asked for again"
    assert_complete(tenant)


def test_every_failpoint_of_the_backfill_is_tested() -> None:
    (mark,) = test_a_kill_at_a_named_place_is_made_good_by_the_next_run.pytestmark  # type: ignore[attr-defined]
    assert [case[0] for case in mark.args[1]] == [name for name in FAILPOINTS if name.startswith("backfill.")]


def test_two_at_once_fetch_no_day_twice(
    tenant: Tenant, provider: Archive, here: Settings, environment: dict[str, str]
) -> None:
    provider.held.clear()
    first = tiers.start(tenant, *COMMAND, extra=environment)
    tiers.eventually("the first asks", lambda: provider.asked)
    with pytest.raises(TransientError, match=r"Another backfill of .* from open-meteo is at work"):
        take(here)
    provider.held.set()
    assert first.wait(60) == 0
    assert provider.asked == CALLS
    assert_complete(tenant)


def test_a_spent_budget_stops_it_and_it_goes_on(
    tenant: Tenant, provider: Archive, here: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    small = here.model_copy(update={"open_meteo_budget": "3/1d"})  # of which 2 are for past days
    with pytest.raises(BudgetSpentError) as stopped:
        take(small)
    assert re.fullmatch(
        r"The budget of Open-Meteo is spent but for the fifth that is kept for live weather \(OPEN_METEO_BUDGET\);"
        r" 8 of 34 days of Paris,FR are left: run the same command again in 2[34]\.\d h\.",
        str(stopped.value),
    )
    assert stopped.value.exit_code == 3
    assert "26 days taken" in capsys.readouterr().out
    assert len(collected(tenant)) == 26
    take(small, dry_run=True)
    assert "needs 1 weighted calls of 0 that are left" in capsys.readouterr().out
    with pytest.raises(UsageError, match="A day costs 1 weighted calls, more than OPEN_METEO_BUDGET leaves"):
        take(here.model_copy(update={"open_meteo_budget": "1/1d"}))
    take(here.model_copy(update={"open_meteo_budget": "none"}))
    assert provider.asked == CALLS
    assert_complete(tenant)


def test_days_that_are_not_there_yet_are_asked_for_again(
    tenant: Tenant, provider: Archive, here: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    provider.changes = {name: [*[1.0] * 80, *[None] * 16] for name in VARIABLES}
    take(here, last="2025-03-12")
    assert "2 days taken as 48 messages, 1 not there yet" in capsys.readouterr().out
    assert collected(tenant)[date(2025, 3, 12)] == ("empty", 0)
    provider.changes = {}
    take(here, last="2025-03-12")
    assert "1 day taken as 24 messages, 2 there already" in capsys.readouterr().out
    assert provider.asked == [("2025-03-09", "2025-03-12"), ("2025-03-11", "2025-03-12")]
    assert len(observed(tenant)) == 72


def test_a_refused_answer_is_kept_and_the_others_go_on(
    tenant: Tenant, provider: Archive, here: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = archive(*CALLS[0], temperature_2m=["warm"] * 14 * 24)
    inside = {"error": True, "reason": "Something went wrong."}
    provider.answers = [Response(msgspec.json.encode(each)) for each in (bad, inside)]
    with pytest.raises(RefusedError) as refused:
        take(here)
    assert refused.value.exit_code == 1
    assert str(refused.value).startswith("26 days failed (2025-03-10…2025-04-04), the first because current.temp")
    assert "8 days taken as 192 messages, 26 failed" in capsys.readouterr().out
    states = collected(tenant)
    assert [states[day][0] for day in DAYS] == ["failed"] * 26 + ["done"] * 8
    kept: list[Any] = tenant.query("SELECT body, reason FROM raw_responses ORDER BY raw_response_id")
    assert [msgspec.json.decode(bytes(body)) for body, _ in kept] == [{"archive": bad}, {"days": inside}]
    assert "Something went wrong" in kept[1][1]
    take(here)
    assert provider.asked == [*CALLS[:2], CALLS[2], *CALLS[:2]]
    assert_complete(tenant)
    assert tenant.query("SELECT count(*) FROM collections WHERE error IS NOT NULL") == [(0,)]


def test_one_refused_hour_fails_its_day_alone(tenant: Tenant, provider: Archive, here: Settings) -> None:
    notes = [""] * 14 * 24
    notes[54] = "\0"  # which no message may hold; the answer begins on 9 March, so it lies in the 11th
    provider.answers = [Response(msgspec.json.encode(archive(*CALLS[0], note=notes)))]
    with pytest.raises(RefusedError, match=r"1 day failed \(2025-03-11\), the first because contains"):
        take(here, last="2025-03-22")
    states = collected(tenant)
    assert states.pop(date(2025, 3, 11)) == ("failed", 0)
    assert set(states.values()) == {("done", 24)}
    assert len(observed(tenant)) == 12 * 24


def test_servers_that_are_away_cost_no_day_and_no_call(tenant: Tenant, provider: Archive, here: Settings) -> None:
    with pytest.raises(UnreachableError, match="34 of 34 days of Paris,FR are left"):
        take(here.model_copy(update={"bootstrap_servers": "127.0.0.1:9"}))
    with pytest.raises(UnreachableError, match="PostgreSQL at"):
        take(here.model_copy(update={"database_url": SecretStr("postgresql://meteo@127.0.0.1:9/weatherdb")}))
    assert provider.asked == [], "what cannot be sent or noted is not paid for"
    provider.answers = [Response(status=503), Response("{", content_type="application/json")]
    take(here)
    assert provider.asked == [CALLS[0], CALLS[0], *CALLS]
    provider.answers = [Response(status=429, headers={"Retry-After": "90"})]
    with pytest.raises(RateLimitedError, match=r"2 of 2 days .* left: run the same command again in 90 s\."):
        take(here, "2025-05-01", "2025-05-02")
    assert_complete(tenant)


def test_visual_crossing_within_its_thousand_records(
    httpserver: HTTPServer, here: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def answer(request: Request) -> Response:
        first, last = (date.fromisoformat(part) for part in request.path.split("/")[-2:])
        asked.append((last - first).days + 1)
        days = [_day_of_visual_crossing(first + timedelta(days=number)) for number in range(asked[-1])]
        return Response(msgspec.json.encode({"queryCost": 24 * asked[-1], "tzoffset": 1.0, "days": days}))

    httpserver.expect_request(re.compile("/VisualCrossingWebServices/.*")).respond_with_handler(answer)
    keyed = here.model_copy(update={"visual_crossing_api_key": SecretStr("k")})
    with pytest.raises(BudgetSpentError, match="1 of 34 days of Paris,FR are left"):
        backfill(keyed, "visual-crossing", DAYS[0], DAYS[-1])
    assert asked == [10, 10, 10, 3], "792 of 800: a fifth of the 1,000 is kept"
    assert "33 days taken as 792 messages; cost 792 records" in capsys.readouterr().out


def _day_of_visual_crossing(day: date) -> dict[str, Any]:
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) - 3600
    hours = [{"datetimeEpoch": start + 3600 * hour, "temp": 7.0, "source": "obs"} for hour in range(24)]
    return {"datetime": day.isoformat(), "datetimeEpoch": start, "hours": hours}
