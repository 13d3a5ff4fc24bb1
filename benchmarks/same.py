"""Whether two programs have computed the same aggregates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from meteo_common.errors import TerminalError

TOLERANCE = 1e-9
"""Other programs add in another order; relative above 1, absolute below."""
ANGLE = "wind_direction_mean_degrees"
Fields = Mapping[str, Any]


def check(who: str, found: Sequence[Fields], wanted: Sequence[Fields]) -> None:
    """Compare all fields of lines sorted by date and station, angles modulo 360; raises TerminalError."""
    if len(found) != len(wanted):
        raise TerminalError(f"{who} returned {len(found)} lines, the engine {len(wanted)}; the arms do not compare.")
    for one, other in zip(found, wanted, strict=True):
        if one.keys() != other.keys():
            raise TerminalError(f"{who} returned the fields {list(one)}, the engine {list(other)}.")
        for name, value in other.items():
            if not _same(name, one[name], value):
                where = f"{other['station_id']} on {other['date']}"
                raise TerminalError(f"{who} returned {name} {one[name]!r} for {where}, the engine {value!r}.")


def _same(name: str, one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return bool(one == other)
    apart = abs(one - other)
    if name == ANGLE:
        apart = min(apart, 360 - apart)
    return bool(apart <= TOLERANCE * max(1.0, abs(other)))
