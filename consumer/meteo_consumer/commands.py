"""The command `consume`."""

from __future__ import annotations

from typing import Annotated

import typer

from meteo_common.console import out, run_command
from meteo_common.logs import configure_logs
from meteo_common.service import Service
from meteo_common.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add this distribution's commands to a command line."""
    app.command()(consume)


def consume(
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End at the log's end as it stood at the start.")
    ] = False,
) -> None:
    """Take records from Kafka into PostgreSQL, each exactly once."""
    run_command(lambda: _consume(until_idle))


def _consume(until_idle: bool) -> None:
    # Imported here: kafka-python takes 0.2 s, which `--help` and the other commands need not wait for.
    from meteo_consumer.consume import consume_forever, consume_until_idle

    configure_logs("consumer", long_running=not until_idle)
    settings = load_settings()
    if until_idle:
        taken = consume_until_idle(settings)
        letters = f" and {taken.dead_letters} dead letters" if taken.dead_letters else ""
        others = f"; {taken.by_others} records were taken by other consumers" if taken.by_others else ""
        out.print(f"consumed {taken.rows} rows{letters} from {settings.topic_name}{others}")
        return
    service = Service("consumer", settings.meteo_metrics_port)
    try:
        consume_forever(settings, service)
    finally:
        service.close()
