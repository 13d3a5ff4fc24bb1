"""The commands `export`, `aggregate`, `climate`, `query` and `reconcile`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer

from meteo_common.console import numbered, out, print_columns, progress, run_command
from meteo_common.database import open_database
from meteo_common.durations import parse_duration
from meteo_common.errors import MismatchError, UsageError
from meteo_common.logs import configure_logs
from meteo_common.service import Service
from meteo_common.settings import Settings, load_settings
from meteo_hadoop.engines import EngineName

if TYPE_CHECKING:
    from meteo_common.schedule import Schedule

log = structlog.get_logger()

CYCLE_LIMIT = 3600.0
"""A cycle that takes longer than this hangs: a million rows take minutes."""

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
        run_command(lambda: _cycle("verify", _verify, True, None, None))
        return

    def cycle(settings: Settings, tell: _Tell) -> _Done:
        if dry_run:
            if expire is None:
                raise UsageError("--dry-run says what --expire DAYS would delete; give both.")
            return _expire(settings, expire, dry_run=True)
        if rebuild and not (every is None and cron is None):
            raise UsageError("--rebuild is done once: without --every and --cron.")
        done = _export(settings, tell, anew=rebuild)
        if compact:
            done = done.followed_by(_compact(settings))
        return done.followed_by(_expire(settings, expire, dry_run=False)) if expire else done

    run_command(lambda: _cycle("export", cycle, once, every, cron))


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

        def cycle(settings: Settings, tell: _Tell) -> _Done:
            return _aggregate(settings, tell, date, all_days, changed, engine)

        _cycle("aggregate", cycle, once, every, cron, reconciles=True)

    run_command(run)


def climate(engine: Engine = "auto", once: Once = False, every: Every = None, cron: At = None) -> None:
    """Compute each station's climate over all days by MapReduce: monthly normals, rain days, wind rose."""
    run_command(lambda: _cycle("climate", lambda settings, tell: _climate(settings, tell, engine), once, every, cron))


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


@dataclass(frozen=True)
class _Done:
    """What a cycle has done: for a service's log, and for a person."""

    facts: dict[str, Any]
    lines: list[str]

    def followed_by(self, other: _Done) -> _Done:
        """Return both as one."""
        return _Done({**self.facts, **other.facts}, [*self.lines, *other.lines])


_Tell = Callable[[str], None]


def _cycle(
    name: str,
    cycle: Callable[[Settings, _Tell], _Done],
    once: bool,
    every: str | None,
    cron: str | None,
    *,
    reconciles: bool = False,
) -> None:
    """Run one cycle, or a service of them, each followed by a reconciliation if it `reconciles`."""
    if once or (every is None and cron is None):
        configure_logs(name, long_running=False)
        for line in cycle(load_settings(), out.print).lines:
            out.print(line, markup=False)
        return
    # Imported here: else every service, which the same command line runs, would tell of cycles, all of them zero.
    from meteo_common.schedule import run_scheduled
    from meteo_hadoop.measures import check_tiers, count_cycle

    configure_logs(name)
    settings = load_settings()
    schedule = _schedule(every, cron, settings)

    def logged() -> None:
        log.info("cycle begun")
        facts = cycle(settings, lambda _: None).facts
        count_cycle(facts)
        log.info("cycle done", **facts)
        if reconciles:
            check_tiers(settings)

    service = Service(name, settings.meteo_metrics_port, CYCLE_LIMIT)
    try:
        run_scheduled(service, schedule, logged)
    finally:
        service.close()


def _schedule(every: str | None, cron: str | None, settings: Settings) -> Schedule:
    from meteo_common.schedule import Cron, Interval

    if every is None:
        return Cron(cron or "", settings.zone)
    if cron is not None:
        raise UsageError("--every and --cron exclude one another: give one of them.")
    try:
        return Interval(parse_duration(every))
    except ValueError as error:
        raise UsageError(f"--every {every}: {error}.") from None


def _export(settings: Settings, _: _Tell, *, anew: bool = False) -> _Done:
    from meteo_hadoop.export import export_once
    from meteo_hadoop.rebuild import rebuild

    with progress() as display:
        task = display.add_task("exporting days", total=None)
        exported = (rebuild if anew else export_once)(
            settings, lambda done, total: display.update(task, completed=done, total=total)
        )
    days = len(exported.days)
    line = f"exported {exported.rows} rows, {exported.bytes} bytes, into {numbered(days, 'day')}"
    return _Done(
        {"rows": exported.rows, "bytes": exported.bytes, "days": days, "seconds": round(exported.seconds, 3)},
        [f"{line} in {exported.seconds:.1f} s"],
    )


def _verify(settings: Settings, _: _Tell) -> _Done:
    from meteo_hadoop.recovery import verify

    verified = verify(settings)
    line = (
        f"{numbered(verified.segments, 'segment')} of {numbered(verified.days, 'day')} in HDFS:"
        f" PostgreSQL did not know all of {numbered(verified.days_recovered, 'day')};"
        f" {numbered(verified.rows_owed, 'row')} of planned ranges to export"
    )
    return _Done({"verified_days": verified.days, "recovered_days": verified.days_recovered}, [line])


def _compact(settings: Settings) -> _Done:
    from meteo_hadoop.compact import compact
    from meteo_hadoop.parquet import write_ended

    with progress() as display, closing(open_database(settings, "compact")) as database:
        task = display.add_task("merging days", total=None)
        merged = compact(settings, database, lambda done, total: display.update(task, completed=done, total=total))
        task = display.add_task("writing Parquet", total=None)
        written = write_ended(
            settings,
            database,
            datetime.now(settings.zone).date(),
            lambda done, total: display.update(task, completed=done, total=total),
        )
    line = f"merged {numbered(merged.files, 'file')} of {numbered(merged.days, 'day')}"
    facts = {"merged_days": merged.days, "merged_files": merged.files, "parquet_days": written}
    return _Done(facts, [f"{line}, wrote the Parquet of {numbered(written, 'day')}"])


def _expire(settings: Settings, days: int, *, dry_run: bool) -> _Done:
    from meteo_hadoop.expire import expire

    with progress() as display, closing(open_database(settings, "expire")) as database:
        task = display.add_task("expiring days", total=None)
        expired = expire(
            settings,
            database,
            days,
            dry_run=dry_run,
            report=lambda done, total: display.update(task, completed=done, total=total),
        )
    number = len(expired.days)
    line = f"{'would expire' if dry_run else 'expired'} {numbered(number, 'day')} of {numbered(expired.rows, 'row')}"
    if expired.days:
        line += f", {expired.days[0]} to {expired.days[-1]}"
    facts = {"expired_days": number, "expired_rows": expired.rows, "kept_days": len(expired.kept)}
    return _Done(facts, [line, *(f"  kept {day}: {reason}" for day, reason in expired.kept.items())])


def _aggregate(
    settings: Settings, tell: _Tell, date: datetime | None, all_days: bool, changed: bool, engine: EngineName
) -> _Done:
    from meteo_hadoop.aggregate import aggregate_once

    day = date.date() if date else None
    outcome = aggregate_once(settings, engine, day, all_days=all_days, changed=changed, tell=tell)
    lines = [
        f"aggregated {numbered(len(outcome.days), 'day')} into {numbered(outcome.rows, 'row')},"
        f" {numbered(outcome.hbase_days, 'day')} into HBase, in {outcome.seconds:.1f} s{_by(outcome.engine)}",
        *_bad_lines(outcome.bad_lines),
    ]
    if outcome.hbase_trouble:
        lines.append(f"  HBase is owed its days: {outcome.hbase_trouble}")
    facts = {
        "days": len(outcome.days),
        "rows": outcome.rows,
        "bytes": outcome.bytes,
        "hbase_days": outcome.hbase_days,
        "bad_lines": outcome.bad_lines,
        "engine": outcome.engine,
        "seconds": round(outcome.seconds, 3),
    }
    return _Done(facts, lines)


def _climate(settings: Settings, tell: _Tell, engine: EngineName) -> _Done:
    from meteo_hadoop.climatology import climate_once

    outcome = climate_once(settings, engine, tell)
    lines = [
        f"climate of {numbered(outcome.stations, 'station')} over {numbered(outcome.days, 'day')}"
        f" in {outcome.path}, in {outcome.seconds:.1f} s{_by(outcome.engine)}",
        *_bad_lines(outcome.bad_lines),
    ]
    facts = {
        "stations": outcome.stations,
        "days": outcome.days,
        "bad_lines": outcome.bad_lines,
        "engine": outcome.engine,
        "seconds": round(outcome.seconds, 3),
    }
    return _Done(facts, lines)


def _by(engine: str) -> str:
    return f" by the engine {engine}" if engine else ""


def _bad_lines(bad_lines: dict[str, int]) -> list[str]:
    return [f"  {count} lines did not count: {reason}" for reason, count in bad_lines.items()]
