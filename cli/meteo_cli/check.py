"""The command `check`: whether each server and service of the stack really works, found out by using it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from meteo_cli import containers, stack
from meteo_cli.privileges import become_service_user
from meteo_common.console import numbered, run_command
from meteo_common.errors import MismatchError
from meteo_common.logs import configure_logs
from meteo_common.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command()(check)


def check(as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> None:
    """Use each server and service of the stack, and leave nothing behind; exits with 1 when one does not work."""
    run_command(_probe if as_json else _play)


def _play() -> None:
    load_settings()  # a wrong one is told before anything runs
    stack.check()


def _probe() -> None:
    """Run the probes here: what the playbook calls, in the containers' network where there is one."""
    configure_logs("check", long_running=False)
    # Imported here: every call of the command line knows this module, and few need all clients.
    from meteo_cli import probes, scrapes

    deployed = stack.read_stack()
    if containers.client_of_stack() is None:
        become_service_user()
    target = probes.Target(deployed, load_settings())
    found = list(probes.outcomes((*probes.SERVERS, *scrapes.PROBES, *scrapes.others(target)), target))
    failed = [outcome.name for outcome in found if outcome.state == "failed"]
    done = numbered(sum(outcome.state != "absent" for outcome in found), "probe")
    sentence = f"{len(failed)} of {done} failed: {', '.join(failed)}." if failed else f"{done}, and everything works."
    facts = {"ok": not failed, "sentence": sentence, "probes": [asdict(outcome) for outcome in found]}
    print(json.dumps(facts, ensure_ascii=False))  # noqa: T201
    if failed:
        raise MismatchError(sentence)
