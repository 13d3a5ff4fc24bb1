"""The command line `./meteo`: the services' own commands, and those that operate the stack."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from dotenv import dotenv_values
from typer import Abort
from typer._click import ClickException  # typer names no public parent of its usage errors

import meteo_consumer.commands
import meteo_hadoop.commands
import meteo_page.commands
import meteo_producer.commands
from meteo_cli import backup, bench, check, containers, demo, doctor, execute, operate, status, testing
from meteo_cli.privileges import become_service_user
from meteo_cli.stack import no_stack
from meteo_common.console import err
from meteo_common.errors import MeteoError, UsageError
from meteo_common.settings import project_root, stack_directory

app = typer.Typer(
    name="meteo",
    help="Weather from public APIs through Kafka and PostgreSQL to HDFS, MapReduce and HBase.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SERVICE_COMMANDS = {
    "produce",
    "backfill",
    "budgets",
    "consume",
    "dead-letters",
    "retention",
    "export",
    "aggregate",
    "climate",
    "query",
    "reconcile",
    "page",
    "exec",
}
"""What runs as the user `meteo` when root calls it, as the deployed services do."""


@app.callback()
def choose_stack(
    context: typer.Context,
    stack: Annotated[
        str | None, typer.Option("--stack", help="Name of the stack to speak to.", envvar="METEO_STACK")
    ] = None,
) -> None:
    """Choose the stack for the command that follows."""
    path = project_root() / ".env"
    user = dotenv_values(path) if os.access(path, os.R_OK) else {}
    for name in ("METEO_STACK", "METEO_PORT_OFFSET"):
        if value := user.get(name):
            os.environ.setdefault(name, value)
    if stack:
        os.environ["METEO_STACK"] = stack
    containers.enter(context.invoked_subcommand, sys.argv[1:])
    if context.invoked_subcommand in SERVICE_COMMANDS:
        if "METEO_STACK" in os.environ and not stack_directory().is_dir():
            # Going on would speak to whatever listens on the default ports.
            raise no_stack()
        # Docker and the settings of containers are for who called.
        if containers.client_of_stack() is None:
            become_service_user()


demo.register(app)
testing.register(app)
bench.register(app)
operate.register(app)
backup.register(app)
status.register(app)
execute.register(app)
doctor.register(app)
check.register(app)
meteo_producer.commands.register(app)
meteo_consumer.commands.register(app)
meteo_hadoop.commands.register(app)
meteo_page.commands.register(app)


def main() -> None:
    """Run the command line; wrong usage is one sentence too."""
    try:
        code = app(standalone_mode=False)
    except ClickException as error:
        if message := error.format_message():  # none when the help was shown instead
            ending = "" if message.endswith((".", ")", "?")) else "."  # typer's own checks leave it out
            err.print(f"error: {message}{ending}", markup=False)
        code = UsageError.exit_code
    except MeteoError as error:
        err.print(f"error: {error}", markup=False)
        code = error.exit_code
    except Abort:
        code = 130
    raise SystemExit(code)
