"""Write the dashboards' JSON from their code.

.venv/bin/python grafana/generate.py            # writes them; grafana/tests fail while one of them is stale
"""

from __future__ import annotations

import json
from pathlib import Path

from meteo_grafana.batch import batch
from meteo_grafana.pipeline import pipeline
from meteo_grafana.servers import servers
from meteo_grafana.weather import weather

TARGET = Path(__file__).resolve().parent / "dashboards"


def dashboards() -> dict[Path, str]:
    """Return each dashboard's file and text."""
    made = [weather(), pipeline(), batch(), servers()]
    return {
        TARGET / f"{board['uid']}.json": json.dumps(board, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for board in made
    }


if __name__ == "__main__":
    for path, text in dashboards().items():
        path.write_text(text, "utf-8")
