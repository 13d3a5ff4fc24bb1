"""Stored answers normalised again by a higher version: through real servers, to the aggregates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import tiers
from archived import archive
from recordings import NOW, PARIS, answers, load

import meteo_common.message as contract
from conftest import Tenant
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.delivery import Delivery
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.open_meteo_archive import OpenMeteoArchive
from meteo_producer.openweather import OpenWeather
from meteo_producer.raw_responses import RawResponses
from meteo_producer.source import Answers, as_record
from meteo_producer.stored import Outcome, normalise_stored

DAY = date(2025, 7, 1)
COLLECTED_AT = datetime(2025, 7, 3, 8, 0, 0, 120000, tzinfo=UTC)
OPENWEATHER = "owm_current__xSAVIKx__by-city-id__1-d58f9"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an API was asked")

    monkeypatch.setattr(Api, "get", refuse)


@pytest.fixture
def warmer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the next version of the normaliser, which understands temperatures as 10 °C higher."""

    def raise_version() -> None:
        original = OpenMeteo.normalise

        def normalise(self: OpenMeteo, given: Answers) -> Any:
            message = original(self, given)
            assert message.observation.temperature_celsius is not None
            message.observation.temperature_celsius += 10
            return message

        monkeypatch.setattr(OpenMeteo, "normalise", normalise)
        monkeypatch.setattr(contract, "NORMALISER_VERSION", contract.NORMALISER_VERSION + 1)

    return raise_version


def send(tenant: Tenant, messages: list[Any]) -> None:
    with Delivery(tenant.settings) as delivery:
        for message in messages:
            delivery.send(*as_record(message))
        delivery.confirm()
    tiers.consume(tenant)


def past_day(settings: Settings, collected_at: datetime = COLLECTED_AT, place: Place = PARIS) -> list[Any]:
    given = Answers(place, collected_at, {"archive": archive("2025-06-30", "2025-07-01")})
    return [message for _, message in OpenMeteoArchive(settings, Api()).normalise_days(given)]


def rows(tenant: Tenant) -> int:
    (found,) = tenant.query("SELECT count(*) FROM weather")
    return int(str(found[0]))


def aggregates(tenant: Tenant) -> dict[str, Any]:
    """Return the day's aggregates by station, after export and aggregation."""
    tiers.export(tenant)
    tiers.aggregate(tenant)
    lines = tiers.read_aggregates(tenant)[DAY.isoformat()].splitlines()
    return {line["station_id"]: line for line in map(json.loads, lines)}


def test_the_aggregates_come_from_the_higher_version(tenant: Tenant, warmer: Callable[[], None]) -> None:
    settings = tenant.settings
    older = past_day(settings, COLLECTED_AT - timedelta(hours=1))
    send(tenant, [*older, *past_day(settings)])
    before = aggregates(tenant)["open-meteo:48.85,2.35"]
    assert normalise_stored(settings, DAY, DAY) == Outcome(0, 24, 0), "this version made them itself"

    warmer()
    assert normalise_stored(settings, DAY, DAY) == Outcome(24, 0, 0)
    tiers.consume(tenant)
    assert rows(tenant) == 72
    fresh: list[Any] = tenant.query("SELECT value FROM weather WHERE (value->>'normaliser_version')::int = 2")
    assert {value["collected_at"] for (value,) in fresh} == {"2025-07-03T08:00:00.120000Z"}
    after = aggregates(tenant)["open-meteo:48.85,2.35"]
    assert after["temperature_avg_celsius"] == pytest.approx(before["temperature_avg_celsius"] + 10)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"temperature_{name}_celsius" for name in ("avg", "min", "max")}

    assert normalise_stored(settings, DAY, DAY) == Outcome(0, 24, 0), "the second time adds nothing"
    tiers.consume(tenant)
    assert rows(tenant) == 72
    tiers.assert_clean(tenant)


def test_only_the_days_and_places_that_are_wanted(tenant: Tenant, warmer: Callable[[], None]) -> None:
    elsewhere = Place("Lyon", "FR", 45.75, 4.85)
    send(tenant, [*past_day(tenant.settings), *past_day(tenant.settings, place=elsewhere)])
    tiers.publish(tenant, "2013-07-01", "2013-07-01")
    tiers.consume(tenant)
    warmer()
    assert normalise_stored(tenant.settings, DAY - timedelta(days=1), DAY - timedelta(days=1)) == Outcome(0, 0, 0)
    assert normalise_stored(tenant.settings, DAY, DAY, (Place("lyon", "FR"),)) == Outcome(24, 0, 0)
    recorded = date(2013, 7, 1)
    assert normalise_stored(tenant.settings, recorded, recorded) == Outcome(0, 0, 0), "a recording has no answer"


def test_openweather_is_understood_in_the_units_that_were_asked_for(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = load("openweather", OPENWEATHER)  # in kelvin
    celsius = {**body["main"], "temp": body["main"]["temp"] - 273.15, "feels_like": 10}
    source = OpenWeather(tenant.settings, Api())
    live = source.normalise(answers({"current": body | {"main": celsius}}, "metric"))
    refused = replace(answers({"current": body | {"dt": body["dt"] + 600}}, "standard"), collected_at=NOW)
    RawResponses(tenant.settings).store("openweather", refused, "was not understood")
    send(tenant, [live])
    monkeypatch.setattr(contract, "NORMALISER_VERSION", 2)
    observed, asked = live.observed_at.date(), NOW.date()
    assert normalise_stored(tenant.settings, observed, asked) == Outcome(2, 0, 0)
    tiers.consume(tenant)
    found: list[Any] = tenant.query(
        "SELECT value FROM weather WHERE value->>'normaliser_version' = '2' ORDER BY date_time"
    )
    warmth = [value["observation"]["temperature_celsius"] for (value,) in found]
    assert warmth == [pytest.approx(celsius["temp"])] * 2


def test_refused_answers_become_messages_once_they_are_understood(tenant: Tenant) -> None:
    stored = RawResponses(tenant.settings)
    given = {"archive": archive("2025-06-30", "2025-07-01")}
    stored.store("open-meteo", Answers(PARIS, COLLECTED_AT, given), "was not understood")
    stored.store("open-meteo", Answers(PARIS, COLLECTED_AT, {"current": {"error": True}}), "the answer is the error")
    stored.store("bbc", Answers(PARIS, COLLECTED_AT, {"current": {}}), "unknown")
    tenant.query(
        "INSERT INTO collections (source, place, day, state, collected_at, error) VALUES"
        " ('open-meteo', 'Paris,FR@48.85,2.35', %s, 'failed', now(), 'was not understood')",
        DAY,
    )
    on = COLLECTED_AT.date()
    assert normalise_stored(tenant.settings, on - timedelta(days=1), on - timedelta(days=1)) == Outcome(0, 0, 0)
    assert normalise_stored(tenant.settings, on, on) == Outcome(24, 0, 2)
    assert normalise_stored(tenant.settings, on, on) == Outcome(0, 0, 2)
    tiers.consume(tenant)
    assert rows(tenant) == 24
    assert tenant.query("SELECT DISTINCT value->>'collected_at' FROM weather") == [("2025-07-03T08:00:00.120000Z",)]
    assert tenant.query("SELECT state, rows, error FROM collections") == [("done", 24, None)]
    kept = tenant.query("SELECT normalised_at IS NULL, reason FROM raw_responses ORDER BY raw_response_id")
    assert kept == [(False, "was not understood"), (True, "the answer is the error"), (True, "unknown")]


def test_an_answer_that_is_not_understood_any_more_leaves_its_message(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = past_day(tenant.settings)
    good[0].raw["archive"]["hourly"]["temperature_2m"] = ["warm"]
    send(tenant, good)
    monkeypatch.setattr(contract, "NORMALISER_VERSION", 2)
    assert normalise_stored(tenant.settings, DAY, DAY) == Outcome(23, 0, 1)
