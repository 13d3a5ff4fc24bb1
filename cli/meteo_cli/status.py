"""The command `status`: one screen that says what runs, how fresh each tier is, and which hop stands still."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from meteo_cli import stack
from meteo_common.console import numbered, out, run_command
from meteo_common.durations import format_duration
from meteo_common.errors import MeteoError
from meteo_common.logs import configure_logs
from meteo_common.settings import load_settings

EVERY_SECONDS = 5.0
STYLES = {"ok": "green", "late": "yellow", "stopped": "bold red"}
STATES = {"ok": "in time", "late": "late", "stopped": "stands still"}
WIDTH = 34
"""Of a service in its row: three of them fit into 102 columns."""


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(status)


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what runs, how fresh each tier is, and which hop stands still."""

    def show() -> None:
        # A server that is away is told on the screen; a client's own words about it would only be in the way.
        configure_logs("status", long_running=False)
        # Imported here: `status` must say what is wrong with the stack also where a client library is missing.
        from meteo_page.pipeline import Pipeline

        deployed = stack.read_stack()
        pipeline = Pipeline(load_settings())
        try:
            if as_json:
                print(json.dumps(_facts(deployed, pipeline.read().facts())))  # noqa: T201
                return
            if not watch:
                for line in lines(_facts(deployed, pipeline.read().facts())):
                    out.print(line)
                return
            with Live(console=out, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(Group(*lines(_facts(deployed, pipeline.read().facts()))), refresh=True)
                    time.sleep(EVERY_SECONDS)
        finally:
            pipeline.close()

    run_command(show)


def _facts(deployed: stack.Stack, pipeline: dict[str, Any]) -> dict[str, Any]:
    states = stack.states(deployed)
    known = [service for service in deployed.services if service.name in states]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(stack.StackService.healthy, known)
        healthy = dict(zip((service.name for service in known), answers, strict=True))
    services = []
    for service in deployed.services:
        state = states.get(service.name, stack.State())
        services.append(
            {
                "name": service.name,
                "state": state.word,
                "detail": state.detail,
                "since": state.since,
                "healthy": healthy.get(service.name, False),
            }
        )
    return {
        "stack": deployed.name,
        "port_offset": deployed.port_offset,
        "services": services,
        "pipeline": pipeline,
        "notes": deployed.notes,
        # Where no producer tells of them, the file that it left does.
        "providers": [] if pipeline["budgets"] else _provider_warnings(),
    }


def _provider_warnings() -> list[str]:
    """Return a sentence for each budget that is nearly used up, each pause and each refused key."""
    from meteo_producer.budgets import read_reports

    try:
        return [warning for report in read_reports(load_settings()) for warning in report.warnings()]
    except MeteoError as error:
        return [str(error)]


def lines(facts: dict[str, Any]) -> Iterator[Text]:
    """Yield the screen."""
    state = facts["pipeline"]
    worst = "stopped" if any(hop["state"] == "stopped" for hop in state["hops"]) else "late"
    yield Text(state["sentence"], style="bold green" if state["fresh"] else STYLES[worst])
    for more in (state["why"], state["remedy"] and f"→ {state['remedy']}"):
        if more:
            yield Text(more)
    yield from (Text(f"{each['sentence']} → {each['remedy']}", style="yellow") for each in state["concerns"])
    yield Text()
    for hop in state["hops"]:
        name = f"{hop['name']:10} {hop['title']:20} "
        yield Text.assemble(name, (f"{STATES[hop['state']]:13}", STYLES[hop["state"]]), hop["sentence"])
    yield Text()
    yield from _services(facts)
    yield from _stations(state)
    yield from _counts(state)
    yield from _cycles(state)
    for budget in state["budgets"]:
        share = f"{budget['used']:g} of {budget['limit']:g} in {format_duration(budget['window_seconds'])}"
        yield Text(f"budget     {budget['account']}: {share}")
    for warning in [*facts.get("notes", ()), *facts["providers"]]:
        yield Text(warning, style="yellow")


def _services(facts: Mapping[str, Any]) -> Iterator[Text]:
    row = Text()
    for number, service in enumerate(facts["services"]):
        if number and number % 3 == 0:
            yield row
            row = Text()
        word = "up" if service["healthy"] else "NOT WELL" if service["state"] == "RUNNING" else service["state"].lower()
        since = f"{word} since {_clock(service['since'])}" if service["since"] else word
        style = "green" if service["healthy"] else "bold red"
        row.append(f"{service['name']:18}").append(f"{since:{WIDTH - 18}}", style)
    yield row
    yield Text()


def _stations(state: Mapping[str, Any]) -> Iterator[Text]:
    tiers = ("kafka", "postgresql", "hdfs", "aggregates", "hbase")
    if not state["stations"]:
        yield Text("No observation has come yet.")
        return
    yield Text(f"{'newest observation, ago':34}" + "".join(f"{tier:12}" for tier in tiers), style="bold")
    for station in state["stations"]:
        ages = [_ago(station["newest_observed_at"][tier]) for tier in tiers]
        yield Text(f"{station['station_id'][:33]:34}" + "".join(f"{age:12}" for age in ages))
    yield Text()


def _counts(state: Mapping[str, Any]) -> Iterator[Text]:
    counts, letters = state["counts"], state["dead_letters"]
    if "rows" in counts:
        lag = sum(state["lag"].values())
        yield Text(
            f"tiers      {numbered(counts['rows'], 'row')}, {numbered(lag, 'record')} behind (lag),"
            f" {letters['new']} new dead letters, {counts['gap_records']} records in gaps;"
            f" {numbered(counts['rows_to_export'], 'row')} to export; {numbered(counts['days'], 'day')},"
            f" {counts['days_changed']} to aggregate, {counts['days_owed_to_hbase']} owed to HBase"
        )
    for day in state["changed_days"]:
        yield Text(f"changed    {day['day']} at {day['changed_at']}, by {numbered(day['late_rows'], 'late row')}")


def _cycles(state: Mapping[str, Any]) -> Iterator[Text]:
    for cycle in state["cycles"]:
        if cycle["last_success_at"]:
            yield Text(
                f"cycle      {cycle['service']}: ended well {_ago(cycle['last_success_at'])} ago, took"
                f" {cycle['duration_seconds']:.1f} s, due every {format_duration(cycle['interval_seconds'] or 0)};"
                f" {cycle['failed'] or 0:.0f} failed"
            )
    if report := state["reconciliation"]:
        clean = f"no mismatch, {report['days'].get('clean', 0)} days clean, {report['days'].get('pending', 0)} pending"
        bad = f"MISMATCHES: {report['mismatches']}"
        style = "bold red" if report["mismatches"] else ""
        yield Text(f"reconciled {_ago(report['at'])} ago: {bad if report['mismatches'] else clean}", style=style)


def _ago(instant: str | None) -> str:
    if instant is None:
        return "–"
    return format_duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds()))


def _clock(instant: str) -> str:
    """Return the time of this machine's clock; the date where it is not today's."""
    begun = datetime.fromisoformat(instant).astimezone()
    today = begun.date() == datetime.now().astimezone().date()
    return f"{begun:%H:%M}" if today else f"{begun:%Y-%m-%d}"
