"""Write the results of benchmarks/results/*.json into README.md, so that no figure is typed by hand.

python benchmarks/report.py       # tests/test_bench.py fails while the page is not what the files say
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# As a script, only its own folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import growth_picture

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "README.md"
BEGIN = "<!-- Made by benchmarks/report.py from the files in results; what stands below is overwritten. -->\n"
SHOWN = ("rows_per_second", "messages_per_second", "seconds", "p50_ms", "p99_ms", "memory_peak_mib")


BATCH = ("aggregate", "aggregate-yarn", "growth")
PROGRAMS = (
    {"kafka-python": "kafka-python", "psycopg2": "psycopg2-binary"},
    {"msgspec": "msgspec", "DuckDB": "duckdb", "Spark": "pyspark"},
)
"""What the figures depend on, of the benchmarks of other tiers and of the batch tier."""


def page() -> str:
    """Return the page with its results as the files say them now."""
    head = PAGE.read_text("utf-8").partition(BEGIN)[0]
    results = [json.loads(file.read_text("utf-8")) for file in sorted((FOLDER / "results").glob("*.json"))]
    return head + BEGIN + "".join(f"\n{line}\n" for result in results for line in _blocks(result))


def _blocks(result: Mapping[str, Any]) -> Iterator[str]:
    machine, notes = result["machine"], result["notes"]
    yield f"## Results of {result['bench']}"
    programs = {name: machine.get(key) for name, key in PROGRAMS[result["bench"] in BATCH].items()}
    if "postgresql server_version" in notes:
        programs["PostgreSQL"] = notes["postgresql server_version"].split()[0]
    told = ", ".join(f"{name} {version}" for name, version in programs.items() if version)
    yield (
        f"{machine['at'][:10]}, {len(result['runs'])} runs, {machine['cores']} cores ({machine['cpu']}), load before"
        f" {machine['load_1m_before']:.2f}, Linux {machine['kernel']}, Python {machine['python']}, {told}."
    )
    yield _table(("ratio", "median", "least to greatest", "MAD"), [_row(*each) for each in result["ratios"].items()])
    rows = [
        _row(f"{arm}: {name}", spread)
        for arm, told in result["figures"].items()
        for name, spread in told.items()
        if name in SHOWN
    ]
    yield _table(("figure", "median", "least to greatest", "MAD"), rows)
    if "memory" in notes:
        yield _table(
            ("memory, MiB", "at a quarter", "at the end", "peak"),
            [
                (who, *(f"{told[f'memory_{at}_mib']:g}" for at in ("at_quarter", "at_end", "peak")))
                for who, told in notes["memory"].items()
                if isinstance(told, dict)
            ],
        )
    if "lines" in notes:
        yield from _growth(notes)


def _growth(notes: Mapping[str, Any]) -> Iterator[str]:
    """Yield the picture, the engines' lines, and where they meet."""
    yield f"![Seconds of a job over its bytes, by both engines](../image/{growth_picture.TARGET.name})"
    yield _table(
        ("engine", "fixed, s", "each GB, s"),
        [
            (f"`{name}`", f"{line['fixed_seconds']:.2f}", f"{line['seconds_per_gb']:.2f}")
            for name, line in notes["lines"].items()
        ],
    )
    meet = notes["yarn_from_gb_by_times_the_cores"]
    yield _table(
        ("cores of the cluster, times those of the machine", *meet),
        [("YARN is faster from", *("never" if size is None else f"{size:g} GB" for size in meet.values()))],
    )


def _row(name: str, spread: Mapping[str, float]) -> tuple[str, ...]:
    shown = {key: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" for key, value in spread.items()}
    return f"`{name}`", shown["median"], f"{shown['min']} to {shown['max']}", shown["mad"]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    growth_picture.draw()
