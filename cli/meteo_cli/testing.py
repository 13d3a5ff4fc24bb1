"""`./meteo test`: the tests, against a stack of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from meteo_common.console import run_command
from meteo_common.errors import UsageError
from meteo_common.settings import project_root

SIDE_BY_SIDE = 2
"""Processes of the whole suite: most of its time servers start and stop, and faults are waited for."""


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run_tests)


def run_tests(
    context: typer.Context,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="The deployment's tests too: as processes and, as root, as containers; installs Docker."
        ),
    ] = False,
    containers: Annotated[
        bool, typer.Option("--containers", help="Only the tests of the containers, as root; installs Docker.")
    ] = False,
    long: Annotated[
        bool, typer.Option("--long", help="Only the fault campaigns, in their long form; prints a table of figures.")
    ] = False,
) -> None:
    """Run the core's tests; further arguments go to pytest."""

    def run() -> None:
        if everything + long + containers > 1:
            raise UsageError("Only one of --all, --containers and --long: every other test, or one kind alone.")
        root = project_root()
        if not (root / "tests").is_dir():
            raise UsageError(f"{root} has no tests: run ./meteo from the checkout.")
        selection = [] if everything else ["-m", "not deployment"]
        if long or containers:
            selection = ["--long", "-m", "campaign"] if long else ["-m", "containers"]
        # A selection mostly needs one stack, or none, and is read as it goes.
        workers = (
            [] if long or containers or context.args else ["-n", str(SIDE_BY_SIDE + everything), "--dist", "loadgroup"]
        )
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers, *selection, *context.args]
        raise SystemExit(subprocess.run(command, cwd=root, env=os.environ, check=False).returncode)

    run_command(run)
