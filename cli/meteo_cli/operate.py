"""The commands that operate the stack: up, down, restart, urls, logs, support-bundle."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from meteo_cli import containers, stack
from meteo_common.console import out, print_columns, run_command
from meteo_common.errors import UsageError

Variables = Annotated[
    list[str] | None, typer.Option("-e", "--extra-vars", metavar="NAME=VALUE", help="A variable of the playbook.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to a command line."""
    for command in (up, down, restart, urls, logs):
        app.command()(command)
    app.command("support-bundle")(support_bundle)


def up(
    variables: Variables = None,
) -> None:
    """Put the embedded stack up, or bring it in line with its variables."""

    def deploy() -> None:
        stack.deploy(**given(variables))

    run_command(deploy)


def given(variables: list[str] | None) -> dict[str, str]:
    """Return the variables of -e by name."""
    found = dict(entry.partition("=")[::2] for entry in variables or ())
    if "" in found or not all("=" in entry for entry in variables or ()):
        raise UsageError("-e expects NAME=VALUE, such as -e services_enabled=false.")
    return found


def down(purge: Annotated[bool, typer.Option("--purge", help="Delete all of its data too.")] = False) -> None:
    """Stop the stack: no process of it is left; its data stays."""
    run_command(lambda: stack.take_down(purge=purge))


def restart(name: Annotated[str | None, typer.Argument(help="One server or service; all without it.")] = None) -> None:
    """Restart one server or service, or all."""

    def restart_named() -> None:
        if name is None:
            stack.take_down(purge=False)
            stack.deploy()
            return
        out.print(stack.restart(_service(name)))

    run_command(restart_named)


def urls() -> None:
    """Print the addresses to open, and how to see the passwords."""

    run_command(print_urls)


def print_urls() -> None:
    """Print each service's addresses, and the command that shows the passwords."""
    deployed = stack.read_stack()
    rows = [(service.name, url["url"], url["title"]) for service in deployed.services for url in service.urls]
    print_columns(("service", "address", "what"), rows)
    out.print(f"passwords: cat {deployed.secrets_file}")
    for note in deployed.notes:
        out.print(f"\n[yellow]{escape(note)}[/yellow]")


def logs(
    name: Annotated[str, typer.Argument(help="Server or service.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it is written.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 100,
) -> None:
    """Show the log of a server or service."""

    def show() -> None:
        service = _service(name)
        client = containers.client_of_stack()
        if client is not None and service.container:
            _become_docker(client, service.container, follow, lines)
        path = service.log
        if path is None or not path.exists():
            raise UsageError(f"{name} has written no log yet ({path}).")
        with path.open(encoding="utf-8", errors="replace") as file:
            sys.stdout.writelines(file.readlines()[-lines:])
            while follow:
                sys.stdout.write(file.readline() or _pause())
                sys.stdout.flush()

    run_command(show)


def support_bundle(
    file: Annotated[
        Path | None, typer.Argument(help="Where to; without it a name with the time, in this directory.")
    ] = None,
    log_mb: Annotated[int, typer.Option("--log-mb", min=1, help="Megabytes of each log, from its end.")] = 2,
) -> None:
    """Pack configuration, versions, logs and status into one .tar.gz, without secrets; changes nothing."""
    run_command(lambda: stack.pack(file, log_mb))


def _become_docker(client: Mapping[str, Any], container: str, follow: bool, lines: int) -> NoReturn:
    """Show what Docker keeps of a container."""
    argv = [client["program"], "logs", "--tail", str(lines), *(["--follow"] if follow else []), container]
    # A server's standard error is in its log too, and may be searched.
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
    containers.become(argv, os.environ)


def _service(name: str) -> stack.StackService:
    services = {service.name: service for service in stack.read_stack().services}
    if name not in services:
        raise UsageError(f"There is no service '{name}'; there are {', '.join(services)}.")
    return services[name]


def _pause() -> str:
    time.sleep(0.3)
    return ""
