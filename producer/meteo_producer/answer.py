"""Reading a provider's JSON: a value is there, absent, or of the wrong kind; the last one is refused by its name."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from meteo_common.errors import RefusedError

Json = dict[str, Any]


def as_object(value: Any, field: str) -> Json:
    """Return a JSON object; an absent one is empty. Raises RefusedError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RefusedError(f"{field} is {_kind(value)}, expected an object")
    return value


def as_list(value: Any, field: str) -> list[Any]:
    """Return a JSON array; an absent one is empty. Raises RefusedError for anything else."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(f"{field} is {_kind(value)}, expected an array")
    return value


def as_number(value: Any, field: str) -> float | None:
    """Return a finite number, or None for null. Raises RefusedError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(f"{field} is {_kind(value)}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RefusedError(f"{field} is not a finite number")
    return number


def as_numbers(value: Any, field: str) -> dict[str, float | None]:
    """Return an object of numbers or nulls; an absent one is empty. Raises RefusedError for anything else."""
    return {name: as_number(number, f"{field}.{name}") for name, number in as_object(value, field).items()}


def as_text(value: Any, field: str) -> str | None:
    """Return a text, or None for null and for an empty one. Raises RefusedError for anything else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise RefusedError(f"{field} is {_kind(value)}, expected a text")
    return value or None


def as_instant(value: Any, field: str) -> datetime | None:
    """Return the instant of a unix time in seconds, or None for null. Raises RefusedError for anything else."""
    seconds = as_number(value, field)
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise RefusedError(f"{field} is {seconds:g}, expected a unix time") from None


def _kind(value: Any) -> str:
    kinds = {bool: "a truth value", str: "a text", list: "an array", dict: "an object", int: "a number"}
    return kinds.get(type(value), "a number")
