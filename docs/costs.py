"""What the sources cost, from the code that asks and the answers that were recorded: tables of two pages.

Sizes are those of the message's key and value, as Kafka gets them, uncompressed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.accounts import Account, Accounts
from meteo_producer.api import Api, Endpoint
from meteo_producer.backfill import RESERVE
from meteo_producer.intervals import shortest_interval
from meteo_producer.source import FEEDS, Answers, Feed, Source, as_record, checked
from meteo_producer.sources import HISTORIES, SOURCES
from meteo_producer.visual_crossing import ELEMENTS

RECORDED = Path(__file__).resolve().parent.parent / "producer" / "tests" / "recorded"
DAY, YEAR = 86400, 365
PARIS = Place("Paris", "FR", 48.853, 2.349)
ASKED_AT = datetime(2030, 6, 1, 12, 0, 3, tzinfo=UTC)
"""After all recordings: no answer may be of the future."""
Params = Mapping[str, str | int | float]


def recorded(source: str, name: str) -> Any:
    """Return a recorded answer, parsed."""
    return json.loads((RECORDED / source / f"{name}.json").read_text("utf-8"))


class Recorded(Api):
    """Answers from recordings, cut to what is asked for, and counts the calls and what they cost."""

    HOURS: ClassVar[str] = "om_forecast__tpryan__all-params__0-0b016"
    PATHS: ClassVar[Mapping[str, str]] = {
        "/data/2.5/weather": "owm_current__xSAVIKx__by-city-name__0-93b78",
        "/data/2.5/forecast": "owm_forecast__ioBroker__forecast__0-3ff4e",
        "/data/2.5/air_pollution": "owm_air__programmatordev__MockResponse__4-470dd",
    }

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.cost = 0.0

    def get(self, endpoint: Endpoint, params: Params, about: str, cost: float = 1.0) -> Any:  # noqa: ARG002
        """Return the recorded answer of this address."""
        self.calls += 1
        self.cost += cost
        if endpoint.account == "openweather":
            return recorded("openweather", self.PATHS[endpoint.path])
        if endpoint.account == "visual-crossing":
            return self._timeline(endpoint.below, str(params["include"]))
        if endpoint.account == "open-meteo":
            return self._air(params) if endpoint.path == "/v1/air-quality" else self._blocks(params)
        return json.loads(min((RECORDED / endpoint.account).glob("*.json")).read_text("utf-8"))

    def _blocks(self, params: Params) -> Any:
        """Open-Meteo's recording has every hourly value of a week; no recording has quarters of an hour."""
        whole = recorded("open-meteo", self.HOURS)
        hourly, units = whole["hourly"], whole["hourly_units"] | whole["daily_units"]
        lengths = {"hourly": int(params.get("past_hours", 0)) + int(params.get("forecast_hours", 0)), "daily": 1}
        if "start_date" in params:
            lengths["hourly"] = 24 * ((_day(params, "end_date") - _day(params, "start_date")).days + 1)
        body = {name: value for name, value in whole.items() if not isinstance(value, dict)}
        for block in ("current", "minutely_15", "hourly", "daily"):
            if block not in params:
                continue
            names = ["time", *str(params[block]).split(",")]
            values = {name: (whole["daily"] if block == "daily" else hourly)[name] for name in names}
            if block == "current":
                body[block] = {name: each[0] for name, each in values.items()} | {"interval": 900}
            else:
                body[block] = {name: each[: lengths.get(block, 5)] for name, each in values.items()}
            body[f"{block}_units"] = {name: units[name] for name in names}
        return body

    def _air(self, params: Params) -> Any:
        answer = recorded("open-meteo", "om_forecast__home-assistant__air-quality-current")
        names = str(params["current"]).split(",")
        answer["current"] = {"time": "2025-07-27T03:00", "interval": 3600} | dict.fromkeys(names, 12.3)
        answer["current_units"] = {"time": "iso8601", "interval": "seconds"} | dict.fromkeys(names, "μg/m³")
        return answer

    def _timeline(self, below: str, include: str) -> Any:
        past = include == "hours"
        sample = "vc__essamatefelsherif__sample-01__0-83e96" if past else "vc__essamatefelsherif__sample-02__0-fdcd1"
        whole = recorded("visual-crossing", sample)
        body = {name: value for name, value in whole.items() if not isinstance(value, list)}
        body["currentConditions"] = _elements(whole.get("currentConditions", {}))
        body["days"] = [
            _elements(day) | ({"hours": [_elements(hour) for hour in day["hours"]]} if "hours" in include else {})
            for day in whole["days"][: 6 if "next5days" in below else 1]
        ]
        return body


def _day(params: Params, name: str) -> date:
    return date.fromisoformat(str(params[name]))


def _elements(block: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name in ELEMENTS.split(",")}


def settings() -> Settings:
    """Return the defaults, with keys that open no door."""
    return Settings.model_validate({name: "none" for name in Settings.model_fields if name.endswith("_api_key")})


def polls_table() -> str:
    """Return what a place costs that is polled at the default intervals."""
    rows = [
        "| source | calls | cost | free allowance | places | bytes of a message, with forecast | bytes a year |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(poll_row(name, settings()) for name in SOURCES)]) + "\n"


def poll_row(name: str, given: Settings) -> str:
    """Return the row of one source."""
    seldom = DAY // given.forecast_every
    often = DAY // given.produce_every - seldom
    account = Accounts.in_memory(given).of(name)
    source: Source = SOURCES[name](given, Recorded())
    calls, cost, year, sizes = 0, 0.0, 0, []
    for feeds, times in ((("current",), often), (FEEDS, seldom)):
        api = Recorded()
        sizes.append(message_bytes(SOURCES[name](given, api), feeds))
        calls += times * api.calls
        cost += times * api.cost
        year += YEAR * times * sizes[-1]
    cells = (
        f"`{name}`",
        f"{calls}",
        f"{cost:.4g} {account.unit}" if account else "nothing",
        _allowed(account) if account else "–",
        f"{places(source, account, given):,}" if account else "any",
        f"{sizes[0] / 1000:.1f} kB, {sizes[1] / 1000:.{0 if sizes[1] >= 10_000 else 1}f} kB",
        f"{year / 1e6:.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


def days_table() -> str:
    """Return what past days cost."""
    rows = [
        "| source | a year costs | usable per day | so a day fetches | one call | messages a year |",
        "|---|---|---|---|---|---|",
    ]
    for name, make in HISTORIES.items():
        history = make(settings(), Recorded())
        account = Accounts.in_memory(settings())[name]
        step = history.days_per_call
        year = [min(step, YEAR - first) for first in range(0, YEAR, step)]
        cost = sum(map(history.cost, year))
        usable = min((1 - RESERVE) * each.amount * DAY / each.seconds for each in account.allowances)
        first = date(2025, 7, 27)
        answers = history.fetch_days(PARIS, first, first, datetime(2025, 8, 1, tzinfo=UTC))
        size = mean(sum(map(len, as_record(checked(message)))) for _, message in history.normalise_days(answers))
        cells = (
            f"`{name}`",
            f"{cost:,.0f} {account.unit}",
            f"{usable:,.0f} {account.unit}",
            f"{_years(usable / cost)} of a place",
            f"{step} days, {history.cost(step):g} of it",
            f"8,760, {8760 * size / 1e6:.0f} MB",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def message_bytes(source: Source, feeds: Collection[Feed]) -> int:
    """Return the bytes of the record that a poll for these feeds brings."""
    answers: Answers = source.fetch(PARIS, feeds, ASKED_AT)
    return sum(map(len, as_record(checked(source.normalise(answers)))))


def places(source: Source, account: Account, given: Settings) -> int:
    """Return for how many places the default intervals need not be stretched."""
    often = source.poll_cost(["current"])
    seldom = source.poll_cost(FEEDS) - often
    number = 0
    while (
        shortest_interval((number + 1) * often, (number + 1) * seldom, given.forecast_every, account.allowances)
        <= given.produce_every
    ):
        number += 1
    return number


def mean(numbers: Iterable[int]) -> float:
    """Return the arithmetic mean."""
    listed = list(numbers)
    return sum(listed) / len(listed)


def _years(years: float) -> str:
    return f"{years:.0f} years" if years >= 2 else f"{math.floor(years * YEAR)} days"


def _allowed(account: Account) -> str:
    units = ((DAY, "day"), (3600, "hour"), (60, "minute"))
    words = []
    for each in account.allowances:
        size, unit = next((size, unit) for size, unit in units if each.seconds % size == 0)
        count = each.seconds // size
        words.append(f"{each.amount:,} per {f'{count} {unit}s' if count > 1 else unit}")
    return ", ".join(words)


TABLES = {"polls": polls_table, "days": days_table}


def with_tables(page: str) -> str:
    """Return a page with each of its tables made anew: what lies between `<!-- table NAME … -->` and `<!-- end -->`."""
    for name, make in TABLES.items():
        start = f"<!-- table {name}: made by docs/generate.py -->\n"
        before, found, rest = page.partition(start)
        if found:
            page = before + start + make() + "<!-- end -->" + rest.partition("<!-- end -->")[2]
    return page
