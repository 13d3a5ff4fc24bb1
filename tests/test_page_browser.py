"""The page as a person sees it, in a headless Chromium: its content, on a phone, light and dark, and to axe-core."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import running
import tiers
from browsing import browser
from paging import NOTE, Page, simulate, start_page
from running import Running

from conftest import Tenant, TenantMaker

FIRST, LAST = "2013-03-29", "2013-03-31"
LOOKS = [{"dark": dark, "phone": phone} for dark in (False, True) for phone in (False, True)]
SCRIPT = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def tenant(make_tenant: TenantMaker) -> Tenant:
    """A tenant with three recorded days and one current observation in every tier."""
    tenant = make_tenant()
    tiers.publish(tenant, FIRST, LAST)
    simulate(tenant)
    tiers.consume(tenant)
    tiers.export(tenant)
    tiers.aggregate(tenant)
    return tenant


@pytest.fixture(scope="module")
def page(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a pipeline that works: the simulation is polled, and every hop follows."""
    folder = tmp_path_factory.mktemp("page")
    services: dict[str, Running] = {}
    for name, arguments, extra in (
        ("producer", ("produce", "--source", "simulation"), {"PRODUCE_EVERY": "60s", "CITY": "Oslo,NO@59.91,10.75"}),
        ("consumer", ("consume",), {}),
        ("export", ("export", "--every", "5s"), {}),
        ("aggregate", ("aggregate", "--every", "5s"), {}),
    ):
        services[name] = running.start(tenant, *arguments, log=folder / f"{name}.log", extra=extra)
    page = start_page(tenant, folder / "page.log", services)
    page.until("fresh and reconciled", lambda state: state["fresh"] and state["reconciliation"], 90)
    yield page
    for service in (page.service, *services.values()):
        service.kill()


@pytest.fixture(scope="module")
def troubled(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a platform without PostgreSQL and HBase."""
    away = {"DATABASE_URL": "postgresql://meteo@127.0.0.1:9/weatherdb", "HBASE_PORT": "9"}
    page = start_page(tenant, tmp_path_factory.mktemp("troubled") / "page.log", extra=away)
    page.until("a state", lambda state: state["hops"])
    yield page
    page.service.kill()


def name_of(look: dict[str, bool]) -> str:
    return f"{'dark' if look['dark'] else 'light'}-{'phone' if look['phone'] else 'desk'}"


@pytest.mark.parametrize("look", LOOKS, ids=name_of)
def test_it_says_at_the_top_that_the_weather_is_fresh(page: Page, tmp_path: Path, look: dict[str, bool]) -> None:
    with browser(tmp_path, **look) as seen:
        seen.open(page.url)
        assert re.match(r"The weather is fresh: collected .+ ago, and every hop moves\.", seen.text("h1"))
        assert seen.run("return document.querySelector('h1').getBoundingClientRect().bottom < 400")
        assert seen.text("#chain").count("in time") == 5
        seen.wait("return document.querySelectorAll('#charts svg path').length > 2")
        assert seen.run("return document.documentElement.scrollWidth <= innerWidth"), "no horizontal scroll"
        ground = seen.run("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(16, 22, 28)" if look["dark"] else "rgb(244, 246, 248)")
        assert seen.violations() == []
        assert seen.errors() == []


@pytest.mark.parametrize("look", LOOKS, ids=name_of)
def test_it_says_what_stands_still_and_what_to_do(troubled: Page, tmp_path: Path, look: dict[str, bool]) -> None:
    with browser(tmp_path, **look) as seen:
        seen.open(troubled.url)
        assert "stands still" in seen.text("h1")
        assert "./meteo" in seen.text("#remedy")
        assert "PostgreSQL" in seen.text("#weather-note")
        assert "stands still" in seen.text("#chain")
        assert seen.run("return document.documentElement.scrollWidth <= innerWidth"), "no horizontal scroll"
        assert seen.violations() == []
        assert seen.errors() == []


def test_it_shows_what_the_api_says(page: Page, tmp_path: Path) -> None:
    with browser(tmp_path) as seen:
        seen.open(page.url)
        stations = page.get("/api/stations").json()["stations"]
        shown = seen.text("#stations")
        for station in stations:
            assert station["city"] in shown
            assert f"{station['observation']['temperature_celsius']:.1f} °C" in shown
        links = seen.run("return [...document.querySelectorAll('#links a')].map(each => each.href)")
        assert set(links) == {link["url"] for link in page.state()["links"]}
        assert NOTE in seen.text("#links")
        assert "./meteo" not in seen.text("#weather-note")
        for name in ("Kafka", "PostgreSQL", "HDFS", "YARN", "HBase", "producer", "consumer", "export", "aggregate"):
            assert name in seen.text("#servers")
        assert "no mismatch" in seen.text("#cycles")
        assert seen.errors() == []


def test_a_recorded_year_says_that_it_is_old(page: Page, tmp_path: Path) -> None:
    with browser(tmp_path) as seen:
        seen.open(page.url)
        seen.run("document.querySelector('[data-station=\"replay:JFK\"]').click()")
        seen.wait("return document.querySelector('#station-title').innerText.startsWith('New York')")
        seen.wait("return document.querySelectorAll('#days tbody tr').length === 3")
        assert "the last 48 hours that there are" in seen.text("#station-title")
        assert "31 Mar 2013" in seen.text("#station-note")
        (newest, *_) = page.get("/api/stations/replay:JFK/aggregates").json()["aggregates"][::-1]
        first = seen.run(
            "return [...document.querySelectorAll('#days tbody tr:first-child > *')].map(e => e.innerText)"
        )
        assert first[0] == newest["date"]
        assert first[2] == f"{newest['temperature_avg_celsius']:.1f}"
        assert seen.run("return document.querySelectorAll('#charts figure').length") == 6
        assert seen.violations() == []


def test_it_refreshes_itself_and_keeps_what_was_chosen(page: Page, tmp_path: Path) -> None:
    with browser(tmp_path) as seen:
        seen.open(page.url)
        seen.run("const one = document.querySelector('[data-station=\"replay:LGA\"]'); one.focus(); one.click()")
        shown = seen.run("return document.body.dataset.shown")
        seen.wait(f"return document.body.dataset.shown > {shown}")
        assert seen.run("return document.querySelector('[aria-pressed=true]').dataset.station") == "replay:LGA"
        assert seen.run("return document.activeElement.dataset.station") == "replay:LGA", "the focus stays"
        assert seen.errors() == []


def test_what_a_message_says_is_never_read_as_markup(make_tenant: TenantMaker, tmp_path: Path) -> None:
    tenant = make_tenant()
    message: dict[str, Any] = tiers.recorded_message()
    message |= {"city": SCRIPT, "country": SCRIPT}
    message["observation"] |= {"condition": SCRIPT}
    tiers.send(tenant, [json.dumps(message).encode()])
    tiers.consume(tenant)
    page = start_page(tenant, tmp_path / "page.log")
    try:
        page.until("a station", lambda state: state["stations"])
        with browser(tmp_path / "profile") as seen:
            seen.open(page.url)
            assert SCRIPT in seen.text("#stations")
            assert SCRIPT in seen.text("#freshness")
            assert seen.run("return document.querySelectorAll('#stations img, main img').length") == 0
            assert seen.run("return document.title") != "taken"
            assert seen.errors() == []
    finally:
        page.service.kill()


def test_a_page_whose_service_has_gone_says_so(make_tenant: TenantMaker, tmp_path: Path) -> None:
    page = start_page(make_tenant(), tmp_path / "page.log")
    page.until("a state", lambda _: True)
    with browser(tmp_path / "profile") as seen:
        seen.open(page.url)
        page.service.stop()
        seen.wait("return document.querySelector('h1').innerText.startsWith('Nobody knows')")
        assert "./meteo restart page" in seen.text("#why")
