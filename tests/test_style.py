"""The tools that hold the house's style: lint, format and strict types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
PACKAGES = (
    "common/meteo_common",
    "producer/meteo_producer",
    "consumer/meteo_consumer",
    "Hadoop/meteo_hadoop",
    "page/meteo_page",
)
DASHBOARDS = ("grafana/meteo_grafana", "grafana/proof", "grafana/generate.py", "grafana/draw.py")


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy", "--cache-dir=/dev/null", *PACKAGES, "cli/meteo_cli"),
        ("mypy", "--cache-dir=/dev/null", *DASHBOARDS),
    ],
    ids=["lint", "format", "types", "dashboards"],
)
def test_tool_finds_nothing(command: tuple[str, ...]) -> None:
    ran = subprocess.run([PROGRAMS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
