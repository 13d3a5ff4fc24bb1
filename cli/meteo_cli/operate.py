"""The commands that operate the stack: up, down, restart, status, urls, logs."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from meteo_cli import stack
from meteo_common.console import numbered, out, print_columns, run_command
from meteo_common.durations import format_duration
from meteo_common.errors import MeteoError, UsageError
from meteo_common.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add these commands to a command line."""
    for command in (up, down, restart, status, urls, logs):
        app.command()(command)


def up(
    variables: Annotated[
        list[str] | None, typer.Option("-e", "--extra-vars", metavar="NAME=VALUE", help="A variable of the playbook.")
    ] = None,
) -> None:
    """Put the embedded stack up, or bring it in line with its variables."""

    def deploy() -> None:
        given = dict(entry.partition("=")[::2] for entry in variables or ())
        if "" in given or not all("=" in entry for entry in variables or ()):
            raise UsageError("-e expects NAME=VALUE, such as -e services_enabled=false.")
        stack.deploy(**given)

    run_command(deploy)


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
        _service(name)
        out.print(stack.supervisorctl("restart", name).strip())

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
        path = _service(name).log
        if not path.exists():
            raise UsageError(f"{name} has written no log yet ({path}).")
        with path.open(encoding="utf-8", errors="replace") as file:
            sys.stdout.writelines(file.readlines()[-lines:])
            while follow:
                sys.stdout.write(file.readline() or _pause())
                sys.stdout.flush()

    run_command(show)


def status(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Show what runs, and how far each tier is."""

    def show() -> None:
        facts = _status()
        if as_json:
            print(json.dumps(facts))  # noqa: T201
        else:
            _print_status(facts)

    run_command(show)


def _status() -> dict[str, Any]:
    deployed = stack.read_stack()
    try:
        processes = stack.supervisorctl("status")
    except MeteoError:
        processes = ""
    states = {line.split()[0]: line.split(None, 2)[1:] for line in processes.splitlines() if line.strip()}
    services = [
        {
            "name": service.name,
            "state": states.get(service.name, ["STOPPED"])[0],
            "detail": " ".join(states.get(service.name, ["", ""])[1:]),
            "healthy": service.name in states and service.healthy(),
        }
        for service in deployed.services
    ]
    facts: dict[str, Any] = {
        "stack": deployed.name,
        "port_offset": deployed.port_offset,
        "services": services,
        "notes": deployed.notes,
    }
    try:
        # Imported here: `status` must work, and say what is down, when little else does.
        from meteo_hadoop.freshness import read_freshness

        facts["tiers"] = read_freshness(load_settings())
    except MeteoError as error:
        facts["tiers"] = {"error": str(error)}
    facts["providers"] = _provider_warnings()
    return facts


def _provider_warnings() -> list[str]:
    """Return a sentence for each budget that is nearly used up, each pause and each refused key."""
    from meteo_producer.budgets import read_reports

    try:
        return [warning for report in read_reports(load_settings()) for warning in report.warnings()]
    except MeteoError as error:
        return [str(error)]


def _print_status(facts: dict[str, Any]) -> None:
    out.print(f"stack {facts['stack']}, ports shifted by {facts['port_offset']}\n")
    rows = [
        (service["name"], service["state"].lower(), "yes" if service["healthy"] else "NO", service["detail"])
        for service in facts["services"]
    ]
    print_columns(("service", "state", "healthy", ""), rows)
    for warning in [*facts["notes"], *facts["providers"]]:
        out.print(f"\n[yellow]{escape(warning)}[/yellow]")
    tiers = facts["tiers"]
    if "error" in tiers:
        out.print(f"\n[red]{tiers['error']}[/red]")
        return
    out.print()
    for line in (
        f"PostgreSQL   {tiers['rows']} rows, {tiers['dead_letters']} dead letters, {tiers['gaps']} gaps;"
        f" newest observation {_age(tiers['newest_observed_at'])}",
        f"HDFS         {tiers['days']} days; {tiers['rows_to_export']} rows to export",
        f"aggregates   {tiers['days_changed']} days changed since they were aggregated",
        f"HBase        {tiers['days_owed_to_hbase']} days owed",
    ):
        out.print(line)
    for day in tiers["changed_days"]:
        out.print(f"  changed: {day['day']} at {day['changed_at']}, by {numbered(day['late_rows'], 'late row')}")


def _age(instant: str | None) -> str:
    if instant is None:
        return "none yet"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds()
    return f"{instant} ({format_duration(seconds)} ago)"


def _service(name: str) -> stack.StackService:
    services = {service.name: service for service in stack.read_stack().services}
    if name not in services:
        raise UsageError(f"There is no service '{name}'; there are {', '.join(services)}.")
    return services[name]


def _pause() -> str:
    time.sleep(0.3)
    return ""
