"""What a person sees of a command: progress on a terminal, plain lines elsewhere, errors in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from meteo_common.errors import MeteoError

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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


def print_columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns, each as wide as it needs: an address that was cut to fit cannot be copied."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        out.print(text, style="bold" if number == 0 else None, markup=False)


def numbered(number: int, noun: str) -> str:
    """Return `1 day`, `2 days`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run_command(command: Callable[[], Any]) -> None:
    """Run a command to its end; what the platform refuses becomes one sentence and its exit code."""
    try:
        command()
    except MeteoError as error:
        err.print(Text.assemble(("error", "red"), f": {error}"))
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        err.print("interrupted; nothing is half done, run it again to go on")
        raise SystemExit(130) from None
