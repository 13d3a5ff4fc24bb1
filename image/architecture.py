"""Draw the architecture: the way of a message, as boxes and arrows in plain SVG.

python3 image/architecture.py      # writes image/architecture.svg; tests/test_docs.py fails while it is stale
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

TARGET = Path(__file__).resolve().with_name("architecture.svg")
WIDTH, HEIGHT = 1200, 560
# Both schemes have a background of their own, so that a viewer that ignores the scheme still shows dark on light.
STYLE = """
  .page { fill: #ffffff; stroke: #d0d7de }
  .frame { fill: none; stroke: #8c959f; stroke-dasharray: 5 5 }
  .server { fill: #f3f5f7; stroke: #6e7781 }
  .ours { fill: #ddf0ff; stroke: #0969da; stroke-width: 2 }
  .check { fill: #e6f7ea; stroke: #1a7f37; stroke-width: 2 }
  .arrow { fill: none; stroke: #424a53; stroke-width: 2 }
  .probe { fill: none; stroke: #1a7f37; stroke-width: 1.5; stroke-dasharray: 3 4 }
  .head { fill: #424a53 }
  text { font: 14px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-weight: 700; font-size: 17px }
  .small { font-size: 12.5px; fill: #57606a }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d }
    .frame { stroke: #6e7681 }
    .server { fill: #1c2128; stroke: #8b949e }
    .ours { fill: #0c2d4d; stroke: #4493f8 }
    .check { fill: #0f2d18; stroke: #3fb950 }
    .arrow { stroke: #adb6c0 }
    .probe { stroke: #3fb950 }
    .head { fill: #adb6c0 }
    text { fill: #e6edf3 }
    .small { fill: #9ea7b1 }
  }
"""


@dataclass(frozen=True)
class Box:
    """A box with its upper left corner, its title and lines below it."""

    x: int
    y: int
    width: int
    height: int
    kind: str
    title: str
    lines: tuple[str, ...] = ()

    def svg(self) -> str:
        """Return the box with its texts in its middle."""
        middle = self.x + self.width / 2
        top = self.y + self.height / 2 - 10 * len(self.lines) + 6
        texts = [f'<text class="title" x="{middle}" y="{top}" text-anchor="middle">{escape(self.title)}</text>']
        texts += [
            f'<text class="small" x="{middle}" y="{top + 20 * number}" text-anchor="middle">{escape(line)}</text>'
            for number, line in enumerate(self.lines, start=1)
        ]
        shape = (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="8"/>'
        )
        return "\n".join([shape, *texts])


TOP, BOTTOM = 70, 290
SOURCES = Box(40, TOP, 170, 130, "server", "Weather", ("Open-Meteo", "OpenWeather", "the recorded year"))
PRODUCER = Box(270, TOP + 25, 150, 80, "ours", "producer", ("normalises, limits",))
KAFKA = Box(480, TOP, 170, 130, "server", "Kafka", ("topic weather-api", "3 partitions", "key: station_id"))
CONSUMER = Box(710, TOP + 25, 150, 80, "ours", "consumer", ("rows + position", "in one transaction"))
POSTGRES = Box(
    930, TOP, 230, 130, "server", "PostgreSQL", ("weather · dead_letters", "positions · export_plans", "days")
)
EXPORT = Box(970, BOTTOM + 25, 150, 80, "ours", "export", ("committed plans",))
HDFS = Box(
    700, BOTTOM, 210, 130, "server", "HDFS", ("dt=YYYY-MM-DD/", "weather_*.json · _manifest.json", "aggregates.jsonl")
)
AGGREGATE = Box(480, BOTTOM + 25, 150, 80, "ours", "aggregate", ("MapReduce, here", "or on YARN"))
HBASE = Box(250, BOTTOM, 170, 130, "server", "HBase", ("table weather", "station#day", "cells by generation"))
RECONCILE = Box(250, 470, 910, 50, "check", "reconcile: every record counted through all tiers, at one cut")
BOXES = (SOURCES, PRODUCER, KAFKA, CONSUMER, POSTGRES, EXPORT, HDFS, AGGREGATE, HBASE, RECONCILE)

UPPER, LOWER = TOP + 65, BOTTOM + 65
ARROWS = (
    f"M 210 {UPPER} H 268",
    f"M 420 {UPPER} H 478",
    f"M 650 {UPPER} H 708",
    f"M 860 {UPPER} H 928",
    f"M 1045 {TOP + 130} V {BOTTOM + 23}",
    f"M 970 {LOWER} H 912",
    f"M 700 {LOWER - 12} H 632",
    f"M 630 {LOWER + 14} H 698",
    f"M 480 {LOWER} H 422",
)
PROBES = (
    f"M 335 470 V {BOTTOM + 130}",
    f"M 805 470 V {BOTTOM + 130}",
    f"M 1142 470 V {TOP + 130}",
)
TEXTS = (
    (240, 58, "Ansible deploys every server and every service; one supervisor per stack keeps them running"),
    (950, TOP + 170, "one snapshot"),
)


def draw() -> str:
    """Return the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' role="img">',
        "<title>Weather goes from its sources through producer, Kafka, consumer, PostgreSQL, export, HDFS and aggregate"
        " to HBase; reconcile counts it in every tier</title>",
        f"<style>{STYLE}</style>",
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M 0 0 L 10 5 L 0 10 z"/></marker>',
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="12"/>',
        f'<rect class="frame" x="228" y="36" width="948" height="{HEIGHT - 56}" rx="12"/>',
        *(f'<path class="probe" d="{path}"/>' for path in PROBES),
        *(f'<path class="arrow" marker-end="url(#head)" d="{path}"/>' for path in ARROWS),
        *(box.svg() for box in BOXES),
        *(f'<text class="small" x="{x}" y="{y}">{escape(text)}</text>' for x, y, text in TEXTS),
        f'<rect class="ours" x="42" y="{BOTTOM + 10}" width="22" height="16" rx="3"/>',
        f'<text class="small" x="72" y="{BOTTOM + 23}">ours</text>',
        f'<rect class="server" x="42" y="{BOTTOM + 40}" width="22" height="16" rx="3"/>',
        f'<text class="small" x="72" y="{BOTTOM + 53}">a real server</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(draw(), "utf-8")
