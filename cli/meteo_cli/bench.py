"""`./meteo bench`: what benchmarks/ measures, against the stack that METEO_STACK names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from meteo_common.console import out, run_command
from meteo_common.errors import UsageError
from meteo_common.settings import project_root


def register(app: typer.Typer) -> None:
    """Add the command to a command line."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(help="What to measure; a wrong name shows all.")],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often all arms take turns.")] = 5,
    messages: Annotated[int | None, typer.Option(min=1, help="Fewer or more messages than usual.")] = None,
    without_peer: Annotated[bool, typer.Option("--without-peer", help="Leave the peer out.")] = False,
    engine: Annotated[Literal["local", "yarn"], typer.Option(help="The engine that `aggregate` measures.")] = "local",
) -> None:
    """Measure against a peer and a physical limit, in a database and topics of its own."""
    run_command(lambda: _bench(name, json_file, runs, messages, not without_peer, engine))


def _bench(name: str, file: Path | None, runs: int, messages: int | None, peer: bool, engine: str) -> None:
    root = project_root()
    if not (root / "benchmarks" / "__init__.py").is_file():
        raise UsageError(f"{root} has no benchmarks: run ./meteo from the checkout.")
    sys.path.insert(0, str(root))
    names = importlib.import_module("benchmarks").NAMES
    if name not in names:
        raise UsageError(f"The benchmark '{name}' is unknown; expected one of {', '.join(names)}.")
    if file and not file.parent.is_dir():
        raise UsageError(f"--json {file}: the directory {file.parent} does not exist.")
    measuring = importlib.import_module("benchmarks.measuring")
    options = measuring.Options(runs=runs, messages=messages, peer=peer, engine=engine)
    facts = measuring.machine(measuring.pin())
    measured = importlib.import_module(f"benchmarks.{name}").measure(options)
    if file:
        measuring.write(file, name if engine == "local" else f"{name}-{engine}", facts, measured)
    for ratio, spread in measured.ratios.items():
        out.print(f"{ratio}: {spread['median']:g} ({spread['min']:g} to {spread['max']:g})")
