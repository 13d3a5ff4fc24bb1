"""A dashboard's picture: each panel where Grafana would put it, with what its queries really answered."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from proof import painting
from proof.asking import Frame
from proof.painting import BACK, BORDER, DIM, PANEL, TEXT

WIDTH_PX, ROW_PX, GAP_PX, DPI = 1500, 34, 6, 100
"""A laptop's window; Grafana's rows are 30 px high with 8 px between them, which is a little less here."""
HEAD_PX = 62
COLOURS = 255
"""Of the PNG's palette: a dashboard has few, and the file is a third of that with all."""

mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8, "axes.linewidth": 0.5})


def draw(
    board: Mapping[str, Any],
    answers: Mapping[int, Sequence[Frame]],
    titles: Mapping[int, str],
    head: str,
    target: Path,
) -> None:
    """Write the picture of a dashboard from each panel's frames, by the panels' ids."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = HEAD_PX + rows * ROW_PX
    figure = Figure(figsize=(WIDTH_PX / DPI, height / DPI), dpi=DPI, facecolor=BACK)
    _text(figure, height, 14, 22, board["title"], size=13, weight="bold")
    _text(figure, height, 14, 46, head, color=DIM, size=9)
    for panel in board["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * WIDTH_PX / 24, HEAD_PX + place["y"] * ROW_PX
        width, tall = place["w"] * WIDTH_PX / 24, place["h"] * ROW_PX
        title = titles[panel["id"]]
        if panel["type"] == "row":
            _text(figure, height, x + 14, y + ROW_PX / 2 + 4, f"⌄  {title}", size=10.5, weight="bold")
            continue
        _box(figure, height, x + GAP_PX, y + GAP_PX / 2, width - GAP_PX, tall - GAP_PX)
        _text(figure, height, x + 16, y + 19, title, size=9, weight="bold")
        left, bottom = x + 16, height - (y + tall - GAP_PX - 4)
        area = (left / WIDTH_PX, bottom / height, (width - 28) / WIDTH_PX, (tall - 42) / height)
        painting.paint(figure, area, panel, answers[panel["id"]], (width - 28, tall - 42))
    _save(figure, target)


def _text(figure: Figure, height: float, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x / WIDTH_PX, 1 - y / height, text, **{"color": TEXT, "va": "center", **style})


def _box(figure: Figure, height: float, x: float, y: float, width: float, tall: float) -> None:
    axes: Axes = figure.add_axes((x / WIDTH_PX, 1 - (y + tall) / height, width / WIDTH_PX, tall / height))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, tall)
    axes.add_patch(
        FancyBboxPatch((1, 1), width - 2, tall - 2, boxstyle="round,pad=0,rounding_size=3", fc=PANEL, ec=BORDER, lw=0.8)
    )


def _save(figure: Figure, target: Path) -> None:
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=DPI, facecolor=BACK)
    image = Image.open(whole).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
