"""Limits: a value beyond what was ever measured on Earth is an error of the provider; it becomes null, and says so."""

from __future__ import annotations

from meteo_common.message import (
    FORECAST_LIMITS,
    INDEX_LIMITS,
    LIMITS,
    OTHER_INDEX_LIMITS,
    AirQuality,
    ForecastStep,
    Observation,
)

Limits = tuple[float, float]


def limit_observation(observation: Observation) -> list[str]:
    """Set what lies outside its limits to None, turn 360° into 0°; return `<field>:out_of_range` for each."""
    if observation.wind_direction_degrees == 360:
        observation.wind_direction_degrees = 0.0
    return _limit(observation, LIMITS, "")


def limit_forecast(steps: list[ForecastStep]) -> list[str]:
    """The same for forecast steps: `forecast[<index>].<field>:out_of_range`."""
    return [entry for index, step in enumerate(steps) for entry in _limit(step, FORECAST_LIMITS, f"forecast[{index}].")]


def limit_air_quality(air: AirQuality | None, index: float | None) -> list[str]:
    """Put `index` into `air` if its scale allows it, and drop negative concentrations.

    Returns `air_quality.index:out_of_range`, `air_quality.components_ugm3.<name>:out_of_range`.
    """
    if air is None:
        return []
    quality = []
    if _outside(index, INDEX_LIMITS.get(air.scale, OTHER_INDEX_LIMITS)):
        quality.append("air_quality.index:out_of_range")
    else:
        air.index = index
    for name, value in air.components_ugm3.items():
        if value is not None and value < 0:
            air.components_ugm3[name] = None
            quality.append(f"air_quality.components_ugm3.{name}:out_of_range")
    return quality


def _limit(values: Observation | ForecastStep, limits: dict[str, Limits], prefix: str) -> list[str]:
    quality = []
    for field, bounds in limits.items():
        if _outside(getattr(values, field), bounds):
            setattr(values, field, None)
            quality.append(f"{prefix}{field}:out_of_range")
    return quality


def _outside(value: float | None, limits: Limits) -> bool:
    return value is not None and not limits[0] <= value <= limits[1]
