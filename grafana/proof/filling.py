"""A query as Grafana sends it: variables replaced, macros of the PostgreSQL data source written out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Value = str | Sequence[str]
MACRO = re.compile(r"\$__(\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
LEFT = re.compile(r"\$\{?[A-Za-z_]\w*|\[\[\w+")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Grafana's way of making a value safe inside a quoted regular expression of PromQL.
SPECIAL = re.compile(r"[\\^$*+?.()|\[\]{}]")


@dataclass(frozen=True)
class Range:
    """The dashboard's range of time, and what a panel makes of it."""

    start: datetime
    end: datetime
    points: int = 500
    scrape: int = 15

    @property
    def seconds(self) -> float:
        """The range's length."""
        return (self.end - self.start).total_seconds()

    @property
    def interval(self) -> int:
        """Return `$__interval` in seconds: what one pixel shows, at least the time between two scrapes."""
        return max(self.scrape, round(self.seconds / self.points))

    @property
    def rate_interval(self) -> int:
        """Return `$__rate_interval` in seconds: never less than four scrapes."""
        return max(self.interval + self.scrape, 4 * self.scrape)


def fill_promql(expression: str, variables: Mapping[str, Value], span: Range) -> str:
    """Return the expression with all variables replaced. Raises ValueError when one is left."""
    fixed: dict[str, Value] = {
        "__rate_interval": f"{span.rate_interval}s",
        "__interval": f"{span.interval}s",
        "__range": f"{round(span.seconds)}s",
    }
    filled = _replace(expression, fixed, _plain)
    return _checked(_replace(filled, variables, _as_regular_expression))


def fill_sql(statement: str, variables: Mapping[str, Value], span: Range) -> str:
    """Return the statement with all variables and macros replaced. Raises ValueError when one is left."""
    filled = _replace(statement, {"__interval": f"{span.interval}s"}, _plain)
    filled = MACRO.sub(lambda found: _macro(found[1], found[2], span), filled)
    return _checked(_replace(filled, variables, _plain))


def fill_text(text: str, variables: Mapping[str, Value]) -> str:
    """Return a title with its variables replaced."""
    return _replace(text, variables, _plain)


def seconds_of(interval: str) -> int:
    """Return the seconds of an interval such as 15s or 5m."""
    return int(interval[:-1]) * UNITS[interval[-1]]


def _macro(name: str, arguments: str, span: Range) -> str:
    start, end = (f"'{instant.isoformat()}'" for instant in (span.start, span.end))
    if name == "timeFilter":
        return f"{arguments} BETWEEN {start} AND {end}"
    if name in ("timeFrom", "timeTo"):
        return start if name == "timeFrom" else end
    if name in ("timeGroup", "timeGroupAlias"):
        column, interval = (part.strip().strip("'") for part in arguments.rsplit(",", 1))
        width = seconds_of(interval)
        grouped = f"floor(extract(epoch from {column})/{width})*{width}"
        return grouped + (' AS "time"' if name == "timeGroupAlias" else "")
    raise ValueError(f"There is no macro $__{name} in the PostgreSQL data source.")


def _replace(text: str, values: Mapping[str, Value], write: Callable[[Value], str]) -> str:
    for name, value in values.items():
        if (pattern := re.compile(rf"\$\{{{name}\}}|\${name}\b")).search(text):
            written = write(value)
            text = pattern.sub(written.replace("\\", r"\\"), text)
    return text


def _plain(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("A variable with several values needs a format here.")


def _as_regular_expression(value: Value) -> str:
    """A variable of one choice stands for itself, after `=`; one of several for a regular expression, after `=~`."""
    if isinstance(value, str):
        return value.replace("\\", r"\\").replace('"', r"\"")
    escaped = [SPECIAL.sub(lambda found: rf"\\{found[0]}", one) for one in value]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _checked(text: str) -> str:
    # What a regular expression's replacement calls $1 is none of Grafana's variables.
    if found := LEFT.search(text):
        raise ValueError(f"{found[0]} is no variable of the dashboard.")
    return text
