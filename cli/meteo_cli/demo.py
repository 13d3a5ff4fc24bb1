"""`./meteo demo`: real weather through every stage, on servers that it puts up itself."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

import typer

from meteo_cli import operate, stack
from meteo_common.console import out, print_columns, run_command
from meteo_common.errors import TerminalError, UnreachableError, UsageError
from meteo_common.settings import load_settings

SHOWN_DAYS = 3


@dataclass(frozen=True)
class Stage:
    """One hop of the pipeline, as the command that a user would type."""

    title: str
    arguments: tuple[str, ...]


LIVE = Stage("Open-Meteo → Kafka, live weather", ("produce", "--source", "open-meteo", "--once"))
RECORDED = Stage("Recorded weather → Kafka (NOAA, three New York airports, 2013)", ("produce", "--source", "replay"))
STAGES = (
    Stage("Kafka → PostgreSQL", ("consume", "--until-idle")),
    Stage("PostgreSQL → HDFS", ("export", "--once")),
    Stage("HDFS → MapReduce → aggregates.jsonl and HBase", ("aggregate", "--changed")),
    Stage("Count every record through all tiers", ("reconcile",)),
)


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(demo)


def demo() -> None:
    """Set up, put the stack up, take real weather through every stage, and show the result."""
    run_command(_demo)


def _demo() -> None:
    started = time.monotonic()
    _headline("Putting the servers up (Kafka, PostgreSQL, HDFS, YARN, HBase)")
    stack.deploy()
    _produce()
    for stage in STAGES:
        _run(stage)
        if stage.arguments[0] == "consume":
            _tell_what_postgresql_holds()
    _headline(f"The last {SHOWN_DAYS} days' aggregates")
    _print_aggregates()
    _headline("Open in a browser")
    operate.print_urls()
    out.print(f"\ndone in {time.monotonic() - started:.0f} s; everything keeps running until ./meteo down")


def _produce() -> None:
    """Live weather where its API answers, else the recorded year; says which."""
    try:
        _run(LIVE)
    except UnreachableError:
        out.print("The recorded weather is replayed instead.")
        _run(RECORDED)


def _run(stage: Stage) -> None:
    """Run a stage's command; raises what its exit code says."""
    _headline(stage.title)
    out.print(f"[dim]$ ./meteo {' '.join(stage.arguments)}[/dim]")
    started = time.monotonic()
    code = subprocess.run([sys.argv[0], *stage.arguments], check=False).returncode
    if code == UsageError.exit_code:
        raise UsageError(f"'{stage.title}' was refused; the line above says what to set right.")
    if code == UnreachableError.exit_code:
        raise UnreachableError(f"'{stage.title}' found its server or API away; see the line above.")
    if code != 0:
        raise TerminalError(f"'{stage.title}' failed; see the line above.")
    out.print(f"[dim]{time.monotonic() - started:.1f} s[/dim]")


def _tell_what_postgresql_holds() -> None:
    """The deployed consumer is at work too, and may have been faster than the command."""
    from meteo_hadoop.freshness import read_freshness

    held = read_freshness(load_settings())
    out.print(f"PostgreSQL now holds {held['rows']} rows and {held['dead_letters']} dead letters")


def _print_aggregates() -> None:
    from meteo_hadoop.query import newest_aggregates, table

    print_columns(*table(newest_aggregates(load_settings(), SHOWN_DAYS)))


def _headline(text: str) -> None:
    out.print(f"\n[bold]{text}[/bold]")
