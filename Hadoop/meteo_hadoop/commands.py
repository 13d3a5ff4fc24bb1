"""The commands `export`, `aggregate`, `climate`, `query` and `reconcile`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer

from meteo_common.console import out, print_columns, run_command
from meteo_common.errors import MismatchError, UsageError
from meteo_common.logs import configure_logs
from meteo_common.settings import Settings, load_settings
from meteo_hadoop.cycles import Done, Tell, run_cycles
from meteo_hadoop.engine import EngineName
from meteo_hadoop.steps import aggregate_step, climate_step, compact_step, expire_step, export_step, verify_step

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="One day, YYYY-MM-DD.")]
Every = Annotated[str | None, typer.Option(help="Go on, a cycle each time this is over, such as 10m.")]
At = Annotated[str | None, typer.Option("--cron", help='Go on, by a cron expression, such as "*/10 * * * *".')]
Engine = Annotated[EngineName, typer.Option(help="Processes here, or YARN; auto = by the size of the input.")]
Once = Annotated[bool, typer.Option("--once", help="One cycle; the default without --every and --cron.")]


def register(app: typer.Typer) -> None:
    """Add this distribution's commands to a command line."""
    for command in (export, aggregate, climate, query, reconcile):
        app.command()(command)


def export(
    once: Once = False,
    every: Every = None,
    cron: At = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Then merge each past day's files, and write its Parquet.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only make the plans anew from HDFS: after PostgreSQL was restored.")
    ] = False,
    expire: Annotated[
        int | None, typer.Option("--expire", metavar="DAYS", min=1, help="Then delete clean days older than this.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what --expire would delete.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Empty all days and write them anew; the way to another WEATHER_TIMEZONE.")
    ] = False,
) -> None:
    """Write what was consumed to HDFS, each row into exactly one file of its day."""
    if verify:
        run_command(lambda: run_cycles("verify", verify_step, True, None, None))
        return

    def cycle(settings: Settings, tell: Tell) -> Done:
        if dry_run:
            if expire is None:
                raise UsageError("--dry-run says what --expire DAYS would delete; give both.")
            return expire_step(settings, expire, dry_run=True)
        if rebuild and not (every is None and cron is None):
            raise UsageError("--rebuild is done once: without --every and --cron.")
        done = export_step(settings, tell, anew=rebuild)
        if compact:
            done = done.followed_by(compact_step(settings, in_all=every is None and cron is None))
        return done.followed_by(expire_step(settings, expire, dry_run=False)) if expire else done

    run_command(lambda: run_cycles("export", cycle, once, every, cron))


def aggregate(
    date: Day = None,
    changed: Annotated[bool, typer.Option("--changed", help="The days whose files have changed (default).")] = False,
    all_days: Annotated[bool, typer.Option("--all", help="Every day.")] = False,
    engine: Engine = "auto",
    once: Once = False,
    every: Every = None,
    cron: At = None,
) -> None:
    """Aggregate days by MapReduce into aggregates.jsonl and HBase."""

    def run() -> None:
        if (date is not None) + changed + all_days > 1:
            raise UsageError("--date, --changed and --all exclude one another: give one of them.")

        def cycle(settings: Settings, tell: Tell) -> Done:
            return aggregate_step(settings, tell, date, all_days, changed, engine)

        run_cycles("aggregate", cycle, once, every, cron, reconciles=True)

    run_command(run)


def climate(engine: Engine = "auto", once: Once = False, every: Every = None, cron: At = None) -> None:
    """Compute each station's climate over all days by MapReduce: monthly normals, rain days, wind rose."""
    run_command(
        lambda: run_cycles("climate", lambda settings, tell: climate_step(settings, tell, engine), once, every, cron)
    )


def query(
    station: Annotated[str | None, typer.Option(help="One, such as open-meteo:2988507; all without it.")] = None,
    date: Day = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, inclusive.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="Of each station only its newest day.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show daily aggregates, from HBase, or from HDFS where HBASE_ENABLED is off; exits with 1 when there are none."""

    def run() -> None:
        from meteo_hadoop.query import Selection, table
        from meteo_hadoop.query import query as read

        configure_logs("query", long_running=False)
        if date and (first or last):
            raise UsageError("--date excludes --from and --to: give either.")
        begin, end = date or first, date or last
        selection = Selection(station, begin.date() if begin else None, end.date() if end else None, latest)
        rows = read(load_settings(), selection)
        if as_json:
            print(json.dumps(rows, ensure_ascii=False))  # noqa: T201
        elif rows:
            print_columns(*table(rows))
        if not rows:
            raise MismatchError("There are no such aggregates; ./meteo query --latest shows each station's newest.")

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
                out.print(line, markup=False)
        if report.mismatches:
            first, more = report.mismatches[0], len(report.mismatches) - 1
            raise MismatchError(f"{first}{f', and {more} more' if more else ''}.")

    run_command(run)
