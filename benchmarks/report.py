"""Write the results of benchmarks/results/*.json into README.md, so that no figure is typed by hand.

python benchmarks/report.py       # tests/test_bench.py fails while the page is not what the files say
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "README.md"
BEGIN = "<!-- Made by benchmarks/report.py from the files in results; what stands below is overwritten. -->\n"
SHOWN = ("rows_per_second", "messages_per_second", "p50_ms", "p99_ms", "memory_peak_mib")


def page() -> str:
    """Return the page with its results as the files say them now."""
    head = PAGE.read_text("utf-8").partition(BEGIN)[0]
    results = [json.loads(file.read_text("utf-8")) for file in sorted((FOLDER / "results").glob("*.json"))]
    return head + BEGIN + "".join(f"\n{line}\n" for result in results for line in _blocks(result))


def _blocks(result: Mapping[str, Any]) -> Iterator[str]:
    machine, notes = result["machine"], result["notes"]
    yield f"## Results of {result['bench']}"
    yield (
        f"{machine['at'][:10]}, {len(result['runs'])} runs, {machine['cores']} cores ({machine['cpu']}), load before"
        f" {machine['load_1m_before']:.2f}, Linux {machine['kernel']}, Python {machine['python']}, kafka-python"
        f" {machine['kafka-python']}, psycopg2 {machine['psycopg2-binary']}, PostgreSQL"
        f" {notes['postgresql server_version'].split()[0]}."
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


def _row(name: str, spread: Mapping[str, float]) -> tuple[str, ...]:
    shown = {key: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" for key, value in spread.items()}
    return f"`{name}`", shown["median"], f"{shown['min']} to {shown['max']}", shown["mad"]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
