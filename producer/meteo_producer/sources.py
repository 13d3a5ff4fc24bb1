"""The sources there are: one line for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meteo_common.errors import UsageError
from meteo_common.settings import Settings
from meteo_producer.api import Api
from meteo_producer.open_meteo import OpenMeteo
from meteo_producer.open_meteo_archive import OpenMeteoArchive
from meteo_producer.openweather import OpenWeather
from meteo_producer.replay import Replay
from meteo_producer.simulation import SimulatedDays, Simulation
from meteo_producer.source import History, Recording, Selection, Source
from meteo_producer.visual_crossing import VisualCrossing

SOURCES: Mapping[str, Callable[[Settings, Api], Source]] = {
    "open-meteo": OpenMeteo,
    "openweather": OpenWeather,
    "visual-crossing": VisualCrossing,
    "simulation": Simulation,
}
"""Asked about places, again and again."""

HISTORIES: Mapping[str, Callable[[Settings, Api], History]] = {
    "open-meteo": OpenMeteoArchive,
    "visual-crossing": VisualCrossing,
}
"""Asked about past days, each of them once."""

RECORDINGS: Mapping[str, Callable[[Settings, Selection], Recording]] = {
    "replay": Replay,
    "simulation": SimulatedDays,
}
"""Played once, from their beginning to their end. One that is also a source is played when its days are given."""

STORED = "stored"
"""No source, but what the sources answered already; it lies in PostgreSQL."""


def fallback_of(settings: Settings) -> str | None:
    """Return the source that FALLBACK names, None for none. Raises UsageError when there is no such source."""
    if settings.fallback == "none":
        return None
    if settings.fallback not in SOURCES:
        raise UsageError(
            f"The setting FALLBACK is '{settings.fallback}': expected none or one of {', '.join(SOURCES)}."
        )
    return settings.fallback
