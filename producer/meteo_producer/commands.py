"""The commands `produce`, `backfill` and `budgets`."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated

import typer

from meteo_common.console import numbered, out, print_columns, run_command
from meteo_common.durations import parse_duration
from meteo_common.errors import UsageError
from meteo_common.logs import configure_logs
from meteo_common.settings import Settings, load_settings
from meteo_producer.source import FEEDS, Feed, Selection
from meteo_producer.sources import HISTORIES, RECORDINGS, SOURCES, STORED

NAMES = tuple(dict.fromkeys([*SOURCES, *RECORDINGS, STORED]))

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Weather APIs → Kafka."""


def produce(
    source: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "open-meteo",
    feed: Annotated[
        str | None, typer.Option(help=f"Ask only for this besides the current weather: {', '.join(FEEDS)}.")
    ] = None,
    city: Annotated[list[str] | None, typer.Option(help="Name,CC or Name,CC@latitude,longitude; repeatable.")] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DATE", help="First day of a recording or of stored answers, in WEATHER_TIMEZONE."
        ),
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Last day, inclusive.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Poll once and end.")] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Poll at this interval, such as 10m; else PRODUCE_EVERY."),
    ] = None,
) -> None:
    """Take weather from a source to Kafka: polls until stopped, one poll (--once), a recording, or stored answers."""
    configure_logs("producer", long_running=not once and source != STORED and not _is_recording(source, first, last))
    run_command(lambda: _run(source, feed, city or [], (first, last), once, every))


def budgets(
    retry_key: Annotated[
        str | None, typer.Option("--retry-key", metavar="SOURCE", help="Let a source's refused key be tried again.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what may still be asked of each provider, and what to do about a refused key."""
    configure_logs("producer", long_running=False)
    run_command(lambda: _budgets(retry_key, as_json))


def backfill(
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="First day, in WEATHER_TIMEZONE.")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="Last day, inclusive.")],
    source: Annotated[str, typer.Option(help=f"One of {', '.join(HISTORIES)}.")] = "open-meteo",
    city: Annotated[list[str] | None, typer.Option(help="Name,CC or Name,CC@latitude,longitude; repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the days and their cost against the budget left; ask nothing.")
    ] = False,
) -> None:
    """Take past days from a provider to Kafka, each once, as far as its budget reaches; run it again to go on."""
    configure_logs("backfill", long_running=False)
    run_command(lambda: _backfill(source, city or [], (first, last), dry_run))


def register(app: typer.Typer) -> None:
    """Add the commands to the command line's app."""
    app.command("produce")(produce)
    app.command("budgets")(budgets)
    app.command("backfill")(backfill)


register(app)


def _run(
    source: str, feed: str | None, cities: list[str], days: tuple[str | None, str | None], once: bool, every: str | None
) -> None:
    if source not in NAMES:
        raise UsageError(f"The source '{source}' is unknown; expected one of {', '.join(NAMES)}.")
    if once and every:
        raise UsageError("--once and --every exclude each other: one poll, or one at each interval.")
    # Imported here, and below: kafka-python takes 0.2 s, which `--help` and the other commands need not wait for.
    from meteo_producer.produce import produce_every, produce_once

    settings = load_settings(city=";".join(cities) or None, produce_every=_duration(every))
    if source == STORED:
        _normalise_stored(settings, feed, bool(cities), days, every)
        return
    if _is_recording(source, *days):
        _play(settings, source, feed, bool(cities), days, every)
        return
    if any(days):
        raise UsageError(f"--from and --to select days of a recording; {source} is asked for the weather of now.")
    feeds = _feeds(feed)
    if once:
        produce_once(settings, source, feeds)
    else:
        produce_every(settings, source, feeds)


def _budgets(retry_key: str | None, as_json: bool) -> None:
    from meteo_producer.accounts import Accounts
    from meteo_producer.budgets import HEADINGS, facts_of, rows_of
    from meteo_producer.state import State

    settings = load_settings()
    accounts = Accounts(settings, State.existing(settings) or State())
    if retry_key is not None:
        account = accounts.of(retry_key)
        if account is None or account.key_setting is None:
            keyed = [report.account.name for report in accounts.reports() if report.account.key_setting]
            raise UsageError(f"The source '{retry_key}' has no key; expected {' or '.join(keyed)}.")
        number = accounts.retry_key(account.name)
        out.print(f"{numbered(number, 'refusal')} forgotten; the next poll of {account.name} tries the key again.")
        return
    reports = accounts.reports()
    if as_json:
        print(json.dumps([facts_of(report) for report in reports]))  # noqa: T201
        return
    print_columns(HEADINGS, [row for report in reports for row in rows_of(report)])
    for warning in (warning for report in reports for warning in report.warnings()):
        out.print(warning, markup=False)


def _is_recording(source: str, first: str | None, last: str | None) -> bool:
    """The simulation is both: its days, when they are given, are played; else it is polled."""
    return source in RECORDINGS and (source not in SOURCES or bool(first or last))


def _play(
    settings: Settings,
    source: str,
    feed: str | None,
    by_city: bool,
    days: tuple[str | None, str | None],
    every: str | None,
) -> None:
    from meteo_producer.produce import play

    if (every and source not in SOURCES) or feed not in {None, "current"}:
        raise UsageError(f"{source} is played once and holds observations only: leave out --every and --feed.")
    first, last = (_day(name, text) for name, text in zip(("--from", "--to"), days, strict=True))
    if first and last and first > last:
        raise UsageError(f"--from {first} is after --to {last}: expected the earlier day first.")
    selection = Selection(first, last, settings.places if by_city else ())
    play(settings, RECORDINGS[source](settings, selection))


def _normalise_stored(
    settings: Settings, feed: str | None, by_city: bool, days: tuple[str | None, str | None], every: str | None
) -> None:
    from meteo_producer.stored import normalise_stored

    if every or feed is not None:
        raise UsageError("stored answers are normalised once, and whole: leave out --every and --feed.")
    first, last = _both_days(days)
    normalise_stored(settings, first, last, settings.places if by_city else ())


def _backfill(source: str, cities: list[str], days: tuple[str, str], dry_run: bool) -> None:
    from meteo_producer.backfill import backfill as take_past_days

    settings = load_settings(city=";".join(cities) or None)
    first, last = _both_days(days)
    take_past_days(settings, source, first, last, dry_run=dry_run)


def _both_days(days: tuple[str | None, str | None]) -> tuple[date, date]:
    first, last = (_day(name, text) for name, text in zip(("--from", "--to"), days, strict=True))
    if first is None or last is None:
        raise UsageError("--from and --to need a day each, such as 2013-07-01.")
    if first > last:
        raise UsageError(f"--from {first} is after --to {last}: expected the earlier day first.")
    return first, last


def _feeds(feed: str | None) -> tuple[Feed, ...]:
    if feed is None:
        return FEEDS
    for known in FEEDS:
        if feed == known:
            return ("current",) if known == "current" else ("current", known)
    raise UsageError(f"The feed '{feed}' is unknown; expected one of {', '.join(FEEDS)}.")


def _day(option: str, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a day; expected one such as 2013-07-01.") from None


def _duration(text: str | None) -> str | None:
    try:
        return None if text is None else f"{parse_duration(text)}s"
    except ValueError as error:
        raise UsageError(f"--every '{text}': {error}.") from None
