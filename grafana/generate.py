"""Write the dashboards' JSON from their code.

.venv/bin/python grafana/generate.py            # writes them; grafana/tests fail while one of them is stale
"""

from __future__ import annotations

from meteo_grafana.files import dashboards

if __name__ == "__main__":
    for path, text in dashboards().items():
        path.write_text(text, "utf-8")
