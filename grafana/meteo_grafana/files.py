"""The dashboards' JSON, each in its file."""

from __future__ import annotations

import json
from pathlib import Path

from meteo_grafana.batch import batch
from meteo_grafana.pipeline import pipeline
from meteo_grafana.servers import servers
from meteo_grafana.weather import weather

TARGET = Path(__file__).resolve().parents[1] / "dashboards"


def dashboards() -> dict[Path, str]:
    """Return each dashboard's file and text."""
    made = [weather(), pipeline(), batch(), servers()]
    return {
        TARGET / f"{board['uid']}.json": json.dumps(board, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for board in made
    }
