"""What can be known of the dashboards without a server: they are current, well typed, whole, and locked."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from meteo_common.settings import meteo_home
from meteo_grafana.files import dashboards
from proof.filling import Range, fill_promql, fill_sql
from proof.types import compile_all, source

GRAFANA = Path(__file__).resolve().parents[1]
BOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}
COMPILED = pytest.mark.xdist_group("types")  # in one folder
CHECK = meteo_home() / ".cache" / "dashboards-check"

PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]


def test_json_is_that_of_the_code() -> None:
    made = dashboards()
    stale = [path.name for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    assert not stale, f"run grafana/generate.py: {', '.join(stale)}"
    assert {path.stem for path in made} == BOARDS.keys()


@COMPILED
def test_types_are_grafanas() -> None:
    assert compile_all(BOARDS, CHECK) == ""


@COMPILED
def test_types_find_what_is_wrong() -> None:
    """One wrong thing of each kind; that each is found shows that all of a dashboard is looked at."""
    wrong: dict[str, tuple[tuple[str | int, ...], object]] = {
        "type": (("panels", 1, "gridPos", "w"), "4"),
        "key": (("panels", 1, "descripton"), "an unknown key"),
        "option": (("panels", 1, "options", "colorMode"), "colourful"),
        "query": (("panels", 1, "targets", 0, "format"), "figures"),
        "variable": (("templating", "list", 0, "hide"), "no"),
    }
    boards = {name: json.loads(json.dumps(BOARDS["meteo-weather"])) for name in wrong}
    for name, (path, value) in wrong.items():
        place = boards[name]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    found = compile_all(boards, CHECK)
    assert set(re.findall(r"^(\w+)\.ts.*error TS", found, re.MULTILINE)) == wrong.keys()


def test_every_panel_is_typed() -> None:
    for board in BOARDS.values():
        text = source(board)
        kinds = [panel["id"] for panel in board["panels"] if panel["type"] != "row"]
        assert len(kinds) > 15
        assert all(f"panel{number}options" in text for number in kinds)


@pytest.mark.parametrize("panel", PANELS)
def test_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert len(panel["title"]) > 2
    assert len(panel["description"]) > 20
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    if "legend" in panel["options"]:
        assert panel["options"]["legend"]["showLegend"]
    for target in panel["targets"]:
        # A series of SQL is named by its column, which the statement itself names.
        assert target.get("legendFormat") or re.search(r"\bAS \"?\w", target["rawSql"])


@pytest.mark.parametrize("panel", PANELS)
def test_panel_asks_its_own_data_source(panel: dict[str, Any]) -> None:
    assert re.fullmatch(r"\$\{(prometheus|postgresql)\}", panel["datasource"]["uid"])
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {panel["datasource"]["uid"]}
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_board_is_stable_and_locked(board: dict[str, Any]) -> None:
    assert re.fullmatch(r"meteo-[a-z]+", board["uid"])
    assert board["editable"] is False
    assert "id" not in board or board["id"] is None
    kinds = [variable["query"] for variable in board["templating"]["list"] if variable["type"] == "datasource"]
    assert kinds == ["prometheus", "grafana-postgresql-datasource"]
    ids = [panel["id"] for panel in board["panels"]]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_lines_of_panels_are_full_and_do_not_overlap(board: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
    rows = max(y for _, y in taken) + 1
    assert taken == {(x, y) for x in range(24) for y in range(rows)}


def test_places_can_be_chosen() -> None:
    for name in ("meteo-weather", "meteo-pipeline"):
        queries = [variable for variable in BOARDS[name]["templating"]["list"] if variable["type"] == "query"]
        assert [variable["name"] for variable in queries] == ["station"]
        assert "$station" in json.dumps(BOARDS[name]["panels"])


def test_provisioning_locks_the_dashboards_and_names_their_sources() -> None:
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/meteo.yml").read_text("utf-8"))["providers"][0]
    assert provider["allowUiUpdates"] is False
    assert provider["disableDeletion"] is True
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/meteo.yml").read_text("utf-8"))["datasources"]
    assert all(source["editable"] is False for source in sources)
    wanted = {
        (variable["current"]["value"], variable["query"])
        for board in BOARDS.values()
        for variable in board["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert {(source["uid"], source["type"]) for source in sources} == wanted


def test_no_lock_names_a_registry() -> None:
    lock = json.loads((GRAFANA / "check" / "package-lock.json").read_text("utf-8"))
    assert lock["packages"]["node_modules/@grafana/schema"]["version"] == "10.4.2"
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []


def test_queries_are_filled_in_as_grafana_does(span: Range) -> None:
    several = {"station": ["a:1.5,2", "b:c+d"]}
    assert fill_promql('x{s=~"$station"}', several, span) == r'x{s=~"(a:1\\.5,2|b:c\\+d)"}'
    assert fill_promql('x{s="${station}"}[$__rate_interval]', {"station": "b.c"}, span) == 'x{s="b.c"}[60s]'
    assert fill_sql("$__timeGroupAlias(t, $__interval)", {}, span) == 'floor(extract(epoch from t)/15)*15 AS "time"'
    assert fill_sql("$__timeFilter(f(t))", {}, span).startswith("f(t) BETWEEN '2026-11-01T00:00:00+00:00' AND '")
    with pytest.raises(ValueError, match=r"\$place is no variable"):
        fill_sql("SELECT '$place'", {}, span)
    with pytest.raises(ValueError, match="no macro"):
        fill_sql("$__timeGroop(t, 1m)", {}, span)


@pytest.fixture
def span() -> Range:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return Range(start, start + timedelta(hours=1))
