"""Coordinates of places that the setting CITY gives by name only: looked up once, then kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from meteo_common.errors import RefusedError, UsageError
from meteo_common.places import Place
from meteo_common.settings import Settings
from meteo_producer.answer import as_list, as_number, as_object
from meteo_producer.api import Api, Endpoint
from meteo_producer.state import producer_directory

log = structlog.get_logger()


class Coordinates:
    """Where places are; what was looked up is kept in `coordinates.json` of the service's state directory."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._file = producer_directory(settings) / "coordinates.json"
        self._api = api
        self._endpoint = Endpoint(
            "Open-Meteo's geocoding",
            settings.open_meteo_geocoding_url,
            "/v1/search",
            "OPEN_METEO_GEOCODING_URL",
            account="open-meteo",
        )
        self._known = _read(self._file)

    def known(self, place: Place) -> Place | None:
        """Return the place with its coordinates if they are known without asking."""
        if place.latitude is not None:
            return place
        found = self._known.get(str(place))
        return replace(place, latitude=found[0], longitude=found[1]) if found else None

    def locate(self, place: Place) -> Place:
        """Return the place with its coordinates in degrees.

        Raises UsageError when no place of that name is in that country, UnreachableError when it cannot be asked.
        """
        known = self.known(place)
        if known is None:
            found = self._known[str(place)] = self._look_up(place)
            self._keep()
            known = replace(place, latitude=found[0], longitude=found[1])
        return known

    def _look_up(self, place: Place) -> tuple[float, float]:
        # Results come by population; 100, the most there can be, so that a small namesake abroad is not hidden.
        body = self._api.get(
            self._endpoint, {"name": place.name, "count": 100, "language": "en", "format": "json"}, str(place)
        )
        for result in as_list(as_object(body, "the answer").get("results"), "results"):
            entry = as_object(result, "results[]")
            latitude, longitude = (
                as_number(entry.get("latitude"), "latitude"),
                as_number(entry.get("longitude"), "longitude"),
            )
            if entry.get("country_code") == place.country and latitude is not None and longitude is not None:
                if abs(latitude) > 90 or abs(longitude) > 180:
                    raise RefusedError(
                        f"{self._endpoint} puts {place} at {latitude:g},{longitude:g}, which is nowhere."
                    )
                return latitude, longitude
        raise UsageError(
            f"The place '{place}' is unknown to {self._endpoint}: check its spelling and country,"
            f" or write {place}@latitude,longitude."
        )

    def _keep(self) -> None:
        """Replace the file as a whole. Not being able to costs a look-up at the next start, nothing else."""
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known, indent=1, ensure_ascii=False), encoding="utf-8")
            temporary.replace(self._file)
        except OSError as error:
            log.warning("coordinates are not kept", file=str(self._file), error=error.strerror)


def _read(file: Path) -> dict[str, tuple[float, float]]:
    try:
        entries: Any = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): (float(latitude), float(longitude)) for name, (latitude, longitude) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
