"""A provider on this machine: each answer is the recorded one with a time of its own, so that none is like another."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import campaign
import running
from pytest_httpserver import HTTPServer
from recordings import load
from running import Running
from werkzeug import Request, Response

from conftest import Tenant

KEY = "0123456789abcdef0123456789abcdef"
PLACES = 10
OpenWeatherTime = int
"""`dt`, unix seconds: the observation's time, by which these tests know an answer."""


class WeatherHost:
    """Answers as OpenWeather does.

    `given`: the times of its answers, in their order; `delay`: the seconds that each takes.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.given: list[OpenWeatherTime] = []
        self.last: dict[str, OpenWeatherTime] = {}
        """The last answer of each producer that was started, by the first part of the path that it asks for."""
        self.delay = 0.0
        self._started = 0
        self._url = server.url_for("")
        self._recorded = load("openweather", "owm_current__MagicMirrorOrg__weather-owm-current__0-cfc28")
        server.expect_request(re.compile("/[0-9]+/data/2.5/weather")).respond_with_handler(self._answer)

    def produce(self, tenant: Tenant, log: Path, extra: Mapping[str, str] | None = None) -> Running:
        """Start the producer's service, which asks every second about each place."""
        self._started += 1
        environment = {
            "OPENWEATHER_URL": f"{self._url}/{self._started}",
            "OPENWEATHER_API_KEY": KEY,
            "OPENWEATHER_BUDGET": "none",
            "CITY": ";".join(f"Place{number},FR@{number}.5,2.5" for number in range(PLACES)),
        }
        command = ("produce", "--source", "openweather", "--feed", "current", "--every", "1s")
        return running.start(tenant, *command, log=log, extra={**environment, **(extra or {})})

    def _answer(self, request: Request) -> Response:
        observed = self._recorded["dt"] + 60 * len(self.given)
        self.given.append(observed)
        self.last[request.path.split("/")[1]] = observed
        time.sleep(self.delay)
        return Response(json.dumps(self._recorded | {"dt": observed}), content_type="application/json")


def outbox(tenant: Tenant) -> list[OpenWeatherTime]:
    """Return the answers whose messages wait in the producer's outbox, in their order."""
    with closing(sqlite3.connect(tenant.settings.meteo_state_dir / "producer.sqlite")) as state:  # type: ignore[operator]
        return [_time(value) for (value,) in state.execute("SELECT value FROM outbox ORDER BY id")]


def in_topic(tenant: Tenant) -> Counter[OpenWeatherTime]:
    """Return how often each answer's message is in the topic."""
    log, _, _ = campaign.read_log(tenant)
    return Counter(_time(record.value) for records in log.values() for record in records.values())


def in_table(tenant: Tenant) -> Counter[OpenWeatherTime]:
    """Return how often each answer's message is in `weather`."""
    return Counter(_time(json.dumps(value).encode()) for (value,) in tenant.query("SELECT value FROM weather"))


def _time(message: bytes) -> OpenWeatherTime:
    return int(json.loads(message)["raw"]["current"]["dt"])
