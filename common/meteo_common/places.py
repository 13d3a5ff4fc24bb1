"""The places whose weather is asked for, as the setting CITY writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(
    r"(?P<name>[^,;@]+),(?P<country>[A-Za-z]{2})(?:@(?P<latitude>-?\d+(?:\.\d+)?),(?P<longitude>-?\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Place:
    """A place by name and ISO 3166 country code; its coordinates in degrees when the setting gives them."""

    name: str
    country: str
    latitude: float | None = None
    longitude: float | None = None

    def __str__(self) -> str:
        return f"{self.name},{self.country}"


def parse_places(text: str) -> tuple[Place, ...]:
    """Return the places of `Name,CC` or `Name,CC@latitude,longitude` entries separated by `;`.

    Raises ValueError naming the entry that is not of this form.
    """
    entries = [entry.strip() for entry in text.split(";") if entry.strip()]
    if not entries:
        raise ValueError("expected at least one place, such as Paris,FR")
    return tuple(_parse_place(entry) for entry in entries)


def _parse_place(entry: str) -> Place:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"'{entry}' is not of the form Name,CC or Name,CC@latitude,longitude")
    if match["latitude"] is None:
        return Place(match["name"].strip(), match["country"].upper())
    latitude, longitude = float(match["latitude"]), float(match["longitude"])
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise ValueError(f"'{entry}' has coordinates outside -90…90 and -180…180 degrees")
    return Place(match["name"].strip(), match["country"].upper(), latitude, longitude)
