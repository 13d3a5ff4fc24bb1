"""Draw the dashboards of a running stack into image/grafana-*.png, with what their queries answer now.

METEO_STACK=NAME .venv/bin/python grafana/draw.py            # the stack needs Prometheus, and some weather
"""

from __future__ import annotations

import json
from pathlib import Path

from meteo_common.settings import stack_directory
from proof.drawing import draw
from proof.filling import fill_text
from proof.stack import answers_of, sources_of, span_of, titles_of, variables_of

HERE = Path(__file__).resolve().parent


def main(target: Path = HERE.parent / "image") -> None:
    """Draw each dashboard."""
    sources = sources_of(stack_directory())
    for path in sorted((HERE / "dashboards").glob("*.json")):
        board = json.loads(path.read_text("utf-8"))
        span = span_of(board, sources)
        variables = variables_of(board, sources, span)
        answers = answers_of(board, sources, variables, span)
        named = titles_of(board, sources, span)
        titles = {panel["id"]: fill_text(panel["title"], named) for panel in board["panels"]}
        shown = [f"{name}: {text}" for name, text in named.items()]
        head = "   ".join([*shown, f"{span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC"])
        draw(board, answers, titles, head, target / f"grafana-{board['uid'].removeprefix('meteo-')}.png")


if __name__ == "__main__":
    main()
