"""`./meteo exec`: a server's own tool, told where this stack's server is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from dotenv import dotenv_values

from meteo_cli import stack
from meteo_cli.tools import DEPLOYED, TOOLS, Tool
from meteo_common.console import print_columns, run_command
from meteo_common.database import libpq_environment
from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import setting_files, stack_name


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    # What follows the tool's name is the tool's, also --help.
    app.command("exec", context_settings={"allow_interspersed_args": False})(run_tool)


def run_tool(
    name: Annotated[str | None, typer.Argument(metavar="TOOL", help="Which one; without it they are listed.")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS...", help="The tool's own.")] = None,
) -> None:
    """Run a server's own tool against this stack; the exit code is the tool's."""

    def run() -> None:
        if name is None:
            print_columns(("tool", "what it does"), [(tool.name, tool.about) for tool in TOOLS.values()])
            return
        if name not in TOOLS:
            raise UsageError(f"There is no tool '{name}'; there are {', '.join(TOOLS)}.")
        _expect(TOOLS[name].server)
        argv, environment = as_process(TOOLS[name], arguments or [])
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - terminal, signals and exit code are to be the tool's

    run_command(run)


def as_process(tool: Tool, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return a tool's command line and environment where the servers are processes of this machine."""
    of_stack, of_user = setting_files()
    if not os.access(of_stack, os.R_OK):
        raise UsageError(f"{of_stack} cannot be read: run this as root, or as the person whose stack it is.")
    deployed = _filled(dotenv_values(of_stack))
    of_user_values = _filled(dotenv_values(of_user)) if os.access(of_user, os.R_OK) else {}
    environment = {**deployed, **of_user_values, **_filled(os.environ)}
    environment |= libpq_environment(environment["DATABASE_URL"])
    fixed = {name: deployed[name] for name in DEPLOYED if name in deployed}
    try:
        argv, own = tool.command(arguments, {**environment, **fixed, "PYTHON": sys.executable})
    except KeyError as missing:
        raise UsageError(
            f"The stack '{stack_name()}' was put up by a version that did not note {missing.args[0]}; run ./meteo up."
        ) from None
    return argv, {**own, **environment}


def _filled(variables: Mapping[str, str | None]) -> dict[str, str]:
    """An empty value counts as not set."""
    return {name: value for name, value in variables.items() if value}


def _expect(server: str | None) -> None:
    """Some clients look for an absent server for minutes."""
    deployed = stack.read_stack()
    if server is None:
        return
    service = next((each for each in deployed.services if each.name == server), None)
    if service is None:
        raise UsageError(f"The stack '{deployed.name}' was put up without {server}.")
    if not service.healthy():
        raise UnreachableError(f"{server} does not answer; ./meteo logs {server} tells why, ./meteo up starts it.")
