"""What a panel shows: its queries' answers after its transformations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proof.asking import Frame, Sources
from proof.filling import Range, Value


def answer(panel: Mapping[str, Any], sources: Sources, variables: Mapping[str, Value], span: Range) -> list[Frame]:
    """Return a panel's frames. Raises ValueError when a server refuses one of its queries."""
    frames = [frame for target in panel["targets"] for frame in sources.frames(target, variables, span)]
    for transformation in panel.get("transformations") or []:
        if transformation["id"] != "groupingToMatrix":
            raise ValueError(f"{panel['title']}: the transformation {transformation['id']} is not known here.")
        frames = [_matrix(frame, **transformation["options"]) for frame in frames]
    return frames


def _matrix(frame: Frame, *, rowField: str, columnField: str, valueField: str, emptyValue: str) -> Frame:  # noqa: N803
    """Spread the values over rows and columns, as Grafana's transformation of these options does."""
    if emptyValue != "null":
        raise ValueError(f"emptyValue {emptyValue}: expected null.")
    triples = list(zip(*(frame.columns[name] for name in (rowField, columnField, valueField)), strict=True))
    cells = {(row, column): value for row, column, value in triples}
    rows, columns = ([*dict.fromkeys(triple[at] for triple in triples)] for at in (0, 1))
    return Frame({rowField: rows, **{column: [cells.get((row, column)) for row in rows] for column in columns}})
