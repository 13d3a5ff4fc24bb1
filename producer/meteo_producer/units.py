"""Units: from what a provider names to what the message's fields are named after."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meteo_common.errors import RefusedError

Conversion = Callable[[float], float]


def fahrenheit_to_celsius(value: float) -> float:
    """°F → °C."""
    return (value - 32) * 5 / 9


def _same(value: float) -> float:
    return value


def _times(factor: float) -> Conversion:
    return lambda value: value * factor


# Factors are exact by definition: 1 mile = 1609.344 m, 1 knot = 1852 m an hour, 1 inch = 25.4 mm, 1 foot = 0.3048 m.
CELSIUS: Mapping[str, Conversion] = {
    "°C": _same,
    "°F": fahrenheit_to_celsius,
    "K": lambda value: value - 273.15,
}
METRES_PER_SECOND: Mapping[str, Conversion] = {
    "m/s": _same,
    "km/h": lambda value: value / 3.6,
    "mph": _times(0.44704),
    "mp/h": _times(0.44704),  # Open-Meteo's spelling of miles an hour
    "kn": lambda value: value * 1852 / 3600,
}
MILLIMETRES: Mapping[str, Conversion] = {"mm": _same, "inch": _times(25.4), "in": _times(25.4), "cm": _times(10)}
METRES: Mapping[str, Conversion] = {"m": _same, "km": _times(1000), "mi": _times(1609.344), "ft": _times(0.3048)}
HECTOPASCAL: Mapping[str, Conversion] = {"hPa": _same, "mb": _same, "Pa": _times(0.01), "kPa": _times(10)}
PERCENT: Mapping[str, Conversion] = {"%": _same}
DEGREES: Mapping[str, Conversion] = {"°": _same}
MICROGRAMS: Mapping[str, Conversion] = {"μg/m³": _same, "µg/m³": _same}


def convert(value: float | None, unit: str, units: Mapping[str, Conversion], field: str) -> float | None:
    """Return `value`, given in `unit`, in the unit that `units` lead to; None stays None, -0.0 becomes 0.0.

    Raises RefusedError for a unit that `units` does not know.
    """
    if value is None:
        return None
    conversion = units.get(unit)
    if conversion is None:
        raise RefusedError(f"{field} is given in '{unit}', expected one of {', '.join(units)}")
    return conversion(value) + 0.0
