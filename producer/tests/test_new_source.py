"""The source that docs/new-source.md adds: taken from the page, it is polled, charged and mangled as any other."""

from __future__ import annotations

import importlib.util
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mangling import check_any_json, check_mutations
from pytest_httpserver import HTTPServer
from recordings import PARIS, load, names, understood

import costs
import meteo_common.settings
from meteo_common.message import decode, encode
from meteo_common.settings import Settings
from meteo_producer.accounts import Accounts
from meteo_producer.api import Api
from meteo_producer.coordinates import Coordinates
from meteo_producer.outbox import Outbox
from meteo_producer.poll import Poll
from meteo_producer.produce import open_sources
from meteo_producer.source import Source
from meteo_producer.sources import SOURCES
from meteo_producer.state import State

PAGE = (Path(__file__).parents[2] / "docs" / "new-source.md").read_text("utf-8")
BLOCK = re.compile(r"`(?P<path>[\w./-]+\.(?:py|json))`[^`]*\n\n```(?:python|json)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = {Path(match["path"]).name: match["text"] for match in BLOCK.finditer(PAGE)}
NAME = "station-network"


@dataclass(frozen=True)
class Added:
    """The source as the page adds it: its settings' class, and the folder of recorded answers."""

    settings: type[Settings]
    folder: Path

    def ask(self, settings: Settings) -> Source:
        """Return the source with these settings."""
        return SOURCES[NAME](settings, Api(Accounts.in_memory(settings)))


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Added:
    """The four blocks of the page, put where it says, but for this test alone."""
    module_file = tmp_path / "station_network.py"
    module_file.write_text(BLOCKS["station_network.py"])
    spec = importlib.util.spec_from_file_location("meteo_producer.station_network", module_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    registered = eval("{" + BLOCKS["sources.py"] + "}", vars(module))  # noqa: S307
    assert len(BLOCKS["sources.py"].splitlines()) == len(registered) == 1
    for name, source in registered.items():
        monkeypatch.setitem(SOURCES, name, source)  # type: ignore[arg-type]
    fields = "class More(Settings):\n" + textwrap.indent(BLOCKS["settings.py"], "    ")
    scope: dict[str, Any] = {**vars(meteo_common.settings), "__module__": __name__}
    exec(fields, scope)  # noqa: S102
    folder = tmp_path / "recorded"
    (folder / NAME).mkdir(parents=True)
    (folder / NAME / "nearest.json").write_text(BLOCKS["nearest.json"])
    return Added(scope["More"], folder)


def test_the_page_has_all_that_a_source_is() -> None:
    assert set(BLOCKS) == {"nearest.json", "station_network.py", "settings.py", "sources.py"}


def test_it_is_polled_over_http_within_its_budget(added: Added, httpserver: HTTPServer, tmp_path: Path) -> None:
    asked = httpserver.expect_request("/v1/nearest", query_string={"latitude": "48.853", "longitude": "2.349"})
    asked.respond_with_data(BLOCKS["nearest.json"])
    values = {"station_network_url": httpserver.url_for(""), "meteo_state_dir": tmp_path, "fallback": NAME}
    settings = added.settings.model_validate(values)
    accounts = Accounts.in_memory(settings)
    api = Api(accounts)
    sources = open_sources(settings, NAME, api)
    poll = Poll(sources, Coordinates(settings, api), Outbox(State(), "topic"), settings.forecast_every)
    message = poll.ask(PARIS)
    assert decode(encode(message)) == message
    assert (message.source, message.station_id, message.city) == (NAME, "station-network:FR-0042", "Paris")
    assert message.observed_at.timestamp() == load(NAME, "nearest", added.folder)["measured"]
    assert message.observation.temperature_celsius == 7.1
    assert message.observation.wind_speed_mps == pytest.approx(11.2 / 3.6)
    assert message.raw == {"current": load(NAME, "nearest", added.folder)}
    (account,) = [report for report in accounts.reports() if report.account.name == NAME]
    assert [(window.used, window.limit) for window in account.windows] == [(1, 60)]
    assert (account.account.unit, account.account.budget_setting) == ("calls", "STATION_NETWORK_BUDGET")


def test_its_recorded_answers_are_found_and_understood(added: Added) -> None:
    assert names(NAME, folder=added.folder) == ["nearest"]
    assert len(understood(added.ask(added.settings.model_validate({})), NAME, added.folder)) == 1


def test_what_it_costs_is_computed(added: Added, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "RECORDED", added.folder)
    row = costs.poll_row(NAME, added.settings.model_validate({}))
    # 60 calls a minute, of which 90 % are used: 540 places every 10 minutes.
    assert row.startswith(f"| `{NAME}` | 144 | 144 calls | 60 per minute | 540 | 0.")


def test_it_is_mangled_as_any_other(added: Added) -> None:
    source = added.ask(added.settings.model_validate({}))
    (body,) = understood(source, NAME, added.folder)
    check_mutations(source, {"current": body})
    check_any_json(source, {"current": body})
