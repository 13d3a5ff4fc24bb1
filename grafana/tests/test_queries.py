"""Every query of every panel and variable, put to a real Prometheus and PostgreSQL, and the answers drawn."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import running
import yaml
from watched import Watched, eventually

from conftest import Tenant
from proof.asking import Sources, is_empty
from proof.drawing import draw
from proof.played import play
from proof.stack import answers_of, sources_of, span_of, titles_of, variables_of

pytestmark = pytest.mark.deployment

BOARDS = [
    json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).resolve().parents[1] / "dashboards").glob("*.json"))
]
PLACES = "Paris,FR@48.85,2.35;Oslo,NO@59.91,10.75"
PREFIXES = "meteo|pg|node|kafka|jvm|process|fs|queue|cluster|server|datanode"
PANELS = [
    pytest.param(board, panel, id=f"{board['uid']}: {panel['title']}")
    for board in BOARDS
    for panel in board["panels"]
    if panel["type"] != "row"
]


@pytest.fixture(scope="module")
def sources(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """The data sources of the watched stack, with two weeks of weather, and a producer that has a budget.

    That producer asks Open-Meteo, which is not at the address that it is given, and falls back to the simulation: so it
    also has failures to tell. It takes the place of the deployed one, which asks nobody, in Prometheus' eyes too.
    """
    settings = watched.settings.model_copy(update={"city": PLACES})
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    play(settings, hour - timedelta(days=13), hour)
    state = watched.directory / "data" / "proof"
    state.mkdir(exist_ok=True)
    shutil.chown(state, watched.directory.stat().st_uid, watched.directory.stat().st_gid)
    services = json.loads((watched.directory / "stack.json").read_text("utf-8"))["services"]
    extra = {
        "METEO_METRICS_PORT": str(services["producer"]["ports"]["metrics"]),
        "METEO_STATE_DIR": str(state),
        "OPEN_METEO_URL": "http://127.0.0.1:9",
        "OPEN_METEO_AIR_QUALITY_URL": "http://127.0.0.1:9",
        "FALLBACK": "simulation",
        "CITY": PLACES,
    }
    watched.stop("producer")
    log = tmp_path_factory.mktemp("log") / "producer.log"
    producer = running.launch(Tenant(watched.settings), "produce", "--every", "2s", log=log, extra=extra)
    try:
        found = sources_of(watched.directory)
        eventually(lambda: watched.query("meteo_budget_limit and on () meteo_reconcile_mismatches == 0"), "a budget")
        # What is counted since the start has a rate only when it was scraped some times, HBase's every six seconds.
        time.sleep(30)
        eventually(lambda: not _behind(watched), "an aggregation of all that was played", 300)
        yield found
    finally:
        producer.kill()
        watched.start("producer")


def _behind(watched: Watched) -> bool:
    parts = ("lag_records", "rows_to_export", "days_changed")
    waiting = watched.query(" + ".join(f"sum(meteo_pipeline_{part})" for part in parts))
    return not waiting or waiting[0][1] > 200


@pytest.mark.parametrize(("board", "panel"), PANELS)
def test_every_query_is_answered(sources: Sources, board: dict[str, Any], panel: dict[str, Any]) -> None:
    span = span_of(board, sources)
    variables = variables_of(board, sources, span)
    for target in panel["targets"]:
        # HBase answers late when the machine is busy; then its series pause.
        def answered(target: dict[str, Any] = target) -> bool:
            return not is_empty(sources.frames(target, variables, span_of(board, sources)))

        eventually(answered, f"an answer to {target.get('expr') or target['rawSql']}", 60)


def test_every_metric_is_there(sources: Sources) -> None:
    """`or vector(0)` would answer for a metric whose name is wrong."""
    known = sources.metrics()
    asked = {
        name
        for board in BOARDS
        for panel in board["panels"]
        for target in panel.get("targets") or []
        for name in re.findall(rf"\b((?:{PREFIXES})_\w+[a-z0-9])(?=[\s{{\[)]|$)", target.get("expr", ""))
    }
    assert len(asked) > 60
    assert asked - known == set()


def test_a_wrong_query_is_not_taken_for_an_answer(sources: Sources) -> None:
    span = span_of(BOARDS[0], sources)
    with pytest.raises(ValueError, match="parse error"):
        sources.frames({"expr": "rate(up)[", "refId": "A"}, {}, span)
    with pytest.raises(ValueError, match="does not exist"):
        sources.frames({"rawSql": "SELECT no_such_column FROM weather", "format": "table"}, {}, span)
    assert is_empty(sources.frames({"expr": "meteo_no_such_metric", "refId": "A"}, {}, span))
    assert is_empty(sources.frames({"rawSql": "SELECT NULL AS nothing", "format": "table"}, {}, span))


def test_every_place_can_be_chosen(sources: Sources) -> None:
    for board in BOARDS:
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                stations = sources.values(variable, span_of(board, sources))
                assert {"simulation:48.85,2.35", "simulation:59.91,10.75"} <= set(stations)
                assert len(stations) == len(set(stations))


@pytest.mark.parametrize("board", BOARDS, ids=[board["uid"] for board in BOARDS])
def test_board_can_be_drawn(sources: Sources, board: dict[str, Any], tmp_path: Path) -> None:
    span = span_of(board, sources)
    answers = answers_of(board, sources, variables_of(board, sources, span), span)
    named = titles_of(board, sources, span)
    titles = {panel["id"]: panel["title"] for panel in board["panels"]}
    draw(board, answers, titles, " ".join(named.values()), tmp_path / "board.png")
    assert 40_000 < (tmp_path / "board.png").stat().st_size < 300_000


def test_the_dashboards_role_may_read_and_nothing_else(watched: Watched, sources: Sources) -> None:
    connection = psycopg2.connect(sources.postgresql)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == (False, False, False)
            cursor.execute("SELECT count(*) FROM weather")
            assert cursor.fetchone() != (0,)
        connection.rollback()
        for statement in ("DELETE FROM weather", "UPDATE positions SET next_offset = 0", "CREATE TABLE mine (id INT)"):
            with connection.cursor() as cursor, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cursor.execute(statement)
            connection.rollback()
            # Read-only is only the session's habit; the privileges say it too.
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION READ WRITE")
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)
            connection.rollback()
    finally:
        connection.close()


def test_what_grafana_needs_is_rendered_and_urls_says_that_it_is_missing(watched: Watched) -> None:
    home = watched.directory / "services" / "grafana" / "provisioning"
    project = Path(__file__).resolve().parents[1]
    for name in ("datasources/meteo.yml", "dashboards/meteo.yml"):
        rendered, written = ((path / name).read_text("utf-8") for path in (home, project / "provisioning"))
        assert yaml.safe_load(rendered) == yaml.safe_load(written)
    copied = {path.name: path.read_text("utf-8") for path in (watched.directory / "data/grafana/dashboards").iterdir()}
    assert copied == {path.name: path.read_text("utf-8") for path in (project / "dashboards").iterdir()}
    described = json.loads((watched.directory / "stack.json").read_text("utf-8"))
    assert ("grafana" in described["services"]) != any("Grafana" in note for note in described["notes"])
