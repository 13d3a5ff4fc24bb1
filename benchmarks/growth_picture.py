"""Draw image/growth.svg from results/growth.json: seconds over bytes on logarithmic scales, and the fitted lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULT = FOLDER / "results" / "growth.json"
TARGET = FOLDER.parent / "image" / "growth.svg"
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 60
BYTES = (1e7, 1e10)
SECONDS = (0.1, 1000.0)
POINTS = 60
UNITS = {1e7: "10 MB", 1e8: "100 MB", 1e9: "1 GB", 1e10: "10 GB"}
COLOURS = {"local": "#0969da", "yarn": "#bf5700"}
# Dark on light in every scheme.
STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .grid { stroke: #d0d7de }
  .line { fill: none; stroke-width: 1.5; stroke-dasharray: 5 4 }
  .spread { stroke-width: 2 }
"""


def draw() -> None:
    """Write the picture, if there is a result."""
    if RESULT.is_file():
        TARGET.write_text(svg(), "utf-8")


def svg() -> str:
    """Return the picture of the result as it is now."""
    result = json.loads(RESULT.read_text("utf-8"))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Seconds of a job over its bytes, by both engines</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_grid(),
        *(part for name in COLOURS for part in _engine(name, result)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid() -> Iterator[str]:
    for size, name in UNITS.items():
        yield f'<line class="grid" x1="{_x(size)}" x2="{_x(size)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{_x(size)}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{name}</text>'
    for power in range(round(math.log10(SECONDS[0])), round(math.log10(SECONDS[1])) + 1):
        y = _y(10.0**power)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g} s</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">bytes of the days’ files</text>'


def _engine(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the medians, their spread, and the fitted line as far as the picture goes."""
    colour, line = COLOURS[name], result["notes"]["lines"][name]
    sizes = [BYTES[0] * (BYTES[1] / BYTES[0]) ** (step / POINTS) for step in range(POINTS + 1)]
    fitted = [(size, line["fixed_seconds"] + line["seconds_per_gb"] * size / 1e9) for size in sizes]
    path = " ".join(f"{_x(size)},{_y(seconds)}" for size, seconds in fitted if SECONDS[0] <= seconds <= SECONDS[1])
    yield f'<polyline class="line" stroke="{colour}" points="{path}"/>'
    for number in result["notes"]["numbers"]:
        figures = result["figures"][f"{name}_{number}"]
        x, seconds = _x(figures["bytes"]["median"]), figures["seconds"]
        low, high = _y(seconds["min"]), _y(seconds["max"])
        yield f'<line class="spread" stroke="{colour}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
        yield f'<circle cx="{x}" cy="{_y(seconds["median"])}" r="4" fill="{colour}"/>'
    number = list(COLOURS).index(name)
    yield f'<circle cx="{LEFT + 12}" cy="{TOP + 14 + 20 * number}" r="4" fill="{colour}"/>'
    yield f'<text x="{LEFT + 24}" y="{TOP + 18 + 20 * number}">engine {name}, median and spread; dashed: fitted</text>'


def _x(size: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * _share(size, BYTES), 1)


def _y(seconds: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(seconds, SECONDS), 1)


def _share(value: float, scale: tuple[float, float]) -> float:
    return math.log(value / scale[0]) / math.log(scale[1] / scale[0])
