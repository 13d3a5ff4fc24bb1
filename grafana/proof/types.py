"""Dashboards held against Grafana's own types, by the TypeScript compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECK = Path(__file__).resolve().parents[1] / "check"
KINDS = {
    "barchart": "BarChart",
    "bargauge": "BarGauge",
    "stat": "Stat",
    "table": "Table",
    "timeseries": "TimeSeries",
    "trend": "Trend",
    "xychart": "XYChart",
}
WITHOUT_FIELDS = {"bargauge", "stat"}
"""Kinds whose fields have no settings of their own."""

# Grafana writes an enumeration's value as its text, which TypeScript does not take for the enumeration.
QUERIES = "@grafana/schema/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen"
HEAD = f"""\
import type {{ Dashboard }} from '@grafana/schema';
import type {{ PrometheusDataQuery }} from '{QUERIES}';
"""
PLAIN = """
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]
    : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""


def source(board: Mapping[str, Any]) -> str:
    """Return TypeScript that compiles only if the dashboard, its panels' options and its PromQL queries are well typed.

    The dashboard's own type leaves options and queries open, so each is a constant of its kind's type.
    """
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    lines = [HEAD, *(_import(kind) for kind in sorted({panel["type"] for panel in panels})), PLAIN]
    lines.append(_constant("board", "Dashboard", board))
    for panel in panels:
        name, kind = f"panel{panel['id']}", KINDS[panel["type"]]
        lines.append(_constant(f"{name}options", f"{kind}.Options", panel["options"]))
        if panel["type"] not in WITHOUT_FIELDS:
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            lines.append(_constant(f"{name}fields", f"Partial<{kind}.FieldConfig>", custom))
        lines.extend(
            _constant(f"{name}{target['refId']}", "PrometheusDataQuery", target)
            for target in panel["targets"]
            if "expr" in target
        )
    return "\n".join([*lines, "export {};", ""])


def compile_all(boards: Mapping[str, Mapping[str, Any]], home: Path) -> str:
    """Return what the compiler finds wrong, nothing when all is well; the packages are kept in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    lock = (CHECK / "package-lock.json").read_text("utf-8")
    if not (home / "installed.json").exists() or (home / "installed.json").read_text("utf-8") != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(CHECK / name, home)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], home).check_returncode()
        (home / "installed.json").write_text(lock, "utf-8")
    shutil.copy(CHECK / "tsconfig.json", home)
    for old in home.glob("*.ts"):
        old.unlink()
    for name, board in boards.items():
        (home / f"{name}.ts").write_text(source(board), "utf-8")
    found = _run(["node", "node_modules/typescript/bin/tsc", "-p", "."], home)
    return found.stdout + found.stderr


def _import(kind: str) -> str:
    name = KINDS[kind]
    path = f"@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen"
    return f"import type * as {name} from '{path}';"


def _constant(name: str, kind: str, value: object) -> str:
    return f"export const {name}: Plain<{kind}> = {json.dumps(value, ensure_ascii=False)};"


def _run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=240, check=False)
