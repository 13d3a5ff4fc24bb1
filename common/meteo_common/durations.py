"""Durations as people write them in settings: 90s, 10m, 1h, 2d."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PATTERN = re.compile(r"(\d+)([smhd])")


def parse_duration(text: str | int) -> int:
    """Return the seconds of a duration such as `10m`.

    Raises ValueError for anything but a positive whole number with one of the units s, m, h, d.
    """
    match = _PATTERN.fullmatch(str(text).strip())
    if match is None or int(match[1]) == 0:
        raise ValueError("expected a whole number with a unit, such as 30s, 10m, 1h or 2d")
    return int(match[1]) * _UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """Return a short text for people: `45 s`, `12 min`, `3.5 h`, `2.0 d`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


Seconds = Annotated[int, BeforeValidator(parse_duration)]
"""A setting written as a duration, kept as whole seconds."""
