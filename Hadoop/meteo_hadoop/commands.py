"""The commands `export`, `aggregate` and `reconcile`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import structlog
import typer

from meteo_common.console import numbered, out, progress, run_command
from meteo_common.durations import parse_duration
from meteo_common.errors import MismatchError, UsageError
from meteo_common.logs import configure_logs
from meteo_common.schedule import run_every
from meteo_common.service import Service
from meteo_common.settings import Settings, load_settings
from meteo_hadoop.engines import EngineName

log = structlog.get_logger()

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="One day, YYYY-MM-DD.")]
Every = Annotated[str | None, typer.Option(help="Go on, a cycle each time this is over, such as 10m.")]
Once = Annotated[bool, typer.Option("--once", help="One cycle; the default without --every.")]


def register(app: typer.Typer) -> None:
    """Add this distribution's commands to a command line."""
    for command in (export, aggregate, reconcile):
        app.command()(command)


def export(once: Once = False, every: Every = None) -> None:
    """Write what was consumed to HDFS, each row into exactly one file of its day."""
    run_command(lambda: _cycle("export", _export, once, every))


def aggregate(
    date: Day = None,
    changed: Annotated[bool, typer.Option("--changed", help="The days whose files have changed (default).")] = False,
    all_days: Annotated[bool, typer.Option("--all", help="Every day.")] = False,
    engine: Annotated[EngineName, typer.Option(help="Processes here, or YARN.")] = "local",
    once: Once = False,
    every: Every = None,
) -> None:
    """Aggregate days by MapReduce into aggregates.jsonl and HBase."""

    def run() -> None:
        if (date is not None) + changed + all_days > 1:
            raise UsageError("--date, --changed and --all exclude one another: give one of them.")
        _cycle("aggregate", lambda settings: _aggregate(settings, date, all_days, engine), once, every)

    run_command(run)


def reconcile(
    date: Day = None,
    deep: Annotated[bool, typer.Option("--deep", help="Compare the files' sha256 too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Count every record through all tiers, at one cut; exits with 1 when two of them disagree."""

    def run() -> None:
        from meteo_hadoop.reconcile import reconcile_tiers

        configure_logs("reconcile", long_running=False)
        report = reconcile_tiers(load_settings(), date.date() if date else None, deep=deep)
        if as_json:
            print(json.dumps(report.facts()))  # noqa: T201
        else:
            for line in report.lines():
                out.print(line)
        if report.mismatches:
            first = report.mismatches[0]
            raise MismatchError(f"{len(report.mismatches)} mismatches; the first: {first}")

    run_command(run)


def _cycle(name: str, cycle: Callable[[Settings], None], once: bool, every: str | None) -> None:
    if every is None or once:
        configure_logs(name, long_running=False)
        cycle(load_settings())
        return
    configure_logs(name)
    settings = load_settings()
    try:
        seconds = parse_duration(every)
    except ValueError as error:
        raise UsageError(f"--every {every}: {error}.") from None
    service = Service(name, settings.meteo_metrics_port)
    try:
        run_every(service, seconds, lambda: cycle(settings))
    finally:
        service.close()


def _export(settings: Settings) -> None:
    from meteo_hadoop.export import export_once

    with progress() as display:
        task = display.add_task("exporting days", total=None)
        exported = export_once(settings, lambda done, total: display.update(task, completed=done, total=total))
    log.debug("exported", rows=exported.rows, bytes=exported.bytes, days=len(exported.days))
    out.print(
        f"exported {exported.rows} rows, {exported.bytes} bytes, into {numbered(len(exported.days), 'day')}"
        f" in {exported.seconds:.1f} s"
    )


def _aggregate(settings: Settings, date: datetime | None, all_days: bool, engine: EngineName) -> None:
    from meteo_hadoop.aggregate import aggregate_once

    outcome = aggregate_once(settings, engine, date.date() if date else None, all_days=all_days, tell=out.print)
    out.print(
        f"aggregated {numbered(len(outcome.days), 'day')} into {numbered(outcome.rows, 'row')},"
        f" {numbered(outcome.hbase_days, 'day')} into HBase,"
        f" in {outcome.seconds:.1f} s"
    )
    for reason, count in outcome.bad_lines.items():
        out.print(f"  {count} lines did not count: {reason}")
    if outcome.hbase_trouble:
        out.print(f"  HBase is owed its days: {outcome.hbase_trouble}")
