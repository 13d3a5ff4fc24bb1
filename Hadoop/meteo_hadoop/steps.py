"""What a cycle is made of: each step's work, with its progress, and how it is told. The work is imported only then."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

from meteo_common.console import numbered, progress
from meteo_common.database import open_database
from meteo_common.errors import MismatchError
from meteo_common.settings import Settings
from meteo_hadoop.cycles import Done, Tell
from meteo_hadoop.engine import EngineName

DAYS_A_CYCLE = 100
"""Ended days that a service merges in one cycle."""


def export_step(settings: Settings, _: Tell, *, anew: bool = False) -> Done:
    """Export what was consumed; `anew`: empty all days first."""
    from meteo_hadoop.export import export_once
    from meteo_hadoop.rebuild import rebuild

    with progress() as display:
        task = display.add_task("exporting days", total=None)
        exported = (rebuild if anew else export_once)(
            settings, lambda done, total: display.update(task, completed=done, total=total)
        )
    days = len(exported.days)
    line = f"exported {exported.rows} rows, {exported.bytes} bytes, into {numbered(days, 'day')}"
    return Done(
        {"rows": exported.rows, "bytes": exported.bytes, "days": days, "seconds": round(exported.seconds, 3)},
        [f"{line} in {exported.seconds:.1f} s"],
    )


def verify_step(settings: Settings, _: Tell) -> Done:
    """Make the plans anew from HDFS."""
    from meteo_hadoop.recovery import verify

    verified = verify(settings)
    line = (
        f"{numbered(verified.segments, 'segment')} of {numbered(verified.days, 'day')} in HDFS:"
        f" PostgreSQL did not know all of {numbered(verified.days_recovered, 'day')};"
        f" {numbered(verified.rows_owed, 'row')} of planned ranges to export"
    )
    return Done({"verified_days": verified.days, "recovered_days": verified.days_recovered}, [line])


def compact_step(settings: Settings, *, in_all: bool) -> Done:
    """Merge ended days and write their Parquet: all of them, or the oldest few that a service does in a cycle."""
    from meteo_hadoop.compact import Merged, compact
    from meteo_hadoop.parquet import write_ended

    with progress() as display, closing(open_database(settings, "compact")) as database:
        task = display.add_task("merging days", total=None)
        at_most = None if in_all else DAYS_A_CYCLE
        broken = None
        try:
            merged = compact(
                settings, database, lambda done, total: display.update(task, completed=done, total=total), at_most
            )
        except MismatchError as error:  # the Parquet of other days does not wait for it
            merged, broken = Merged(), error
        task = display.add_task("writing Parquet", total=None)
        written = write_ended(
            settings,
            database,
            datetime.now(settings.zone).date(),
            lambda done, total: display.update(task, completed=done, total=total),
            at_most,
        )
    if broken:
        raise broken
    line = f"merged {numbered(merged.files, 'file')} of {numbered(merged.days, 'day')}"
    facts = {"merged_days": merged.days, "merged_files": merged.files, "parquet_days": written}
    return Done(facts, [f"{line}, wrote the Parquet of {numbered(written, 'day')}"])


def expire_step(settings: Settings, days: int, *, dry_run: bool) -> Done:
    """Delete clean days older than `days`."""
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
    return Done(facts, [line, *(f"  kept {day}: {reason}" for day, reason in expired.kept.items())])


def aggregate_step(
    settings: Settings, tell: Tell, date: datetime | None, all_days: bool, changed: bool, engine: EngineName
) -> Done:
    """Aggregate the chosen days."""
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
    return Done(facts, lines)


def climate_step(settings: Settings, tell: Tell, engine: EngineName) -> Done:
    """Compute the stations' climate."""
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
    return Done(facts, lines)


def _by(engine: str) -> str:
    return f" by the engine {engine}" if engine else ""


def _bad_lines(bad_lines: dict[str, int]) -> list[str]:
    return [f"  {count} lines did not count: {reason}" for reason, count in bad_lines.items()]
