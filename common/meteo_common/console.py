"""What a person sees of a command: progress on a terminal, plain lines elsewhere, errors in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from meteo_common.errors import MeteoError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def progress() -> Progress:
    """Return a progress display that is silent where standard error is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def run_command(command: Callable[[], Any]) -> None:
    """Run a command to its end; what the platform refuses becomes one sentence and its exit code."""
    try:
        command()
    except MeteoError as error:
        err.print(f"[red]error[/red]: {_escape(str(error))}")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted; nothing is half done, run it again to go on")
        raise SystemExit(130) from None


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
