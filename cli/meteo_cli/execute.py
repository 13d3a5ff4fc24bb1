"""`./meteo exec`: a server's own tool, told where this stack's server is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from dotenv import dotenv_values

from meteo_cli import containers, stack
from meteo_cli.tools import DEPLOYED, TOOLS, Tool
from meteo_common.console import print_columns, run_command
from meteo_common.database import libpq_environment
from meteo_common.errors import UnreachableError, UsageError
from meteo_common.settings import setting_files, stack_directory, stack_name


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
        client, container = _expect(TOOLS[name].server)
        if client is None:
            containers.become(*as_process(TOOLS[name], arguments or []))
        containers.become(*in_container(TOOLS[name], arguments or [], client, container))

    run_command(run)


def as_process(tool: Tool, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return a tool's command line and environment where the servers are processes of this machine."""
    environment, fixed = _values()
    argv, own = _command(tool, arguments, {**environment, **fixed, "PYTHON": sys.executable})
    return argv, {**own, **environment}


def in_container(
    tool: Tool, arguments: Sequence[str], client: Mapping[str, Any], container: str | None
) -> tuple[list[str], dict[str, str]]:
    """Return the command line of Docker, and its environment, that runs a tool in its server's container."""
    environment, fixed = _values()
    environment |= fixed
    if container is None:
        ours = [name for name in environment if name not in os.environ or name.startswith("PG")]
        ours += [*fixed, *containers.settings_in(environment)]
        return containers.run_in_network(client, tool.name, arguments, ours, environment), environment
    # What a container has mounted.
    conf = str(stack_directory() / "services" / str(tool.server) / "conf")
    argv, own = _command(tool, arguments, {**environment, "HADOOP_CONF_DIR": conf, "HBASE_CONF_DIR": conf})
    environment = {**own, **environment}
    # What libpq goes by; of the rest nothing is a tool's business.
    libpq = [name for name in environment if tool.server == "postgres" and name.startswith("PG")]
    names = {*own, "HADOOP_USER_NAME", *libpq}
    options = [*containers.interactive(), *containers.given((*names, *containers.OF_THE_TERMINAL), environment)]
    return [client["program"], "exec", *options, container, *argv], environment


def _values() -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of a tool, and what of it is the deployment's alone."""
    of_stack, of_user = setting_files()
    if not os.access(of_stack, os.R_OK):
        raise UsageError(f"{of_stack} cannot be read: run this as root, or as the person whose stack it is.")
    deployed = _filled(dotenv_values(of_stack))
    of_user_values = _filled(dotenv_values(of_user)) if os.access(of_user, os.R_OK) else {}
    environment = {**deployed, **of_user_values, **_filled(os.environ)}
    environment |= libpq_environment(environment["DATABASE_URL"])
    return environment, {name: deployed[name] for name in DEPLOYED if name in deployed}


def _command(tool: Tool, arguments: Sequence[str], values: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    try:
        return tool.command(arguments, values)
    except KeyError as missing:
        raise UsageError(
            f"The stack '{stack_name()}' was put up by a version that did not note {missing.args[0]}; run ./meteo up."
        ) from None


def _filled(variables: Mapping[str, str | None]) -> dict[str, str]:
    """An empty value counts as not set."""
    return {name: value for name, value in variables.items() if value}


def _expect(server: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """Return the client of the stack's containers, and the server's; some tools look for an absent one for minutes."""
    deployed = stack.read_stack()
    if server is None:
        return deployed.client, None
    service = next((each for each in deployed.services if each.name == server), None)
    if service is None:
        raise UsageError(f"The stack '{deployed.name}' was put up without {server}.")
    if not stack.healthy(deployed, service):
        starts = "./meteo up" if deployed.client is None else f"./meteo restart {server}"
        raise UnreachableError(f"{server} does not answer; ./meteo logs {server} tells why, {starts} starts it.")
    return deployed.client, service.container
