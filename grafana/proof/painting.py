"""Each kind of panel, as Grafana's dark theme shows it, on a figure of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from proof.asking import Frame
from proof.units import STEPS, written

BACK, PANEL, BORDER, TEXT, DIM, GRID = "#111217", "#181b1f", "#2c3235", "#d5d6dd", "#9a9ba5", "#2a2d33"
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#ca95e5", "#37872d", "#fade2a")
NAMED = {
    "green": "#73bf69",
    "light-blue": "#8ab8ff",
    "blue": "#5794f2",
    "semi-dark-blue": "#3274d9",
    "yellow": "#fade2a",
    "orange": "#ff9830",
    "red": "#f2495c",
    "text": "#ccccdc",
}
LEGEND_PX, LETTER_PX = 20, 6.6
Area = tuple[float, float, float, float]
Size = tuple[float, float]


class EvenTicks(MaxNLocator):
    """At most six ticks, at whole minutes, hours or KiB where the unit has such."""

    def __init__(self, unit: str) -> None:
        super().__init__(5)
        self._steps_of_unit = STEPS.get(unit, ())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the places of the ticks between these values."""
        for step in self._steps_of_unit:
            if (vmax - vmin) / step <= 6:
                return [step * number for number in range(math.ceil(vmin / step), math.floor(vmax / step) + 1)]
        return super().tick_values(vmin, vmax)


def paint(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    """Draw the answer of a panel into this area of the figure; `size` is the area's in pixels."""
    painters: Mapping[str, Callable[[Figure, Area, Mapping[str, Any], Sequence[Frame], Size], None]] = {
        "timeseries": _timeseries,
        "stat": _figures,
        "bargauge": _gauges,
        "barchart": _columns,
        "table": _table,
        "trend": _trend,
        "xychart": _points,
    }
    painters[panel["type"]](figure, area, panel, frames, size)


def _timeseries(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    custom = panel["fieldConfig"]["defaults"]["custom"]
    named = [(name, frame.columns["time"], values) for frame in frames for name, values in frame.series.items()]
    axes = _axes(figure, area, panel, [name for name, _, _ in named], size)
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    base: dict[float, float] = {}
    areas: list[tuple[list[float], list[float], list[float], str]] = []
    for number, (_, times, values) in enumerate(named):
        colour = PALETTE[number % len(PALETTE)]
        pairs = [(t, float(v)) for t, v in zip(times, values, strict=True) if v is not None and not math.isnan(v)]
        if not pairs:
            continue
        instants = [t for t, _ in pairs]
        floor = [base.get(t, 0.0) if stacked else 0.0 for t, _ in pairs]
        tops = [low + value for low, (_, value) in zip(floor, pairs, strict=True)]
        base.update({t: top for (t, _), top in zip(pairs, tops, strict=True)})
        if custom["drawStyle"] == "bars":
            step = min((b - a for a, b in pairwise(instants)), default=60.0)
            axes.bar(instants, tops, width=step * 0.9, color=colour, alpha=0.75)
        elif custom["drawStyle"] == "points":
            axes.plot(instants, tops, ".", color=colour, ms=3)
        else:
            axes.plot(instants, tops, color=colour, lw=1.3)
            areas.append((instants, tops, floor, colour))
    _limits(axes, panel)
    bottom = axes.get_ylim()[0]
    for instants, tops, floor, colour in areas:
        axes.fill_between(
            instants, tops, floor if stacked else bottom, color=colour, alpha=0.25 if stacked else 0.06, lw=0
        )
    _time_axis(axes, [t for _, times, _ in named for t in times], max(2, int(size[0] / 95)))


def _figures(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    axes = _blank(figure, area, size)
    shown = [(name, _last(values)) for frame in frames for name, values in frame.series.items()]
    wide, tall = size
    part = wide / max(1, len(shown))
    for number, (name, value) in enumerate(shown):
        text, colour = _said(panel, value)
        middle = part * (number + 0.5)
        if panel["options"]["colorMode"] == "background":
            axes.barh(tall / 2, part - 6, tall, part * number + 3, color=colour, alpha=0.85)
            colour = "#ffffff"
        points = min(24.0, tall * 0.28, part * 0.95 / max(3, len(text)))
        axes.text(middle, tall / 2 - 9, text, color=colour, size=points, ha="center", va="center", weight="bold")
        above = "#ffffff" if panel["options"]["colorMode"] == "background" else DIM
        axes.text(middle, tall / 2 + points * 0.7 + 9, name, color=above, size=7.5, ha="center", va="center")


def _gauges(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    axes = _blank(figure, area, size)
    shown = [(name, _last(values)) for frame in frames for name, values in frame.series.items()]
    wide, tall = size
    step = min(34.0, tall / max(1, len(shown)))
    longest = max(len(name) for name, _ in shown)
    start = min(wide * 0.45, longest * LETTER_PX + 8)
    full = panel["fieldConfig"]["defaults"].get("max") or max((value or 0) for _, value in shown) or 1.0
    for number, (name, value) in enumerate(shown):
        text, colour = _said(panel, value)
        middle = tall - step * (number + 0.5)
        length = (wide - start - 70) * min(1.0, max(0.0, (value or 0) / full))
        axes.barh(middle, wide - start - 70, step * 0.7, start, color="#22252b")
        axes.barh(middle, length, step * 0.7, start, color=colour)
        axes.text(0, middle, name, color=TEXT, size=8, va="center")
        axes.text(wide - 64, middle, text, color=colour, size=9, va="center", weight="bold")


def _columns(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    frame = frames[0]
    x = panel["options"]["xField"]
    names = [name for name in frame.columns if name != x]
    axes = _axes(figure, area, panel, names, size)
    labels = [str(label) for label in frame.columns[x]]
    stacked = panel["options"].get("stacking") == "normal"
    base = [0.0] * len(labels)
    colours = _series_colours(panel, names)
    for number, name in enumerate(names):
        heights = [float(value or 0) for value in frame.columns[name]]
        width = 0.75 if stacked else 0.75 / len(names)
        shift = 0.0 if stacked else (number - (len(names) - 1) / 2) * width
        places = [at + shift for at in range(len(labels))]
        axes.bar(places, heights, width * 0.94, base if stacked else 0, color=colours[number], alpha=0.85)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    each = max(1, math.ceil(len(labels) * (max(map(len, labels)) + 1) * LETTER_PX / (size[0] - 64)))
    axes.set_xticks(range(0, len(labels), each), labels[::each])


def _trend(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    frame, x = frames[0], panel["options"]["xField"]
    names = [name for name in frame.columns if name != x]
    axes = _axes(figure, area, panel, names, size)
    for number, name in enumerate(names):
        axes.plot(frame.columns[x], frame.columns[name], color=PALETTE[number], lw=1.3)
        low = axes.get_ylim()[0]
        axes.fill_between(frame.columns[x], frame.columns[name], low, color=PALETTE[number], alpha=0.06, lw=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} h"))


def _points(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    axes = _axes(figure, area, panel, [line["name"] for line in panel["options"]["series"]], size, right=True)
    fixed = _overridden(panel, "color")
    for line in panel["options"]["series"]:
        columns = frames[int(line["frame"])].columns
        width = _overridden(panel, "custom.lineWidth").get(line["name"], 3)
        colour = _colour(fixed[line["name"]]["fixedColor"])
        axes.plot(columns[line["x"]], columns[line["y"]], color=colour, lw=0.7 * width, zorder=2)
    axes.set_ylabel(panel["fieldConfig"]["defaults"]["custom"]["axisLabel"], color=DIM)
    axes.set_xlabel("← west      east →", color=DIM)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: written(value, panel["fieldConfig"]["defaults"]["unit"]))
    )


def _table(figure: Figure, area: Area, panel: Mapping[str, Any], frames: Sequence[Frame], size: Size) -> None:
    axes = _blank(figure, area, size)
    frame = frames[0]
    wide, tall = size
    units = _overridden(panel, "unit")
    default = panel["fieldConfig"]["defaults"]["unit"]
    texts = {
        name: [_cell(value, units.get(name, default)) for value in values] for name, values in frame.columns.items()
    }
    lengths = {name: max([len(name), *map(len, values)]) + 2 for name, values in texts.items()}
    left, scale = 0.0, wide / sum(lengths.values())
    step = 22.0
    for name, values in texts.items():
        axes.text(left + 4, tall - step / 2, name, color="#6e9fff", size=8, va="center")
        for number, text in enumerate(values[: int(tall / step) - 1]):
            axes.text(left + 4, tall - step * (number + 1.5), text, color=TEXT, size=8, va="center")
        left += lengths[name] * scale
    for number in range(1, min(len(frame), int(tall / step) - 1) + 1):
        axes.plot([0, wide], [tall - step * number] * 2, color=GRID, lw=0.6)


def _overridden(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of one setting by the names of the fields that have one of their own."""
    return {
        override["matcher"]["options"]: entry["value"]
        for override in panel["fieldConfig"].get("overrides") or []
        for entry in override["properties"]
        if entry["id"] == name
    }


def _series_colours(panel: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    fixed = _overridden(panel, "color")
    return [
        _colour(fixed[name]["fixedColor"]) if name in fixed else PALETTE[number % len(PALETTE)]
        for number, name in enumerate(names)
    ]


def _colour(name: str) -> str:
    return name if name.startswith("#") else NAMED[name]


def _cell(value: object, unit: str) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else written(value, unit)
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return "–" if value is None else str(value)


def _axes(
    figure: Figure, area: Area, panel: Mapping[str, Any], names: Sequence[str], size: Size, *, right: bool = False
) -> Axes:
    """Return axes with unit, grid and legend; the legend's rows take their room from them."""
    wide, tall = size
    per_row = max(1, int(wide / (max([len(name) for name in names], default=1) * LETTER_PX + 34)))
    lines = min(3, math.ceil(len(names) / per_row))
    below = 24 + (18 if right else LEGEND_PX * lines)
    side = 56 + (16 if right else 0)
    beside = 110 if right else 8
    inner = (
        area[0] + area[2] * side / wide,
        area[1] + area[3] * below / tall,
        area[2] * (1 - (side + beside) / wide),
        area[3] * (1 - (below + 4) / tall),
    )
    axes: Axes = figure.add_axes(inner, facecolor="none")
    axes.tick_params(colors=DIM, length=0, labelsize=7.5)
    axes.grid(color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.yaxis.set_major_locator(EvenTicks(unit))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))
    _legend(_blank(figure, area, size), names, _series_colours(panel, names), per_row, size, right=right)
    return axes


def _legend(axes: Axes, names: Sequence[str], colours: Sequence[str], per_row: int, size: Size, *, right: bool) -> None:
    wide, tall = size
    for number, name in enumerate(names[: per_row * 3]):
        x, y = (
            (wide - 96, tall - 14 - 20 * number)
            if right
            else (
                (number % per_row) * wide / per_row,
                LEGEND_PX * (min(2, (len(names) - 1) // per_row) - number // per_row) + 8,
            )
        )
        axes.plot([x, x + 14], [y, y], color=colours[number], lw=3, solid_capstyle="butt")
        axes.text(x + 19, y, name, color=DIM, size=8, va="center")


def _blank(figure: Figure, area: Area, size: Size) -> Axes:
    axes: Axes = figure.add_axes(area, facecolor="none")
    axes.set_axis_off()
    axes.set_xlim(0, size[0])
    axes.set_ylim(0, size[1])
    axes.autoscale(enable=False)
    return axes


def _limits(axes: Axes, panel: Mapping[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    low, high = axes.get_ylim()
    high = max(high, defaults["custom"].get("axisSoftMax") or high)
    axes.set_ylim(defaults.get("min", low), max(high, low + 1e-9) if defaults.get("max") is None else defaults["max"])


def _time_axis(axes: Axes, times: Sequence[float], count: int) -> None:
    if not times:
        return
    first, last = min(times), max(times)
    days = last - first > 86_400
    unit = 3600 if days else 60
    ticks = [round((first + (last - first) * (number + 0.5) / count) / unit) * unit for number in range(count)]
    form = "%m/%d %H:%M" if days else "%H:%M"
    axes.set_xticks(ticks, [datetime.fromtimestamp(tick, UTC).strftime(form) for tick in ticks])


def _last(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None and not math.isnan(value)]
    return known[-1] if known else None


def _said(panel: Mapping[str, Any], value: float | None) -> tuple[str, str]:
    """Return a value's text and colour by the panel's mappings, thresholds and unit."""
    defaults = panel["fieldConfig"]["defaults"]
    if value is None:
        return "No data", DIM
    for mapping in defaults.get("mappings") or []:
        if found := mapping["options"].get(f"{value:g}"):
            return str(found["text"]), NAMED[found["color"]]
    colour = next(
        step["color"]
        for step in reversed(defaults["thresholds"]["steps"])
        if step["value"] is None or value >= step["value"]
    )
    return written(value, defaults["unit"], defaults.get("decimals")), NAMED[colour]
