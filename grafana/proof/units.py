"""Values with their units, as short as Grafana writes them."""

from __future__ import annotations

SUFFIX = {
    "celsius": " °C",
    "percent": "%",
    "velocityms": " m/s",
    "lengthmm": " mm",
    "pressurehpa": " hPa",
    "conμgm3": " μg/m³",
    "none": "",
    "short": "",
    "h": " h",
    "cps": " c/s",
    "cpm": " c/m",
    "reqps": " req/s",
    "ops": " ops/s",
}
TIMES = ((31_536_000, "years"), (604_800, "weeks"), (86_400, "days"), (3600, "hours"), (60, "mins"), (1, "s"))
SHORT = ((1e12, " Tri"), (1e9, " Bil"), (1e6, " Mil"), (1e3, " K"))
BYTES = ((2**40, " TiB"), (2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))


STEPS = {
    "s": (
        0.01,
        0.05,
        0.1,
        0.2,
        0.5,
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
        3600,
        7200,
        21_600,
        43_200,
        86_400,
    ),
    "bytes": tuple(2.0**power for power in range(50)),
    "binBps": tuple(2.0**power for power in range(50)),
}
"""Distances of an axis' ticks that are easy to read, where tens are not."""


def written(value: float, unit: str, decimals: float | None = None) -> str:
    """Return the value as text. Raises KeyError for a unit that no panel had so far."""
    if unit in ("s", "ms"):
        return _seconds(value if unit == "s" else value / 1000)
    if unit == "percentunit":
        return f"{_number(value * 100, decimals)}%"
    if unit in ("bytes", "binBps"):
        return _scaled(value, BYTES, " B") + ("/s" if unit == "binBps" else "")
    if unit in ("short", "cps", "cpm", "reqps", "ops") and abs(value) >= 1000:
        return _scaled(value, SHORT, "") + SUFFIX[unit]
    return f"{_number(value, decimals)}{SUFFIX[unit]}"


def _number(value: float, decimals: float | None) -> str:
    if decimals is not None:
        return f"{value:.{int(decimals)}f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _scaled(value: float, scales: tuple[tuple[float, str], ...], none: str) -> str:
    for size, suffix in scales:
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}{none}"


def _seconds(value: float) -> str:
    if abs(value) < 1e-3:
        return f"{value * 1e6:.3g} µs" if value else "0 s"
    if abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    size, name = next((size, name) for size, name in TIMES if abs(value) >= size)
    return f"{value / size:.3g} {name}"
