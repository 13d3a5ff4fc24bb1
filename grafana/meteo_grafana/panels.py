"""The kinds of panels, in the house's style; none can be made without title, description, unit and named series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    dashboard,
    stat,
    table,
    timeseries,
    trend,
    xychart,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.xychart import ScatterSeriesConfig, ScatterShow, SeriesMapping

from meteo_grafana.queries import POSTGRESQL, PROMETHEUS, Query, Sql

Chart = TypeVar(
    "Chart", timeseries.Panel, stat.Panel, bargauge.Panel, barchart.Panel, table.Panel, trend.Panel, xychart.Panel
)
Steps = Sequence[tuple[float | None, str]]
"""Colours from these values on; the first begins at None, below everything."""
PLAIN: Steps = ((None, "blue"),)
GOOD, WARN, BAD = "green", "orange", "red"
FAINT = "#5a5e68"


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 8,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    points: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> timeseries.Panel:
    """Return lines over time; `bars` for amounts of an interval, `points` for values that do not add up to a line."""
    panel = _described(timeseries.Panel(), title, description, unit, queries, span, height)
    panel.legend(_legend()).tooltip(common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI))
    panel.fill_opacity(60 if bars else 25 if stacked else 8).line_width(1 if bars or stacked else 2)
    panel.draw_style(
        words.GraphDrawStyle.BARS if bars else words.GraphDrawStyle.POINTS if points else words.GraphDrawStyle.LINE
    )
    panel.show_points(words.VisibilityMode.ALWAYS if points else words.VisibilityMode.NEVER)
    # A poll may fail, a scrape may be missed: half an hour without a value is no gap in the weather.
    panel.span_nulls(1_800_000)
    if stacked:
        panel.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL).group("A"))
    if low is not None:
        panel.min(low)
    if unit == "short" and low == 0:
        # Counts: nothing is a line at the bottom, not in the middle of an axis of thousandths.
        panel.axis_soft_max(1)
    if high is not None:
        panel.max(high)
    return panel


def figures(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 4,
    height: int = 4,
    steps: Steps = PLAIN,
    names: Mapping[int, tuple[str, str]] | None = None,
    decimals: int | None = None,
    background: bool = False,
) -> stat.Panel:
    """Return large figures, one for each series; `names` replaces values by (text, colour)."""
    panel = _described(stat.Panel(), title, description, unit, queries, span, height)
    panel.thresholds(_thresholds(steps)).color_scheme(
        dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
    ).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.graph_mode(words.BigValueGraphMode.NONE).text_mode(words.BigValueTextMode.AUTO)
    panel.color_mode(words.BigValueColorMode.BACKGROUND if background else words.BigValueColorMode.VALUE)
    if names:
        panel.mappings([_mapping(names)])
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def gauges(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 8,
    height: int = 8,
    steps: Steps = PLAIN,
    high: float | None = None,
) -> bargauge.Panel:
    """Return one horizontal bar for each series."""
    panel = _described(bargauge.Panel(), title, description, unit, queries, span, height)
    panel.thresholds(_thresholds(steps)).color_scheme(
        dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)
    ).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.orientation(words.VizOrientation.HORIZONTAL).display_mode(words.BarGaugeDisplayMode.BASIC)
    panel.value_mode(words.BarGaugeValueMode.TEXT).min(0).decimals(1)
    if high is not None:
        panel.max(high)
    return panel


def columns(
    title: str,
    description: str,
    unit: str,
    query: Sql,
    x: str,
    *,
    span: int = 8,
    height: int = 8,
    stacked: bool = False,
    colours: Mapping[str, str] | None = None,
) -> barchart.Panel:
    """Return a column for each row of the statement, named by its column `x`; `colours` are those of its parts."""
    panel = _described(barchart.Panel(), title, description, unit, (query,), span, height)
    panel.x_field(x).orientation(words.VizOrientation.VERTICAL).show_value(words.VisibilityMode.NEVER)
    panel.legend(_legend()).tooltip(common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI))
    panel.stacking(words.StackingMode.NORMAL if stacked else words.StackingMode.NONE).fill_opacity(80).line_width(1)
    panel.group_width(0.8).bar_width(0.95).x_tick_label_rotation(0).x_tick_label_spacing(50)
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [_fixed(colour)])
    return panel


def listing(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    span: int = 12,
    height: int = 8,
    matrix: tuple[str, str] | None = None,
    units: Mapping[str, str] | None = None,
) -> table.Panel:
    """Return a table; `matrix` (row label, column label) spreads one PromQL query, `units` are those of columns."""
    panel = _described(table.Panel(), title, description, unit, queries, span, height)
    panel.filterable(False).align(words.FieldTextAlignment.LEFT).show_header(True)
    if matrix:
        row, column = matrix
        options = {"rowField": row, "columnField": column, "valueField": "Value", "emptyValue": "null"}
        panel.with_transformation(DataTransformerConfig("groupingToMatrix", options=options))
        # The transformation names its first column after both labels.
        title_of_rows = DynamicConfigValue("displayName", row)
        panel.override_by_name(f"{row}\\{column}", [title_of_rows])
    for name, own in (units or {}).items():
        panel.override_by_name(name, [DynamicConfigValue("unit", own)])
    return panel


def curve(
    title: str, description: str, unit: str, query: Sql, x: str, *, span: int = 8, height: int = 8
) -> trend.Panel:
    """Return lines over the statement's numeric column `x`, for what is not in the dashboard's range of time."""
    panel = _described(trend.Panel(), title, description, unit, (query,), span, height)
    panel.x_field(x).legend(_legend()).tooltip(common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI))
    panel.fill_opacity(8).line_width(2).override_by_name(x, [DynamicConfigValue("unit", "h")])
    return panel


def rose(
    title: str,
    description: str,
    unit: str,
    queries: Sequence[tuple[Sql, str, str]],
    axes: tuple[str, str],
    *,
    span: int = 9,
    height: int = 12,
) -> xychart.Panel:
    """Return closed lines through the points (`x`, name) of each (statement, name, colour), drawn in this order."""
    panel = _described(xychart.Panel(), title, description, unit, [query for query, _, _ in queries], span, height)
    lines: list[Builder[ScatterSeriesConfig]] = [
        xychart.ScatterSeriesConfig().frame(number).x("x").y(name).name(name).show(ScatterShow.LINES)
        for number, (_, name, _) in enumerate(queries)
    ]
    panel.series_mapping(SeriesMapping.MANUAL).series(lines).show(ScatterShow.LINES).line_width(3)
    panel.legend(_legend(right=True)).decimals(0).axis_label(axes[1])
    panel.override_by_name("x", [DynamicConfigValue("custom.axisLabel", axes[0])])
    for _, name, colour in queries:
        # What is no petal, such as the rings, is drawn thin.
        thin = [DynamicConfigValue("custom.lineWidth", 1)] if colour == FAINT else []
        panel.override_by_name(name, [_fixed(colour), *thin])
    return panel


def _described(
    panel: Chart, title: str, description: str, unit: str, queries: Sequence[Query], span: int, height: int
) -> Chart:
    for letter, query in zip("ABCDEFGHIJKL", queries, strict=False):
        query.ref_id(letter)
    targets: list[Builder[Dataquery]] = list(queries)
    source = POSTGRESQL if isinstance(queries[0], Sql) else PROMETHEUS
    panel.title(title).description(description).unit(unit).span(span).height(height)
    panel.datasource(source).targets(targets)
    return panel


def _fixed(colour: str) -> DynamicConfigValue:
    return DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _legend(*, right: bool = False) -> common.VizLegendOptions:
    placement = words.LegendPlacement.RIGHT if right else words.LegendPlacement.BOTTOM
    return common.VizLegendOptions().show_legend(True).display_mode(words.LegendDisplayMode.LIST).placement(placement)


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _mapping(names: Mapping[int, tuple[str, str]]) -> ValueMapping:
    return ValueMap(
        options={
            str(value): ValueMappingResult(text=text, color=colour, index=number)
            for number, (value, (text, colour)) in enumerate(names.items())
        }
    )


__all__ = [
    "BAD",
    "FAINT",
    "GOOD",
    "PLAIN",
    "WARN",
    "Panel",
    "columns",
    "curve",
    "figures",
    "gauges",
    "graph",
    "listing",
    "rose",
]
