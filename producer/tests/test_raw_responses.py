"""Refused answers are kept once, as they were, for so many days."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from recordings import NOW, PARIS, answers

from conftest import Tenant
from meteo_common.database import open_database
from meteo_common.errors import UnreachableError
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.raw_responses import RawResponses
from meteo_producer.source import Answers

BODIES: list[dict[str, Any]] = [
    {"current": {"main": {"temp": "warm"}, "name": "Zürich 東京 🌧"}},
    {"current": {"a": "\0", "b": 10**400, "c": 1.5, "d": None, "e": [True, -0.0]}},
    {"current": {"half a pair": "\ud800"}},
    {"archive": [1, 2, 3]},
]


def pending(tenant: Tenant, start: int = -1, end: int = 1) -> list[tuple[str, Answers, str]]:
    stored = RawResponses(tenant.settings)
    with closing(open_database(tenant.settings, "test")) as connection:
        window = NOW + timedelta(seconds=start), NOW + timedelta(seconds=end)
        return [(each.source, each.answers, each.reason) for each in stored.pending(connection, *window)]


def test_answers_come_back_as_they_were_and_only_once(tenant: Tenant) -> None:
    stored = RawResponses(tenant.settings)
    given = [Answers(PARIS, NOW, body, "metric") for body in BODIES] + [Answers(Place("Paris", "FR"), NOW, {}, None)]
    for each in given * 2:
        stored.store("openweather", each, "main.temp is a text\0")
    found = pending(tenant)
    assert {repr(each) for _, each, _ in found} == {repr(each) for each in given}
    assert len(found) == len(given)
    assert {(source, reason) for source, _, reason in found} == {("openweather", "main.temp is a text\ufffd")}
    assert pending(tenant, 1, 2) == pending(tenant, -2, 0) == []


def test_what_is_normalised_is_not_pending(tenant: Tenant) -> None:
    stored = RawResponses(tenant.settings)
    stored.store("open-meteo", answers({"current": {}}), "no current values")
    stored.mark_normalised([1])
    assert pending(tenant) == []


def test_answers_go_after_their_days(tenant: Tenant) -> None:
    stored = RawResponses(tenant.settings.model_copy(update={"raw_responses_days": 3}))
    for number in range(3):
        stored.store("open-meteo", answers({"current": number}), "no object")
    tenant.query("UPDATE raw_responses SET received_at = now() - interval '73 hours' WHERE raw_response_id < 3")
    stored.store("open-meteo", answers({"current": 2}), "no object")
    assert tenant.query("SELECT raw_response_id FROM raw_responses") == [(3,)]


def test_without_postgresql_nothing_is_pretended() -> None:
    away = Settings.model_validate({"database_url": "postgresql://meteo@127.0.0.1:9/weatherdb"})
    with pytest.raises(UnreachableError, match="PostgreSQL at"):
        RawResponses(away).store("open-meteo", answers({}), "reason")
